"""A worker's buckets, and what of them travels to the owner in one message."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.exchange import Claim
from gateway.limits.claims import costing
from gateway.limits.messages import Ahead, Slice
from tenants.models import LimitUnit

LOW = 4
"""A slice is renewed when less than this part of it is left."""


NEVER = -1


class Local:
    """One bucket as this worker knows it."""

    __slots__ = ("avail", "back", "claim", "gone", "low", "out", "remaining", "scarce", "spare", "used")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim  # as last seen: its amount and period, and what a request costs
        self.avail = 0  # to spend here; negative when more was used than had been reserved
        self.back = 0  # came back from requests; not spendable here, or a refund could outlast the bucket's refill
        self.out = 0  # concurrency: slots that the owner counts as ours
        self.remaining = 0  # what the owner had left, less what was spent here since
        self.scarce = True  # the owner lends none of it: every request is judged there
        self.used = False  # since the last tick
        self.low = NEVER  # with less to spend than this, more is asked for, before a request has to wait for it
        self.spare = 0  # concurrency: the fewest free slots since the last slow tick
        self.gone = False  # no longer this worker's bucket of that key

    @property
    def slots(self) -> bool:
        return self.claim.unit is LimitUnit.CONCURRENCY


class Parcel:
    """What goes to the owner in one message, out of this worker's hands while it is under way.

    All that is left of the buckets in `whole` returns: what is asked about, and what is idle. Buckets in `busy`
    return what came back to them, or slots that nobody needed for a while; those in `low` get more on top.
    """

    __slots__ = ("_kept", "_returned")

    def __init__(self, whole: Iterable[Local], busy: Iterable[Local], low: Iterable[Local]) -> None:
        self._returned: dict[Local, tuple[int, int]] = {local: (local.avail, local.back) for local in whole}
        self._kept: dict[Local, tuple[int, bool]] = {}
        for local in busy:
            if local in self._returned or local.gone:
                continue
            if local.slots:
                # Half of them: what is needed at peaks must not be asked for at each of them.
                self._returned[local] = (max(min(local.spare, local.avail), 0) + 1) // 2, local.back
                local.spare = local.avail
            else:
                self._kept[local] = local.back, False
        for local in low:
            if local not in self._returned and not local.gone:
                self._kept[local] = local.back, True
        for local, (avail, back) in self._returned.items():
            local.avail -= avail
            local.back -= back
        for local, (back, _) in self._kept.items():
            local.back -= back

    def back(self) -> tuple[Claim, ...]:
        # A bucket that is asked about is named even with nothing to return: what was lent of it is spent.
        return tuple([costing(local.claim, avail + back) for local, (avail, back) in self._returned.items()])

    def ahead(self) -> tuple[Ahead, ...]:
        return tuple(
            [Ahead(local.claim, max(local.avail, 0), back, more) for local, (back, more) in self._kept.items()]
        )

    def put_back(self) -> None:
        """It did not arrive."""
        for local, (avail, back) in self._returned.items():
            local.avail += avail
            local.back += back
        for local, (back, _) in self._kept.items():
            local.back += back

    def arrived(self) -> None:
        for local, (avail, back) in self._returned.items():
            if local.slots:
                local.out -= avail + back

    def take(self, local: Local, part: Slice) -> None:
        """What the owner says of one bucket, and lends of it."""
        renewed = local in self._kept
        more = not renewed or self._kept[local][1]
        kept = local.avail if renewed else 0
        local.remaining = part.remaining + kept
        local.avail += part.amount
        if local.slots:
            local.out += part.amount
        if more:
            # With less left than is held here, others may be refused while this worker has some to spare.
            local.scarce = part.amount == 0 and not (renewed and part.remaining > kept)
            local.low = local.avail // LOW if part.amount and not local.slots else NEVER
            local.spare = local.avail
