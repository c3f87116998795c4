"""What a worker's limits give for claims they granted: nothing here awaits, so nothing can be lost by a cancel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import structs

from gateway.exchange import Claim, Standing, Used
from gateway.limits.asking import Asker, Refuser
from gateway.limits.headers import standings
from gateway.limits.local import Bucket
from tenants.models import LimitUnit, OnEnd

STEP = 8
"""A stream that is to be cut at its limit's end asks for one in so many parts of its claim at a time."""

_REQUESTS = LimitUnit.REQUESTS
_SLOT = LimitUnit.CONCURRENCY


class Stock(Protocol):
    """Where what is held was taken from: `slices.SlicedLimits`. `units` were reserved of `claim` in `bucket`."""

    def now_ms(self) -> int: ...
    def spent(self, bucket: Bucket, units: int) -> None:
        """Counted as used, and no longer as reserved."""

    def charge(self, claim: Claim, bucket: Bucket, units: int, before: int, after: int) -> None:
        """`after` of them are used, or more than them; `before` was so far."""

    def release(self, bucket: Bucket, units: int) -> None:
        """So many of them are not, and nobody's any more."""

    def ask(self, asker: Asker) -> None:
        """Tell `asker` what it gets: at once, or when the store has said it."""


class SlicedHold:
    """`units`: reserved of each claim; None: all of it."""

    __slots__ = ("_at", "_claims", "_left", "_meter", "_open", "_stock", "_units")

    def __init__(
        self,
        stock: Stock,
        claims: tuple[Claim, ...],
        at: Sequence[Bucket],
        left: Sequence[int],
        units: Sequence[int] | None = None,
    ) -> None:
        self._stock = stock
        self._claims = claims
        self._at = at
        self._left = left
        self._units = units
        self._meter: _Meter | None = None
        self._open = True

    @property
    def standings(self) -> tuple[Standing, ...]:
        """As of the moment when all was granted."""
        return standings(self._claims, self._left, self._stock.now_ms())

    @property
    def metered(self) -> bool:
        """Whenever anything is counted that a stream uses as it goes: what is known of it here is what is charged
        if this process is killed, and what a stream of an hour's length has used is used before it ends."""
        return any(claim.unit is not _REQUESTS and claim.unit is not _SLOT for claim in self._claims)

    def spending(self, used: Used) -> Claim | None:
        if (meter := self._meter) is None:
            units = self._units or [claim.cost for claim in self._claims]
            meter = self._meter = _Meter(self._stock, self._claims, self._at, units)
        return meter.spending(used) if self._open else None

    def settle(self, used: Used) -> None:
        self._close()
        if self._meter is not None or self._units is not None:
            self._settle_each(used)
            return
        for claim, bucket in zip(self._claims, self._at, strict=True):
            unit = claim.unit
            if unit is _REQUESTS:
                continue
            cost = claim.cost
            if bucket.scarce or bucket.gone:
                self._settle_one(claim, bucket, cost, 0, used)
            elif unit is _SLOT:
                bucket.open -= cost
                bucket.avail += cost
            else:
                after = used.of(unit)
                bucket.open -= cost
                bucket.avail += cost - after
                self._stock.spent(bucket, after)

    def refund(self) -> None:
        self._close()
        for place, (claim, bucket) in enumerate(zip(self._claims, self._at, strict=True)):
            units = claim.cost if self._units is None else self._units[place]
            before = 0
            if self._meter is not None:
                units, before = self._meter.units[place], self._meter.charged[place]
            if claim.unit is _REQUESTS:
                self._stock.charge(claim, bucket, units, units, 0)
                continue
            if before:
                self._stock.charge(claim, bucket, units, before, 0)
            self._stock.release(bucket, max(units - before, 0))

    def _settle_each(self, used: Used) -> None:
        for place, (claim, bucket) in enumerate(zip(self._claims, self._at, strict=True)):
            units = claim.cost if self._units is None else self._units[place]
            before = 0
            if self._meter is not None:
                units, before = self._meter.units[place], self._meter.charged[place]
            if claim.unit is not _REQUESTS:
                self._settle_one(claim, bucket, units, before, used)

    def _settle_one(self, claim: Claim, bucket: Bucket, units: int, before: int, used: Used) -> None:
        after = used.of(claim.unit)
        if after != before:
            self._stock.charge(claim, bucket, units, before, after)
        if (rest := units - max(before, after)) > 0:
            self._stock.release(bucket, rest)

    def _close(self) -> None:
        if not self._open:
            raise RuntimeError("this hold has been settled or refunded already")
        self._open = False
        if self._meter is not None:
            self._meter.ended = True


class _Meter:
    """What a stream has used as it goes, and how it gets more where its limits want it cut at their end."""

    __slots__ = ("_asking", "_at", "_claims", "_counted", "_stock", "charged", "ended", "units")

    def __init__(
        self, stock: Stock, claims: tuple[Claim, ...], at: Sequence[Bucket], units: Sequence[int]
    ) -> None:
        self._stock = stock
        self._claims = claims
        self._at = at
        self._counted = [
            place for place, claim in enumerate(claims) if claim.unit is not _REQUESTS and claim.unit is not _SLOT
        ]
        self._asking: dict[int, _More] = {}
        self.units = list(units)
        self.charged = [0] * len(claims)
        self.ended = False

    def spending(self, used: Used) -> Claim | None:
        cut: Claim | None = None
        for place in self._counted:
            claim = self._claims[place]
            before, after = self.charged[place], used.of(claim.unit)
            if after > before:
                self._stock.charge(claim, self._at[place], self.units[place], before, after)
                self.charged[place] = after
            if claim.on_end is OnEnd.CUT and self._over(place, claim, after):
                cut = claim
        return cut

    def _over(self, place: int, claim: Claim, after: int) -> bool:
        """Whether all that could be had is used. More is asked for before it runs out; what passes until there is
        an answer is a debt."""
        step = max(claim.cost // STEP, 1)
        if self.units[place] - after > step // 2:
            return False
        asking = self._asking.get(place)
        if asking is None:
            asking = self._asking[place] = _More(self, place, structs.replace(claim, cost=step, least=1))
            self._stock.ask(asking)
        return asking.ended and self.units[place] <= after

    def enlarge(self, place: int, bucket: Bucket, units: int) -> None:
        """`units` more are reserved. What was used beyond the others already is used of these."""
        used = min(units, max(self.charged[place] - self.units[place], 0))
        self.units[place] += units
        del self._asking[place]
        if used:
            self._stock.release(bucket, used)


class _More:
    """Asks for more of one claim. It gets what there is, one unit at least."""

    __slots__ = ("_meter", "_place", "claims", "ended")

    def __init__(self, meter: _Meter, place: int, claim: Claim) -> None:
        self._meter = meter
        self._place = place
        self.claims = (claim,)
        self.ended = False

    @property
    def gone(self) -> bool:
        return self._meter.ended

    def granted(self, buckets: Sequence[Bucket], units: Sequence[int]) -> None:
        self._meter.enlarge(self._place, buckets[0], units[0])

    def refused(self, claim: Claim, wait_us: int | None, *, by: Refuser) -> None:
        self.ended = True
