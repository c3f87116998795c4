"""What holds while the store of limits cannot be asked: each limit's `on_outage`, and what is owed afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.exchange import Claim
from gateway.limits import bucket as rates
from gateway.limits.bucket import Rate
from gateway.limits.local import NEVER, Bucket
from gateway.limits.session import Session
from tenants.models import LimitUnit, OnOutage

SOON_US = 1_000_000
"""Nobody knows when a slot comes free, or the store is back: ask again in a second."""


class Refusal(Exception):  # noqa: N818 - no error: the answer of `admit`
    """`claim` says no. `wait_us`: until it would say yes; None: it says no as long as the outage lasts."""

    def __init__(self, claim: Claim, wait_us: int | None) -> None:
        super().__init__()
        self.claim = claim
        self.wait_us = wait_us


class Stand:
    """Stands in for one bucket: this worker's share of it, begun with its share of what was left when last heard.

    A request for more than a share ever holds is admitted when the share is full, and leaves it in debt: else
    none of that size would pass. The shadow is where it would be with nothing taken, as the store believes it is.
    """

    __slots__ = ("_budget", "_left", "_level", "_rate", "_shadow", "share", "taken")

    def __init__(self, bucket: Bucket, share: int, now_us: int) -> None:
        quota = bucket.quota
        self.share = share
        self.taken = 0
        self._budget = quota.ends_s > 0
        known = bucket.left if bucket.left_at_us >= 0 else (quota.amount if self._budget else quota.burst)
        self._left = max(known, 0) // share
        self._rate = Rate(quota.amount, max(quota.period_s, 1) * 1_000_000 * share, max(quota.burst // share, 1))
        at_us = bucket.known_us if bucket.left_at_us >= 0 else now_us
        level = rates.Level(min(known * max(quota.period_s, 1) * 1_000_000, self._rate.cap), at_us)
        self._level = self._shadow = rates.refill(self._rate, level, now_us)

    @property
    def known(self) -> int:
        """Whole units as of the last request."""
        return self._left - self.taken if self._budget else rates.units(self._rate, self._level)

    def left(self, now_us: int) -> int:
        if self._budget:
            return self._left - self.taken
        self._level = rates.refill(self._rate, self._level, now_us)
        return rates.units(self._rate, self._level)

    def wait_us(self, least: int, now_us: int) -> int:
        """0: there is enough."""
        if self._budget:
            return 0 if least <= self.left(now_us) else SOON_US
        if self._rate.amount <= 0:
            return NEVER
        self.left(now_us)
        return rates.wait_us(self._rate, self._level, min(least, self._rate.burst)) or 0

    def take(self, units: int) -> None:
        self.taken += units
        self._level = rates.charge(self._rate, self._level, units)

    def give(self, units: int) -> None:
        units = min(units, self.taken)
        self.taken -= units
        self._level = rates.give(self._rate, self._level, units)

    def forgiven(self, now_us: int) -> int:
        """Of what was taken, what has come in meanwhile and the store does not know of. Of a budget, nothing."""
        if self._budget:
            return 0
        self.left(now_us)
        self._shadow = rates.refill(self._rate, self._shadow, now_us)
        missing = -(-(self._shadow.ticks - self._level.ticks) // self._rate.period_us)
        return max(self.taken - missing, 0)


def admit(session: Session, claims: Sequence[Claim], now_us: int) -> tuple[list[Bucket], list[int]]:
    """All of `claims`, out of slices that are left and by what each limit says of outages. Raises `Refusal`."""
    buckets = [session.adopt(claim.quota) for claim in claims]
    units = []
    for claim, bucket in zip(claims, buckets, strict=True):
        bucket.used, bucket.cost = True, claim.cost
        enough = bucket.avail >= claim.cost
        units.append(claim.cost if enough else _covered(bucket, claim, session.workers, now_us))
    for claim, bucket, reserved in zip(claims, buckets, units, strict=True):
        beyond = reserved - max(bucket.avail, 0)
        bucket.avail -= reserved  # what is beyond it is a debt, until the store has taken it over
        if beyond > 0 and bucket.slots:
            session.short = True
        elif beyond > 0 and bucket.stand is not None:
            bucket.stand.take(beyond)
        if claim.quota.unit is LimitUnit.REQUESTS:
            session.spent(bucket, reserved)
        else:
            bucket.open += reserved
    return buckets, units


def _covered(bucket: Bucket, claim: Claim, share: int, now_us: int) -> int:
    """How much of `claim` may be reserved without the store."""
    quota = claim.quota
    if quota.on_outage is OnOutage.DENY:
        raise Refusal(claim, None)
    if bucket.slots:
        if quota.on_outage is OnOutage.LOCAL and bucket.open + claim.cost > max(quota.amount // share, 1):
            raise Refusal(claim, SOON_US if quota.amount > 0 else NEVER)
        return claim.cost
    stand = bucket.stand
    if stand is None:
        stand = bucket.stand = Stand(bucket, share, now_us)
        bucket.scarce = True
        bucket.low = NEVER
    if quota.on_outage is OnOutage.ALLOW:
        return claim.cost
    if wait := stand.wait_us(claim.enough, now_us):
        raise Refusal(claim, wait)
    return claim.cost if claim.least < 0 else max(min(claim.cost, stand.left(now_us)), claim.least)


def reconcile(session: Session, now_us: int) -> None:
    """The store answers again: what was spent without it is owed, less what has come in meanwhile."""
    for bucket in session.own:
        if (stand := bucket.stand) is None:
            continue
        bucket.stand = None
        # Not more than is settled: what is still open is said when it is.
        if (less := min(stand.forgiven(now_us), bucket.total - bucket.sent)) > 0:
            session.spent(bucket, -less)
            bucket.avail += less
        session.owed[bucket] = None
