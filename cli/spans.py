"""Spans of time as people write them: `10m`, `36h`, `90d`."""

from __future__ import annotations

import re
from typing import Final

from cli.errors import UsageError

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SPAN: Final = re.compile(r"(\d{1,9})([smhd])").fullmatch


def seconds(text: str) -> int:
    """Raises `UsageError`."""
    found = _SPAN(text.strip())
    if found is None:
        raise UsageError(f"{text[:40]!r} is no span of time", "write 30s, 10m, 36h or 90d")
    return int(found[1]) * _UNITS[found[2]]


def span(amount: float) -> str:
    """In its largest whole unit, rounded down: `3d`; nothing for less than nothing."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if amount >= size:
            return f"{int(amount // size)}{unit}"
    return f"{int(amount)}s" if amount >= 0 else ""
