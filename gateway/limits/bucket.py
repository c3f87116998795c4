"""The token bucket, in integers. Pure: knows no clock, no store, no tenant.

A bucket of `amount` units per `period_us` is counted in *ticks*: one unit is `period_us` ticks, so that each
microsecond brings in exactly `amount` ticks and nothing is ever rounded away. A level may be below zero: more
was used than had been reserved, and the debt is paid by waiting.
"""

from __future__ import annotations

from msgspec import Struct


class Rate(Struct, frozen=True):
    """`amount` units per `period_us` microseconds; `burst` units at most at once. `amount` 0 lets nothing pass."""

    amount: int
    period_us: int
    burst: int

    @property
    def cap(self) -> int:
        """A full bucket, in ticks."""
        return self.burst * self.period_us if self.amount > 0 else 0


class Level(Struct, frozen=True):
    """What is in a bucket: `ticks` as of `at_us`."""

    ticks: int
    at_us: int


def full(rate: Rate, now_us: int) -> Level:
    return Level(rate.cap, now_us)


def level(rate: Rate, n: int, at_us: int) -> Level:
    """`n` whole units."""
    return Level(n * rate.period_us, at_us)


def refill(rate: Rate, level: Level, now_us: int, lent: int = 0) -> Level:
    """What has come in since. `lent` units are in somebody's hands: they count as being in the bucket, so that
    what is spent of them and what is spent here never exceed one burst together. A clock that was set back
    brings nothing in, and counts on from there."""
    elapsed = now_us - level.at_us
    if elapsed <= 0:
        return Level(level.ticks, now_us)
    top = max(rate.cap - lent * rate.period_us, level.ticks)
    return Level(min(top, level.ticks + rate.amount * elapsed), now_us)


def units(rate: Rate, level: Level) -> int:
    """Whole units that can be taken from a refilled level; negative in debt."""
    return level.ticks // rate.period_us


def charge(rate: Rate, level: Level, n: int) -> Level:
    """`n` units out of it, whatever is left."""
    return Level(level.ticks - n * rate.period_us, level.at_us)


def give(rate: Rate, level: Level, n: int, lent: int = 0) -> Level:
    """`n` units back into a refilled level; what does not fit above those that are still `lent` is lost."""
    top = rate.cap - lent * rate.period_us
    return Level(max(min(top, level.ticks + n * rate.period_us), level.ticks), level.at_us)


def wait_us(rate: Rate, level: Level, n: int) -> int | None:
    """Microseconds until `n` units can be taken from a refilled level, to the microsecond; None: never."""
    if n > rate.burst or rate.amount <= 0:
        return None
    missing = n * rate.period_us - level.ticks
    return max(0, -(-missing // rate.amount))


def holds(rate: Rate) -> int:
    """Whole units in a full bucket."""
    return rate.burst if rate.amount > 0 else 0


def change(old: Rate, new: Rate, level: Level, had: int | None = None) -> Level:
    """`level` under a changed rate: what a full bucket holds more than `had` units (as `old` says, unless it is
    given) is there at once, a cut takes what no longer fits. Debts stay."""
    ticks = level.ticks if old.period_us == new.period_us else level.ticks * new.period_us // old.period_us
    raised = max(0, holds(new) - (holds(old) if had is None else had)) * new.period_us
    return Level(min(new.cap, ticks + raised), level.at_us)
