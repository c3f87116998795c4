"""One timer a connection for the deadlines of all its streams.

A timer for each request is armed and cancelled with it, several times, and fires almost never. Here a deadline
costs a comparison: the timer is armed for the earliest that may come, looks at all streams when it fires, and is
armed again for the earliest that is left.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

GRAIN_S = 0.01
"""A deadline may be this late, so that many near each other cost one look."""


def _never(now: float) -> float:
    return math.inf


class Deadlines:
    """`look` ends what is due at the time it is given (the loop's clock) and returns when it is to be called
    next, `math.inf` for never."""

    __slots__ = ("_at", "_look", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, look: Callable[[float], float]) -> None:
        self._loop = loop
        self._look = look
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def by(self, when: float) -> None:
        """Look at `when` at the latest, or `GRAIN_S` later."""
        if when < self._at:
            if self._timer is not None:
                self._timer.cancel()
            self._at = when
            self._timer = self._loop.call_later(max(when - self._loop.time(), GRAIN_S), self._fire)

    def stop(self) -> None:
        """For good: `by` does nothing from now on. Holds whose streams it looked at no longer: the two would keep
        each other for the collector."""
        self._at = -math.inf
        self._look = _never
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._at = math.inf
        self.by(self._look(self._loop.time()))
