"""The three kinds of bucket, with what is in workers' hands: rates refill, budgets do not, slots come back.

Each unit that a session has in its hands counts as being in the bucket still: `level` plus all hands never rises
above what the bucket holds, so that what is spent elsewhere and what is granted here exceed it together no more
than either would alone. Pure but for their own state: they know no clock and no session's life.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from gateway.limits import bucket
from gateway.limits.bucket import Level, Rate
from gateway.limits.protocol import Part, Standings
from tenants.models import LimitUnit

NEVER = -1

SLOT_WAIT_US = 1_000_000
"""Nobody knows when a request in flight ends: ask again in a second."""

FLAP_US = 10_000_000
"""A limit that is cut and raised again within this time brings nothing in: while a change is on its way to all
workers, those that know of it and those that do not speak in turns."""

SPOKEN_US = 1_250_000
"""A worker with anything in its hands says within this time what it has spent of that (`slices.SLOW_TICKS`, and
their spread). Until then it counts as being in the bucket, and may leave nothing to come in."""

KEPT_S = 2 * 86_400
"""A budget is remembered for as long after its window has ended."""


class Bucket(ABC):
    """One bucket. `refill` and `adapt` bring it up to now and to its limit before anything else is asked of it.

    `hands`: units out of it by session; `open`: those of them that requests in flight have reserved. `basis`: the
    last that a worker said of it when its store was lost, whole units left and when (`basis_at_us`, -1: nobody
    has said anything).
    """

    __slots__ = ("basis", "basis_at_us", "hands", "lent", "open", "part")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.hands: dict[str, int] = {}
        self.open: dict[str, int] = {}
        self.lent = 0  # the sum of `hands`
        self.basis = 0
        self.basis_at_us = -1

    @property
    @abstractmethod
    def left(self) -> int:
        """Whole units that can be taken; negative in debt."""

    @abstractmethod
    def refill(self, now_us: int) -> None:
        """What has come in since the last time. A clock that went back brings nothing in."""

    @abstractmethod
    def adapt(self, part: Part) -> None:
        """The limit is as `part` says: a raise is there at once, a cut takes what no longer fits. Debts stay."""

    @abstractmethod
    def wait_us(self, least: int, now_us: int) -> int:
        """Microseconds until one alone on it can take `least`; `NEVER`."""

    @abstractmethod
    def learn(self, left: int, at_us: int, now_us: int) -> None:
        """`left` were left at `at_us`, says the newest that is known from before the store was lost."""

    @abstractmethod
    def as_new(self, now_us: int) -> bool:
        """Whether it can be forgotten: one that is made again would be the same."""

    @abstractmethod
    def reset(self) -> None:
        """Full and nobody's debt; what is lent stays lent."""

    @abstractmethod
    def give(self, units: int) -> None:
        """So many come back; what does not fit above all that is in hands is lost."""

    @abstractmethod
    def _shift(self, units: int) -> None:
        """More in it, or less, whatever it may hold."""

    @abstractmethod
    def _fit(self) -> None:
        """No more is left than fits above all that is in hands."""

    def charge(self, units: int) -> None:
        """Used, and in nobody's hands before; beyond what is left it is a debt."""
        self._shift(-units)

    def grant(self, session: str, units: int) -> None:
        """Out of the bucket, into the hands of `session`: lent or reserved."""
        if units:
            self._shift(-units)
            self.hands[session] = self.hands.get(session, 0) + units
            self.lent += units

    def report(self, session: str, spent: int, back: int, reserved: int) -> None:
        """What became of what `session` has. Beyond what was in its hands, `spent` is a debt of the bucket."""
        had = self.hands.get(session, 0)
        rest = had - spent - back
        if rest < 0:
            self._shift(rest)
            rest = 0
        self._keep(session, rest, min(reserved, rest))
        if back:
            self.give(back)

    def hold(self, session: str, units: int) -> None:
        """A store that was lost had lent `units` to `session`: they are out of the bucket already."""
        if units:
            self._keep(session, self.hands.get(session, 0) + units, self.open.get(session, 0))
            self._fit()

    def close(self, session: str) -> None:
        """All that `session` has comes back."""
        if had := self.hands.get(session, 0):
            self._keep(session, 0, 0)
            self.give(had)

    def end(self, sessions: Iterable[str], now_us: int) -> None:
        """The sessions are over, and nobody says what became of what they had: what requests had reserved comes
        back, the rest counts as spent."""
        back = 0
        for session in sessions:
            if had := self.hands.get(session, 0):
                back += self._returns(had, self.open.get(session, 0))
                self._keep(session, 0, 0)
        if back:
            self.give(back)

    def standings(self, sessions: int, at_us: int, began_us: int) -> Standings:
        part = self.part
        return Standings(
            limit=part.limit,
            subject=part.subject,
            unit=part.unit,
            amount=part.amount,
            burst=part.burst,
            period_s=part.period_s,
            starts_s=part.starts_s,
            ends_s=part.ends_s,
            level=self.left,
            lent=self.lent,
            open=sum(self.open.values()),
            sessions=sessions,
            at_us=at_us,
            began_us=began_us,
        )

    def _returns(self, had: int, reserved: int) -> int:
        return reserved

    def _keep(self, session: str, units: int, reserved: int) -> None:
        self.lent += units - self.hands.get(session, 0)
        if units:
            self.hands[session] = units
        else:
            self.hands.pop(session, None)
        if reserved:
            self.open[session] = reserved
        else:
            self.open.pop(session, None)


class RateBucket(Bucket):
    """`amount` per period, `burst` at most."""

    __slots__ = ("_cut_at_us", "_level", "_peak", "_rate")

    def __init__(self, part: Part, now_us: int) -> None:
        super().__init__(part)
        self._rate = rate_of(part)
        self._level = bucket.full(self._rate, now_us)
        self._peak = 0  # what it held before it was cut the last time, whole units
        self._cut_at_us = now_us - FLAP_US

    @property
    def left(self) -> int:
        return bucket.units(self._rate, self._level)

    def refill(self, now_us: int) -> None:
        self._level = bucket.refill(self._rate, self._level, now_us, self.lent)

    def adapt(self, part: Part) -> None:
        self.part = part
        old, rate = self._rate, rate_of(part)
        if rate == old:
            return
        now = self._level.at_us
        had = bucket.holds(old)
        if 0 <= now - self._cut_at_us < FLAP_US:
            had = max(had, self._peak)
        self._level = bucket.change(old, rate, self._level, had)
        self._rate = rate
        if bucket.holds(rate) < had:
            self._peak, self._cut_at_us = had, now

    def wait_us(self, least: int, now_us: int) -> int:
        wait = bucket.wait_us(self._rate, self._level, least)
        if wait is None:
            return NEVER
        return wait + SPOKEN_US if least > self._rate.burst - self.lent else wait

    def learn(self, left: int, at_us: int, now_us: int) -> None:
        if at_us <= self.basis_at_us:
            return
        rate, now = self._rate, self._level.at_us
        if self.basis_at_us < 0:
            thought = rate.cap
        else:
            thought = bucket.refill(rate, bucket.level(rate, self.basis, self.basis_at_us), now).ticks
        known = bucket.refill(rate, bucket.level(rate, left, at_us), now).ticks
        self._level = Level(self._level.ticks + min(known, rate.cap) - min(thought, rate.cap), now)
        self.basis, self.basis_at_us = left, at_us
        self._fit()

    def as_new(self, now_us: int) -> bool:
        self.refill(now_us)
        return not self.lent and self._level.ticks >= self._rate.cap

    def reset(self) -> None:
        self._level = Level(max(self._rate.cap - self.lent * self._rate.period_us, 0), self._level.at_us)

    def _shift(self, units: int) -> None:
        self._level = bucket.charge(self._rate, self._level, -units)

    def give(self, units: int) -> None:
        self._level = bucket.give(self._rate, self._level, units, self.lent)

    def _fit(self) -> None:
        top = self._rate.cap - self.lent * self._rate.period_us
        if self._level.ticks > top:
            self._level = Level(top, self._level.at_us)


class BudgetBucket(Bucket):
    """`amount` for one calendar window: level + hands + used = amount."""

    __slots__ = ("_left",)

    def __init__(self, part: Part, now_us: int) -> None:
        super().__init__(part)
        self._left = part.amount

    @property
    def left(self) -> int:
        return self._left

    def refill(self, now_us: int) -> None:
        """Nothing comes in but with the next window, which is another bucket."""

    def adapt(self, part: Part) -> None:
        more = part.amount - self.part.amount
        self.part = part
        self._left += more
        self.basis += more

    def wait_us(self, least: int, now_us: int) -> int:
        if least > self.part.amount or self.part.amount <= 0:
            return NEVER
        return max(self.part.ends_s * 1_000_000 - now_us, 0)

    def learn(self, left: int, at_us: int, now_us: int) -> None:
        if at_us <= self.basis_at_us:
            return
        self._left += left - (self.part.amount if self.basis_at_us < 0 else self.basis)
        self.basis, self.basis_at_us = left, at_us
        self._fit()

    def as_new(self, now_us: int) -> bool:
        return not self.lent and now_us > (self.part.ends_s + KEPT_S) * 1_000_000

    def reset(self) -> None:
        self._left = max(self.part.amount - self.lent, 0)

    def _shift(self, units: int) -> None:
        self._left += units

    def give(self, units: int) -> None:
        self._left += units

    def _fit(self) -> None:
        self._left = min(self._left, self.part.amount - self.lent)


class SlotBucket(Bucket):
    """Requests at once: what is not in anybody's hands is left. A slot that comes free is `back`, and one of a
    session that is over is free."""

    __slots__ = ()

    def __init__(self, part: Part, now_us: int) -> None:
        super().__init__(part)

    @property
    def left(self) -> int:
        return self.part.amount - self.lent

    def refill(self, now_us: int) -> None:
        """Slots come back when they are given back, not with time."""

    def adapt(self, part: Part) -> None:
        self.part = part

    def wait_us(self, least: int, now_us: int) -> int:
        return NEVER if least > self.part.amount or self.part.amount <= 0 else SLOT_WAIT_US

    def learn(self, left: int, at_us: int, now_us: int) -> None:
        """What is out is what sessions hold; those that have not said so yet do within a second."""

    def as_new(self, now_us: int) -> bool:
        return not self.lent

    def reset(self) -> None:
        """Slots in use are in use."""

    def _shift(self, units: int) -> None:
        """What is in hands says it."""

    def give(self, units: int) -> None:
        """What is in hands says it."""

    def _fit(self) -> None:
        """More in hands than there are is what `left` below zero says."""

    def _returns(self, had: int, reserved: int) -> int:
        return had


KINDS: dict[str, type[RateBucket] | type[BudgetBucket] | type[SlotBucket]] = {
    "r": RateBucket,
    "b": BudgetBucket,
    "s": SlotBucket,
}


def kind_of(part: Part) -> str:
    if part.unit is LimitUnit.CONCURRENCY:
        return "s"
    return "b" if part.ends_s > 0 else "r"


def rate_of(part: Part) -> Rate:
    return Rate(part.amount, max(part.period_s, 1) * 1_000_000, part.burst)
