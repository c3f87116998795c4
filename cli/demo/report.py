"""What the demo shows: each step as it happens, ghost text, and a table at the end. Plain when piped."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text


class Row(Struct, frozen=True):
    """One step: what was done, what should be seen, what was, in how many milliseconds, and whether it fits."""

    what: str
    expected: str
    seen: str
    ms: float
    good: bool


class Screen:
    """The terminal. Colours and frames only when somebody looks."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False, soft_wrap=True)

    def title(self) -> None:
        self._print("Orgate: the gateway between your editors and the models that complete your code", "bold")
        self._print(
            "Everything below is real, and local: one gateway, one demo model, two organizations.\n", "dim"
        )

    def step(self, what: str) -> None:
        self._print(f"● {what}", "bold cyan")

    def command(self, arguments: Sequence[str]) -> None:
        self._print("  $ orgate " + shlex.join(hidden(arguments)), "dim")

    def note(self, text: str) -> None:
        self._print("  " + text.strip().replace("\n", "\n  "), "dim")

    def seen(self, good: bool, text: str) -> None:
        self._print(f"  {'✔' if good else '✘'} {text}\n", "green" if good else "bold red")

    def ghost_begin(self, code: str) -> None:
        self._console.print(Text("\n" + _indented("    " + code.rstrip("\n")) + "\n    ", style="white"), end="")

    def ghost(self, text: str) -> None:
        self._console.print(Text(_indented(text), style="bright_black italic"), end="")

    def ghost_end(self) -> None:
        self._console.print("\n")

    def table(self, rows: Sequence[Row]) -> bool:
        """The summary; True when every row is as expected."""
        table = Table(title="What was shown", title_style="bold", show_lines=False)
        for head, justify in (
            ("", "left"),
            ("what", "left"),
            ("expected", "left"),
            ("seen", "left"),
            ("ms", "right"),
        ):
            table.add_column(head, justify=justify, overflow="fold")  # type: ignore[arg-type]  # its literal type
        for row in rows:
            mark = Text("✔", style="green") if row.good else Text("✘", style="bold red")
            table.add_row(mark, Text(row.what), Text(row.expected), Text(row.seen), f"{row.ms:.0f}")
        Console(file=self._console.file, width=None if self._console.is_terminal else 150).print(table)
        good = all(row.good for row in rows)
        self._print(
            "everything was as expected" if good else "not everything was as expected", "green" if good else "red"
        )
        return good

    def editor_lines(self, url: str, ca: str, config: str, *, keep: bool = True) -> None:
        """What to paste into a fresh shell. Without `keep` the lines only show what they look like."""
        when = "while this runs" if keep else "with `orgate demo --keep`, which prints its own"
        self._print(f"\nFor an editor or any OpenAI client ({when}):", "bold")
        for line in (
            f"export ORGATE_CONFIG_DIR={shlex.quote(config)}",
            f"export OPENAI_BASE_URL={url}/v1",
            f'export OPENAI_API_KEY="$({shlex.quote(_program())} --profile ada token)"',
            f"export SSL_CERT_FILE={shlex.quote(ca)}",
            "model: code",
        ):
            self._print("  " + line)

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style))


def _program() -> str:
    """`orgate` as a fresh shell finds it: by its name, else beside this Python."""
    beside = Path(sys.executable).with_name("orgate")
    return str(beside) if shutil.which("orgate") is None and beside.is_file() else "orgate"


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def hidden(arguments: Sequence[str]) -> list[str]:
    """Invitation codes are not shown: the habit of showing them is not one to teach."""
    shown = list(arguments)
    for place, argument in enumerate(shown[:-1]):
        if argument == "--invitation":
            shown[place + 1] = "CODE"
    return shown
