"""The buckets themselves: found by key, made when first asked for, forgotten when full and idle.

Used by `MemoryLimits` in one process and by `LimitOwner` for many workers. A `session` is whose hands lent
units are in: a worker's, or '' within one process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from gateway.exchange import Claim, Standing
from gateway.limits import bucket
from gateway.limits.bucket import Rate
from tenants.ids import OrgId
from tenants.models import LimitUnit

Key = tuple[OrgId, str, str]


class Refused(Struct, frozen=True):
    """`limit` said no for longest; nothing was taken. `wait_us`: until it would say yes to one alone on it.

    `never`: the claim is larger than the bucket ever holds.
    """

    limit: str
    scope: str
    unit: str
    cost: int
    most: int
    wait_us: int
    never: bool = False


SLOT_WAIT_US = 1_000_000
"""Nobody knows when a request in flight ends: ask again in a second."""


def key_of(claim: Claim) -> Key:
    return claim.org, claim.limit, claim.subject


def rate_of(claim: Claim) -> Rate:
    return Rate(claim.amount, max(claim.period_s, 1) * 1_000_000, claim.burst or claim.amount)


class Bucket(Protocol):
    """One bucket, brought up to now by `refresh` before anything else is asked of it."""

    def refresh(self, claim: Claim, now_us: int) -> None: ...
    @property
    def left(self) -> int:
        """Whole units that can be taken; negative in debt."""

    def refuse(self, claim: Claim) -> Refused | None: ...
    def take(self, n: int, session: str) -> None: ...
    def give(self, n: int, session: str) -> None:
        """`n` units come back; negative: were used beyond what had been taken."""

    def lend(self, n: int, session: str) -> None: ...
    def unlend(self, session: str) -> int:
        """`session` has nothing of this bucket in its hands any more; returns what it had been thought to have."""

    def keep(self, n: int, known: int, session: str) -> int:
        """After `unlend`, which said `known`: `session` keeps `n` of them. Returns how many of these were taken
        out of the bucket for it, because they had not been known to be lent."""

    def forget(self, session: str) -> None:
        """`session` is dead: what it may have spent is spent."""

    @property
    def idle(self) -> bool: ...


class RateBucket:
    """Requests or tokens per period. Lent units are out of the level and hold its top down (see `bucket`)."""

    __slots__ = ("_lent", "_level", "_rate")

    def __init__(self, claim: Claim, now_us: int) -> None:
        self._rate = rate_of(claim)
        self._level = bucket.full(self._rate, now_us)
        self._lent: dict[str, int] = {}

    def refresh(self, claim: Claim, now_us: int) -> None:
        self._level = bucket.refill(self._rate, self._level, now_us, sum(self._lent.values()))
        if (rate := rate_of(claim)) != self._rate:
            self._level = bucket.change(self._rate, rate, self._level)
            self._rate = rate

    def refill(self, now_us: int) -> None:
        self._level = bucket.refill(self._rate, self._level, now_us, sum(self._lent.values()))

    @property
    def left(self) -> int:
        return bucket.units(self._rate, self._level)

    def refuse(self, claim: Claim) -> Refused | None:
        if bucket.take(self._rate, self._level, claim.cost) is not None and self._rate.amount > 0:
            return None
        wait = bucket.wait_us(self._rate, self._level, claim.cost)
        never = wait is None
        if wait is None:
            wait = bucket.full_in_us(self._rate, self._level) if self._rate.amount > 0 else self._rate.period_us
        most = self._rate.burst if self._rate.amount > 0 else 0
        return Refused(claim.limit, claim.scope, claim.unit, claim.cost, most, wait, never)

    def take(self, n: int, session: str) -> None:
        self._level = bucket.settle(self._rate, self._level, 0, n)

    def give(self, n: int, session: str) -> None:
        self._level = bucket.settle(self._rate, self._level, max(n, 0), max(-n, 0))

    def lend(self, n: int, session: str) -> None:
        if n:
            self.take(n, session)
            self._lent[session] = self._lent.get(session, 0) + n

    def unlend(self, session: str) -> int:
        return self._lent.pop(session, 0)

    def keep(self, n: int, known: int, session: str) -> int:
        unknown = max(n - known, 0)
        if unknown:
            self.take(unknown, session)
        if n:
            self._lent[session] = n
        return unknown

    def forget(self, session: str) -> None:
        self._lent.pop(session, None)

    @property
    def idle(self) -> bool:
        return not self._lent and self._level.ticks >= self._rate.cap


class SlotBucket:
    """Requests at once. A slot that is out is known by whose it is, so that a dead worker's come free."""

    __slots__ = ("_amount", "_out")

    def __init__(self, claim: Claim, now_us: int) -> None:
        self._amount = claim.amount
        self._out: dict[str, int] = {}

    def refresh(self, claim: Claim, now_us: int) -> None:
        self._amount = claim.amount

    def refill(self, now_us: int) -> None:
        """Slots come back when they are given back, not with time."""

    @property
    def left(self) -> int:
        return self._amount - sum(self._out.values())

    def refuse(self, claim: Claim) -> Refused | None:
        if claim.cost <= self.left:
            return None
        never = claim.cost > self._amount
        return Refused(claim.limit, claim.scope, claim.unit, claim.cost, self._amount, SLOT_WAIT_US, never)

    def take(self, n: int, session: str) -> None:
        self._out[session] = self._out.get(session, 0) + n

    def give(self, n: int, session: str) -> None:
        out = self._out.get(session, 0) - n
        if out > 0:
            self._out[session] = out
        else:
            self._out.pop(session, None)

    lend = take

    def unlend(self, session: str) -> int:
        return 0  # slots that are out stay out until they are given back one by one

    def keep(self, n: int, known: int, session: str) -> int:
        return 0

    def forget(self, session: str) -> None:
        self._out.pop(session, None)

    @property
    def idle(self) -> bool:
        return not self._out


class Table:
    """Buckets by (org, limit, subject). One loop's own; never awaits. Memory: those in use, a few others."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[Key, RateBucket | SlotBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def at(self, claim: Claim, now_us: int) -> Bucket:
        """The bucket that `claim` draws from, brought up to now and to the claim's amount and period."""
        kind = SlotBucket if claim.unit is LimitUnit.CONCURRENCY else RateBucket
        key = key_of(claim)
        found = self._buckets.get(key)
        if found is None or type(found) is not kind:
            found = self._buckets[key] = kind(claim, now_us)
        self._buckets.move_to_end(key)
        found.refresh(claim, now_us)
        return found

    def take(self, claims: Sequence[Claim], session: str, now_us: int) -> Refused | None:
        """All of `claims`, or none and the limit that refuses for longest."""
        buckets = [self.at(claim, now_us) for claim in claims]
        refusals = [no for b, claim in zip(buckets, claims, strict=True) if (no := b.refuse(claim)) is not None]
        if refusals:
            return max(refusals, key=lambda no: (no.never, no.wait_us))
        for found, claim in zip(buckets, claims, strict=True):
            found.take(claim.cost, session)
        return None

    def forget(self, session: str) -> None:
        for found in self._buckets.values():
            found.forget(session)

    def sweep(self, now_us: int, n: int) -> None:
        """Look at the `n` buckets that were not used for longest, and forget those that are as good as new.

        Looking at more than were made keeps them few.
        """
        for _ in range(min(n, len(self._buckets))):
            key, found = next(iter(self._buckets.items()))
            found.refill(now_us)
            if found.idle:
                del self._buckets[key]
            else:
                self._buckets.move_to_end(key)


def standings(claims: Sequence[Claim], remaining: Sequence[int]) -> tuple[Standing, ...]:
    """What is left of the strictest limit of each unit. Where there is none, nothing is said."""
    strictest: dict[LimitUnit, tuple[int, Claim]] = {}
    for claim, left in zip(claims, remaining, strict=True):
        unit = claim.unit
        if unit not in strictest or left < strictest[unit][0]:
            strictest[unit] = left, claim
    return tuple([_standing(claim, left) for left, claim in strictest.values()])


def _standing(claim: Claim, left: int) -> Standing:
    amount = claim.amount
    reset_ms = 0
    if amount > 0 and claim.unit is not LimitUnit.CONCURRENCY:
        missing = (claim.burst or amount) - left
        if missing > 0:
            reset_ms = -(-missing * (claim.period_s or 1) * 1_000 // amount)
    return Standing(claim.unit, amount, left if left > 0 else 0, reset_ms)
