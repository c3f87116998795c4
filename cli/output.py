"""What commands print. Results on stdout in the chosen format, everything said to a person on stderr."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from msgspec import Struct, json, to_builtins


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


class Column(Struct, frozen=True):
    """One column of a table: its head, and the field it shows (`a.b` reads into a nested one)."""

    head: str
    field: str
    show: Callable[[Any], str] | None = None


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


_STEERING = {
    code: f"\\u{code:04x}"
    for code in (
        *range(9),
        11,
        12,
        *range(14, 32),
        *range(127, 160),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    )
}
"""What moves a terminal's cursor, changes its state or turns its text around; not tab and line ends. Written as
JSON writes it, so that a document stays one."""


_TIMES = ("_at", "_before", "_after")


def printable(text: str) -> str:
    """`text` with control characters made visible: a name in a list must not steer the terminal."""
    return "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text
    )


def harmless(text: str) -> str:
    """`text` with its lines and tabs, and nothing else in it that steers a terminal."""
    return text.translate(_STEERING)


def instant(seconds: Any) -> str:
    """Unix seconds as RFC 3339 in UTC; nothing for 0. Of a year that has not four digits, the seconds."""
    if not seconds:
        return ""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"second {seconds}"


def cell(value: Any) -> str:
    """One value as text: lists joined, yes and no, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={cell(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(cell(item) for item in value)
    return printable(str(value))


def csv_cell(value: Any) -> Any:
    """A cell that no spreadsheet runs: text that begins like a formula gets an apostrophe before it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raw = value if isinstance(value, str) else cell(value)
    return "'" + raw if raw.startswith(_FORMULA) else raw


class Printer:
    """One command's output. `stdout` gets results only; a pipe gets neither colours nor frames."""

    def __init__(self, form: Format, *, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.form = form
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr

    @property
    def interactive(self) -> bool:
        return self._stdout.isatty()

    def say(self, message: str) -> None:
        """A word to the person, on stderr."""
        self._stderr.write(harmless(message) + "\n")
        self._stderr.flush()

    def line(self, text: str) -> None:
        """One line of result (a token, an entry) as it is, but for what would steer the terminal."""
        self._stdout.write(text.translate(_STEERING) + "\n")
        self._stdout.flush()

    def items(self, items: Iterable[Any], columns: Sequence[Column], *, empty: str = "") -> None:
        """A list. In a table and in CSV only `columns`; in JSON and YAML every field."""
        rows = [to_builtins(item) for item in items]
        if self.form is Format.JSON or self.form is Format.YAML:
            self._document(rows)
        elif self.form is Format.CSV:
            self._csv(
                [c.field for c in columns], [[csv_cell(_field(row, c.field)) for c in columns] for row in rows]
            )
        elif not rows:
            self.say(empty or "nothing to show")
        else:
            self._table([c.head for c in columns], [[_shown(row, c) for c in columns] for row in rows])

    def item(self, item: Any) -> None:
        """One thing, field by field."""
        row = to_builtins(item)
        if self.form is Format.JSON or self.form is Format.YAML:
            self._document(row)
        elif self.form is Format.CSV:
            self._csv(list(row), [[csv_cell(value) for value in row.values()]])
        else:
            self._table(
                [],
                [[key.replace("_", " "), _field_text(key, value)] for key, value in row.items()],
            )

    def _document(self, value: Any) -> None:
        if self.form is Format.YAML:
            import yaml

            text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
        else:
            text = json.format(json.encode(value), indent=2).decode() + "\n"
        self._stdout.write(text.translate(_STEERING))
        self._stdout.flush()

    def _csv(self, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(heads)
        writer.writerows(rows)
        self._stdout.write(buffer.getvalue().translate(_STEERING))
        self._stdout.flush()

    def _table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if self.interactive:
            self._rich_table(heads, rows)
            return
        lines = [list(heads), *rows] if heads else list(rows)
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        for line in lines:
            self.line("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())

    def _rich_table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=SIMPLE_HEAD if heads else None, show_header=bool(heads), header_style="bold", pad_edge=False
        )
        for place in range(len(rows[0])):
            style = "cyan" if place == 0 else ""
            table.add_column(heads[place] if heads else "", style=style, overflow="fold")
        for row in rows:
            table.add_row(*(Text(text, style=STATES.get(text, "")) for text in row))
        Console(file=self._stdout).print(table)


def _field_text(key: str, value: Any) -> str:
    if key.endswith(_TIMES):
        return instant(value)
    if key.endswith("_pem") and isinstance(value, str):
        return "set" if value else ""
    return cell(value)


STATES = {
    "active": "green",
    "suspended": "red",
    "ok": "green",
    "failed": "bold red",
    "allow": "green",
    "deny": "red",
}


def _field(row: Mapping[str, Any], path: str) -> Any:
    value: Any = row
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _shown(row: Mapping[str, Any], column: Column) -> str:
    value = _field(row, column.field)
    return column.show(value) if column.show else cell(value)
