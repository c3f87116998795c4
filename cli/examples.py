"""The examples that end every `--help`: written one command a line, shown one command a line."""

from __future__ import annotations


def examples(*lines: str) -> str:
    r"""An epilog that the help formatter leaves alone: `\b` on a line of its own says "do not wrap this"."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
