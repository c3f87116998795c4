"""The exact bucket that a run is held against. In integers, one process, no slices, no messages, no store.

It shares no code with the gateway; `test_model.py` compares the two.
"""

from __future__ import annotations

from collections import deque

from tests.limits.plan import SECOND_US, Bound


class Exact:
    """One bucket of `bound`, full at `now_us`. `level` is in ticks: a unit is `tick` of them, of which each
    microsecond brings in `amount`. It may fall below zero: what was admitted without room is a debt.

    A budget is the same with nothing coming in, and so are slots.
    """

    __slots__ = ("at_us", "cap", "level", "rate", "tick")

    def __init__(self, bound: Bound, now_us: int) -> None:
        self.tick = bound.period_s * SECOND_US
        self.rate = bound.amount if bound.refills else 0
        self.cap = bound.burst * self.tick
        self.level = self.cap
        self.at_us = now_us

    def refill(self, now_us: int) -> None:
        if now_us > self.at_us:
            self.level = min(self.cap, self.level + self.rate * (now_us - self.at_us))
            self.at_us = now_us

    def take(self, units: int) -> None:
        self.level -= units * self.tick

    def give(self, units: int) -> None:
        """Units come back, as far as they fit; or are used on top (below zero)."""
        self.level = min(self.cap, self.level + units * self.tick)

    def has(self, units: int) -> bool:
        return self.level >= units * self.tick


class Watched(Exact):
    """A bucket charged with what a run really admitted: what it shows is what the run did to its limit.

    `room` is what would be left if, besides, the refusals that were found wrong had been admitted. Who is admitted
    later without there being room takes that of one who was refused wrongly: each wrong refusal counts once, and
    the same units do not make every refusal wrong until somebody has taken them. Who comes up to `slack_us` before
    his unit does takes nobody's.
    """

    __slots__ = ("_ahead", "_lows", "_past", "charged", "lowest", "room")

    def __init__(self, bound: Bound, now_us: int, slack_us: int = 0) -> None:
        super().__init__(bound, now_us)
        self._ahead = self.rate * slack_us
        self.room = self.level
        self.lowest = 0
        self.charged = 0
        self._past = deque([(now_us, self.room)])
        """When it last changed but by refill, and `room` then."""
        self._lows = deque(self._past)
        """Of these, those that no later one is below."""

    def refill(self, now_us: int) -> None:
        if now_us > self.at_us:
            came = self.rate * (now_us - self.at_us)
            self.level = min(self.cap, self.level + came)
            self.room = min(self.cap, self.room + came)
            self.at_us = now_us

    def take(self, units: int) -> None:
        ticks = units * self.tick
        self.charged += units
        self.level -= ticks
        self.room = max(self.room - ticks, min(self.level, -self._ahead))
        self.lowest = min(self.lowest, self.level)
        self._note()

    def give(self, units: int) -> None:
        ticks = units * self.tick
        self.charged -= units
        self.level = min(self.cap, self.level + ticks)
        self.room = min(self.cap, self.room + ticks)
        self._note()

    def wrong(self, units: int) -> None:
        """One was refused `units` for which there was room."""
        self.room -= units * self.tick
        self._note()

    def had(self, units: int, since_us: int) -> bool:
        """Whether there has been room for them all the time from then on. Ask with times that never go back."""
        past, lows = self._past, self._lows
        while len(past) > 1 and past[1][0] <= since_us:
            past.popleft()
        while lows and lows[0][0] < since_us:
            lows.popleft()
        at_us, room = past[0]
        lowest = min(self.cap, room + self.rate * max(since_us - at_us, 0))
        if lows:
            lowest = min(lowest, lows[0][1])
        return min(lowest, self.room) >= units * self.tick

    def has(self, units: int) -> bool:
        return self.room >= units * self.tick

    @property
    def worst(self) -> int:
        """Whole units by which what was admitted was ever beyond the limit and its burst, over any stretch."""
        return -(self.lowest // self.tick)

    def _note(self) -> None:
        now = self.at_us, self.room
        self._past.append(now)
        while self._lows and self._lows[-1][1] >= self.room:
            self._lows.pop()
        self._lows.append(now)
