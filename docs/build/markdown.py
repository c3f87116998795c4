"""The little Markdown that the pages need."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence


def page(title: str, source: str, *blocks: str) -> str:
    """A whole page; `source` says where to change what it says."""
    head = f"<!-- Made by `make docs` from {source}. Change it there. -->"
    return "\n\n".join([f"# {title}", head, *(block.strip("\n") for block in blocks if block)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(head), "|" + "---|" * len(head), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def code(text: object) -> str:
    """Inline code; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def codes(values: Iterable[object]) -> str:
    return ", ".join(code(value) for value in values)


def block(language: str, text: str) -> str:
    return f"```{language}\n{text.strip(chr(10))}\n```"


def words(thing: object) -> str:
    """The docstring of exactly this thing (never a base class's), in one paragraph."""
    return " ".join(inspect.cleandoc(getattr(thing, "__doc__", None) or "").split("\n\n")[0].split())
