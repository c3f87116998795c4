"""The texts in a JSON value, for measuring them: how long a prompt or an answer is. They go nowhere else."""

from __future__ import annotations

from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode


def texts(data: bytes) -> list[str]:
    """Every string in `data`, in order, but for the names of members.

    Raises `msgspec.DecodeError`, `UnicodeDecodeError` or `RecursionError` for what cannot be read.
    """
    found: list[str] = []
    rest: list[Any] = [_decode(data)]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, list):
            rest += reversed(one)
        elif isinstance(one, dict):
            rest += reversed(one.values())
    return found


def octets(data: bytes) -> int:
    """Bytes of them in UTF-8. Raises what `texts` does."""
    return sum([len(text.encode()) for text in texts(data)])
