"""What bounds guessing and flooding: so many charges per key and period, counted here or for all nodes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from typing import Protocol

from gateway.errors import UnavailableError
from gateway.oauth.errors import TemporarilyUnavailableError, TooManyAttemptsError


class Throttle(Protocol):
    """At most so many charges per key and period. Safe for many tasks.

    Errors: `TooManyAttemptsError`; `TemporarilyUnavailableError` when the count cannot be read: what cannot be
    counted is refused, since a guesser could be who made it so.
    """

    async def check(self, key: str) -> None:
        """Raises when `key` has used up what it may."""

    async def charge(self, key: str) -> None:
        """Count one."""


Throttles = Callable[[str, int, float], Throttle]
"""(name, limit, period in seconds) → a throttle of its own."""


class MemoryThrottle:
    """Fixed windows within one control process. `clock` gives seconds.

    Remembers `capacity` keys, the oldest forgotten first: a flood from many addresses costs bounded memory.
    """

    def __init__(self, limit: int, period_s: float, clock: Callable[[], float], capacity: int = 50_000) -> None:
        self._limit = limit
        self._period_s = period_s
        self._clock = clock
        self._capacity = capacity
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()  # key → (end of the window, charges)

    async def check(self, key: str) -> None:
        ends, charges = self._windows.get(key, (0.0, 0))
        left = ends - self._clock()
        if left > 0 and charges >= self._limit:
            raise _too_many(left)

    async def charge(self, key: str) -> None:
        now = self._clock()
        ends, charges = self._windows.pop(key, (0.0, 0))
        self._windows[key] = (ends, charges + 1) if ends > now else (now + self._period_s, 1)
        if len(self._windows) > self._capacity:
            self._windows.popitem(last=False)


class Counter(Protocol):
    """Counts for all nodes together: `gateway.limits.counter.SliceCounter`."""

    async def count(self, name: str, key: str, limit: int, period_s: int, n: int) -> float:
        """Take `n` from the bucket of `key`, which refills evenly. With `n` 0: seconds until one is left in it, 0
        when there is. Raises `UnavailableError`."""


class SharedThrottle:
    """A bucket of `limit` that refills over the period, wherever `counter` keeps it."""

    def __init__(self, counter: Counter, name: str, limit: int, period_s: float) -> None:
        self._counter = counter
        self._name = name
        self._limit = limit
        self._period_s = ceil(period_s)

    async def check(self, key: str) -> None:
        if (wait := await self._count(key, 0)) > 0:
            raise _too_many(wait)

    async def charge(self, key: str) -> None:
        await self._count(key, 1)

    async def _count(self, key: str, n: int) -> float:
        try:
            return await self._counter.count(self._name, key, self._limit, self._period_s, n)
        except UnavailableError as error:
            text = "attempts cannot be counted now; try again in a few seconds"
            raise TemporarilyUnavailableError(text, retry_after_s=error.retry_after_s or 2) from None


def throttles(clock: Callable[[], float], counter: Counter | None = None) -> Throttles:
    """Throttles that count in this process or, with a `counter`, for all nodes together."""

    def make(name: str, limit: int, period_s: float) -> Throttle:
        if counter is None:
            return MemoryThrottle(limit, period_s, clock)
        return SharedThrottle(counter, name, limit, period_s)

    return make


def _too_many(wait_s: float) -> TooManyAttemptsError:
    return TooManyAttemptsError("too many attempts; wait before the next one", retry_after_s=ceil(wait_s))
