"""Counts failures per key in fixed windows, in memory: what bounds guessing within one control process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import ceil

from gateway.oauth.errors import TooManyAttemptsError


class Throttle:
    """At most `limit` charges per key and `period_s`. `clock` gives seconds.

    Remembers `capacity` keys, the oldest forgotten first: a flood from many addresses costs bounded memory.
    """

    def __init__(self, limit: int, period_s: float, clock: Callable[[], float], capacity: int = 50_000) -> None:
        self._limit = limit
        self._period_s = period_s
        self._clock = clock
        self._capacity = capacity
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()  # key → (end of the window, charges)

    def check(self, key: str) -> None:
        """Raises `TooManyAttemptsError` when `key` has used up its window."""
        ends, charges = self._windows.get(key, (0.0, 0))
        left = ends - self._clock()
        if left > 0 and charges >= self._limit:
            raise TooManyAttemptsError("too many attempts; wait before the next one", retry_after_s=ceil(left))

    def charge(self, key: str) -> None:
        """Count one."""
        now = self._clock()
        ends, charges = self._windows.pop(key, (0.0, 0))
        self._windows[key] = (ends, charges + 1) if ends > now else (now + self._period_s, 1)
        if len(self._windows) > self._capacity:
            self._windows.popitem(last=False)
