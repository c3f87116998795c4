"""What a worker's limits give for claims they granted: nothing here awaits, so nothing can be lost by a cancel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from gateway.exchange import Claim, Headers, Used
from gateway.limits.asking import Asker, Refuser
from gateway.limits.headers import rate_limit_headers
from gateway.limits.local import Bucket
from tenants.models import LimitUnit, OnEnd

STEP = 8
"""A stream that is to be cut at its limit's end asks for one in so many parts of its claim at a time."""

_REQUESTS = LimitUnit.REQUESTS
_TOKENS = LimitUnit.TOKENS
_CUT = OnEnd.CUT


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


class SlicedHold(Struct, eq=False):
    """`left`: in each claim's bucket when all was granted; `units`: reserved of each claim, None: all of it."""

    _stock: Stock
    _claims: tuple[Claim, ...]
    _at: Sequence[Bucket]
    _left: Sequence[int]
    _units: list[int] | None = None
    _charged: list[int] | None = None  # of each claim, as the stream goes
    _asking: dict[int, _More] | None = None
    _open: bool = True

    def headers(self) -> Headers:
        return rate_limit_headers(self._claims, self._left, self._stock.now_ms)

    @property
    def metered(self) -> bool:
        """Whenever anything is counted that a stream uses as it goes: what is known of it here is what is charged
        if this process is killed, and what a stream of an hour's length has used is used before it ends."""
        for claim in self._claims:  # noqa: SIM110 - a generator costs more than the loop
            if claim.quota.metered:
                return True
        return False

    @property
    def tight(self) -> bool:
        units = self._units
        return units is not None and any(
            claim.quota.on_end is _CUT and units[place] < claim.cost for place, claim in enumerate(self._claims)
        )

    @property
    def open(self) -> bool:
        """Neither settled nor refunded."""
        return self._open

    def spending(self, used: Used) -> Claim | None:
        if not self._open:
            return None
        charged = self._charged
        if charged is None:
            charged = self._charged = [0] * len(self._claims)
        units = self._units
        cut: Claim | None = None
        for place, claim in enumerate(self._claims):
            quota = claim.quota
            if not quota.metered:
                continue
            before, after = charged[place], used.of(quota.unit)
            if after > before:
                reserved = claim.cost if units is None else units[place]
                bucket = self._at[place]
                if after <= reserved and bucket.here:
                    bucket.open -= after - before
                    self._stock.spent(bucket, after - before)
                else:
                    self._stock.charge(claim, bucket, reserved, before, after)
                charged[place] = after
            if quota.on_end is _CUT and self._over(place, claim, after):
                cut = claim
        return cut

    def settle(self, used: Used) -> None:
        self._close()
        if self._units is not None or self._charged is not None:
            self._settle_rest(used)
            return
        for place, bucket in enumerate(self._at):
            if bucket.requests:
                continue
            claim = self._claims[place]
            unit, reserved = claim.quota.unit, claim.cost
            # Nearly all others are limits on tokens.
            after = used.input_tokens + used.output_tokens if unit is _TOKENS else used.of(unit)
            if bucket.here and not bucket.scarce and bucket.stand is None:
                bucket.open -= reserved
                bucket.avail += reserved - after
                if after:
                    self._stock.spent(bucket, after)
            else:
                self._settle_one(claim, bucket, reserved, 0, after)

    def refund(self) -> None:
        self._close()
        units, charged = self._units, self._charged
        for place, (claim, bucket) in enumerate(zip(self._claims, self._at, strict=True)):
            reserved = claim.cost if units is None else units[place]
            before = 0 if charged is None else charged[place]
            if claim.quota.unit is _REQUESTS:
                self._stock.charge(claim, bucket, reserved, reserved, 0)
                continue
            if before:
                self._stock.charge(claim, bucket, reserved, before, 0)
            self._stock.release(bucket, max(reserved - before, 0))

    def enlarge(self, place: int, bucket: Bucket, more: int) -> None:
        """`more` units are reserved. What was used beyond the others already is used of these."""
        units, charged, asking = self._units, self._charged, self._asking
        if units is None or charged is None or asking is None:
            raise RuntimeError("nothing more was asked for")
        used = min(more, max(charged[place] - units[place], 0))
        units[place] += more
        del asking[place]
        if used:
            self._stock.release(bucket, used)

    def _settle_rest(self, used: Used) -> None:
        """Some of it has been charged as it went, or is not all that was claimed."""
        units, charged = self._units, self._charged
        for place, (bucket, claim) in enumerate(zip(self._at, self._claims, strict=True)):
            if bucket.requests:
                continue
            reserved = claim.cost if units is None else units[place]
            before = 0 if charged is None else charged[place]
            after = used.of(claim.quota.unit)
            if bucket.here and not bucket.scarce and bucket.stand is None and after >= before:
                bucket.open -= reserved - before if reserved > before else 0
                bucket.avail += reserved - after if reserved > before else before - after
                if after != before:
                    self._stock.spent(bucket, after - before)
            else:
                self._settle_one(claim, bucket, reserved, before, after)

    def _settle_one(self, claim: Claim, bucket: Bucket, units: int, before: int, after: int) -> None:
        if after != before:
            self._stock.charge(claim, bucket, units, before, after)
        if (rest := units - max(before, after)) > 0:
            self._stock.release(bucket, rest)

    def _over(self, place: int, claim: Claim, after: int) -> bool:
        """Whether all that could be had is used. More is asked for before it runs out; what passes until there is
        an answer is a debt."""
        step = max(claim.cost // STEP, 1)
        if self._units is None:
            self._units = [each.cost for each in self._claims]
        units = self._units
        if units[place] - after > step // 2:
            return False
        if self._asking is None:
            self._asking = {}
        asking = self._asking.get(place)
        if asking is None:
            asking = self._asking[place] = _More(self, place, Claim(claim.quota, step, 1))
            self._stock.ask(asking)
        return asking.ended and units[place] <= after

    def _close(self) -> None:
        if not self._open:
            raise RuntimeError("this hold has been settled or refunded already")
        self._open = False


class _More:
    """Asks for more of one claim. It gets what there is, one unit at least."""

    __slots__ = ("_hold", "_place", "claims", "ended")

    def __init__(self, hold: SlicedHold, place: int, claim: Claim) -> None:
        self._hold = hold
        self._place = place
        self.claims = (claim,)
        self.ended = False

    @property
    def gone(self) -> bool:
        return not self._hold.open

    def granted(self, buckets: Sequence[Bucket], units: Sequence[int]) -> None:
        self._hold.enlarge(self._place, buckets[0], units[0])

    def refused(self, claim: Claim, wait_us: int | None, *, by: Refuser) -> None:
        self.ended = True
