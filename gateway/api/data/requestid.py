"""Ids of requests whose client gives none."""

from __future__ import annotations

import os
from collections.abc import Callable

_ID_BYTES = 12
_IDS_AT_ONCE = 64


class RequestIds:
    """Ids that nobody can guess and none has twice: 96 random bits, fetched for many at a time.

    Made in the process that uses it: a copy in a forked one would give the same.
    """

    __slots__ = ("_at", "_pool", "_random")

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self._pool = ""
        self._at = 0

    def __call__(self) -> str:
        at = self._at
        if at == len(self._pool):
            self._pool = self._random(_ID_BYTES * _IDS_AT_ONCE).hex()
            at = 0
        self._at = at + 2 * _ID_BYTES
        return "req_" + self._pool[at : self._at]
