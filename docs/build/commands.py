"""Finds `orgate …` command lines in Markdown and tries them against the Typer application, running none."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import typer

from docs.build.cli import tree

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(orgate [^`]+)`")
_START = re.compile(r"(?:^|\$\(|\|\s*|&&\s*|;\s*)(?:[A-Z_]+=\S+\s+)*(?:\S*/bin/)?orgate\s+(?P<rest>.*)")
_END = re.compile(r"\s[|<>&]|[;)]|\s\[|$")

SHELL = frozenset({"", "sh", "console", "bash"})


def command_lines(markdown: str) -> Iterator[tuple[str, bool]]:
    """(the command's words after `orgate`, whether it must be complete). Text in backticks may be a part."""
    for fence in _FENCE.finditer(markdown):
        if fence["language"] not in SHELL:
            continue
        for line in fence["body"].replace("\\\n", " ").splitlines():
            yield from ((rest, True) for rest in _calls(line.strip().removeprefix("$ ")))
    for inline in _INLINE.finditer(_FENCE.sub("", markdown)):
        yield from ((rest, False) for rest in _calls(inline[1]))


def _calls(line: str) -> Iterator[str]:
    while (found := _START.search(line)) is not None:
        rest = found["rest"]
        end = _END.search(rest)
        assert end is not None  # noqa: S101  # it ends with `$`
        yield rest[: end.start()]
        line = rest[end.start() :]


def fault(rest: str, *, complete: bool = True) -> str:
    """Why `orgate <rest>` is no command; '' when it is one."""
    words = shlex.split(rest, comments=True)
    if words in (["--help"], ["--version"]):
        return ""
    command, context, seen = tree(), None, "orgate"
    while True:
        try:
            context = command.make_context(seen, words, parent=context, resilient_parsing=not complete)
        except typer.Exit:
            return ""
        except Exception as error:  # noqa: BLE001  # typer's own errors are not public
            said = error.format_message() if hasattr(error, "format_message") else type(error).__name__
            return f"orgate {rest}: {said}"
        if not hasattr(command, "commands"):
            return ""
        words = [*context._protected_args, *context.args]
        if not words:
            return "" if not complete else f"orgate {rest}: a command is missing"
        if words[0] in ("COMMAND", "…"):
            return ""
        if words[0] not in command.commands:
            return f"orgate {rest}: no command {words[0]!r}"
        command, seen, words = command.commands[words[0]], words[0], words[1:]
