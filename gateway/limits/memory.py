"""Limits in one process's memory: the `LimitStore` for a gateway without workers, and the model of the others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import count

from gateway import quota as quotas
from gateway.exchange import Claim, Headers, Hold, Used
from gateway.limits.headers import rate_limit_headers
from gateway.limits.kinds import KINDS, NEVER, Bucket, kind_of
from gateway.limits.protocol import Part
from gateway.limits.refusal import refused
from tenants.models import LimitUnit, OnEnd

Key = tuple[str, quotas.Key]


class MemoryLimits:
    """`clock_us`: Unix microseconds that never go back. Never suspends, never unavailable. Exact: nothing is lent;
    what is reserved is used until it comes back."""

    def __init__(self, clock_us: Callable[[], int]) -> None:
        self._clock_us = clock_us
        self._buckets: OrderedDict[Key, Bucket] = OrderedDict()
        self._numbers = count()

    def __len__(self) -> int:
        """How many buckets are remembered."""
        return len(self._buckets)

    async def reserve(self, claims: Sequence[Claim]) -> Hold:
        now = self._clock_us()
        self._sweep(now, len(claims) + 1)
        found = [self._bucket(claim, now) for claim in claims]
        no: tuple[int, int] | None = None  # the one that says no for longest, and for how long
        for place, (claim, bucket) in enumerate(zip(claims, found, strict=True)):
            if claim.quota.amount <= 0 or bucket.left < claim.enough:
                wait = bucket.wait_us(claim.enough, now)
                if no is None or (no[1] != NEVER and (wait == NEVER or wait > no[1])):
                    no = place, wait
        if no is not None:
            told = rate_limit_headers(claims, [bucket.left for bucket in found], lambda: now // 1_000)
            raise refused(claims[no[0]], no[1], told, left=found[no[0]].left)
        return _MemoryHold(self._clock_us, str(next(self._numbers)), claims, found)

    def take(self, claims: tuple[Claim, ...]) -> Hold | None:
        return None  # whoever awaits gets it at once

    def _bucket(self, claim: Claim, now_us: int) -> Bucket:
        part = Part(
            claim.quota.limit,
            claim.quota.subject,
            claim.quota.unit,
            claim.quota.amount,
            claim.quota.burst or claim.quota.amount,
            claim.quota.period_s,
            claim.quota.starts_s,
            claim.quota.ends_s,
        )
        kind = kind_of(part)
        key = kind, claim.quota.key
        found = self._buckets.get(key)
        if found is None:
            found = self._buckets[key] = KINDS[kind](part, now_us)
        self._buckets.move_to_end(key)
        found.refill(now_us)
        found.adapt(part)
        return found

    def _sweep(self, now_us: int, n: int) -> None:
        """Look at the `n` buckets that were not used for longest, and forget those that are as good as new.
        Looking at more than were made keeps them few."""
        for _ in range(min(n, len(self._buckets))):
            key, found = next(iter(self._buckets.items()))
            if found.as_new(now_us):
                del self._buckets[key]
            else:
                self._buckets.move_to_end(key)


class _MemoryHold:
    __slots__ = ("_at", "_claims", "_clock_us", "_left", "_name", "_open", "_units")

    def __init__(
        self, clock_us: Callable[[], int], name: str, claims: Sequence[Claim], at: Sequence[Bucket]
    ) -> None:
        self._clock_us = clock_us
        self._name = name  # of whoever has its slots
        self._claims = claims
        self._at = at
        self._open = True
        self._units = [max(min(claim.cost, bucket.left), 0) for claim, bucket in zip(claims, at, strict=True)]
        for claim, bucket, units in zip(claims, at, self._units, strict=True):
            if claim.quota.unit is LimitUnit.CONCURRENCY:
                bucket.grant(name, units)
            else:
                bucket.charge(units)
        self._left = [bucket.left for bucket in at]

    def headers(self) -> Headers:
        return rate_limit_headers(self._claims, self._left, lambda: self._clock_us() // 1_000)

    @property
    def metered(self) -> bool:
        return any(claim.quota.metered for claim in self._claims)

    @property
    def tight(self) -> bool:
        return any(
            claim.quota.on_end is OnEnd.CUT and units < claim.cost
            for claim, units in zip(self._claims, self._units, strict=True)
        )

    def spending(self, used: Used) -> Claim | None:
        cut: Claim | None = None
        for place, (claim, bucket) in enumerate(zip(self._claims, self._at, strict=True)):
            more = used.of(claim.quota.unit) - self._units[place]
            if not claim.quota.metered or more <= 0 or not self._open:
                continue
            bucket.refill(self._clock_us())
            if claim.quota.on_end is OnEnd.CUT and bucket.left < more:
                cut = claim
            bucket.charge(more)
            self._units[place] += more
        return cut

    def settle(self, used: Used) -> None:
        self._end([used.of(claim.quota.unit) for claim in self._claims])

    def refund(self) -> None:
        self._end([0] * len(self._claims))

    def _end(self, used: Sequence[int]) -> None:
        if not self._open:
            raise RuntimeError("this hold has been settled or refunded already")
        self._open = False
        now = self._clock_us()
        for place, (claim, bucket) in enumerate(zip(self._claims, self._at, strict=True)):
            bucket.refill(now)
            rest = self._units[place] - used[place]
            if claim.quota.unit is LimitUnit.CONCURRENCY:
                bucket.close(self._name)
            elif rest < 0:
                bucket.charge(-rest)
            else:
                bucket.give(rest)
