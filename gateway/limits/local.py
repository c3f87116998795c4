"""One bucket as a worker knows it: what is in its hands, what it has to say, what it may spend.

`hands` is what the store counts as being in this worker's hands, to the unit, once every message so far has been
answered. It is always `avail` + `open` + what was spent and given back and has not been answered yet. So `avail`
below zero is what was used beyond it: a debt here until the store has taken it over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.exchange import Claim
from gateway.limits.protocol import Part
from gateway.quota import Quota
from tenants.models import LimitUnit

if TYPE_CHECKING:
    from gateway.limits.outage import Stand

NEVER = -1
"""Of `low`: nothing is so low. Of a wait: no time is long enough."""

AHEAD = 64
"""A slice is as much as so many requests like the one that asked, to begin with."""

MOST_AHEAD = 4_096
AGAIN_US = 500_000
"""A slice that was spent within this time is followed by one twice as large, so that a busy bucket costs a message
every second or so and not for every 64 requests."""

PAUSE_US = 4 * AGAIN_US
"""One that was not spent within this time is followed by one as at the beginning."""

BUSY = 8 * AHEAD
"""So large is a slice of a bucket that is asked for some five hundred times a second."""

STEPS = 16
"""What is left of it is told in steps of this part of the slice. What others have spent of theirs is not known
here to that degree either; and a header that is the same as before is neither made again nor sent again (RFC 7541
section 6.1)."""

SLOTS_AHEAD = 16

SCARCE = 8
"""With less left than so many requests of each worker, no more than as many are wanted ahead."""

LOW = 4
"""A slice is renewed when less than this part of it is left."""

REFUSED_US = 25_000
"""For so long at most a bucket that had too little is not asked again: what others gave back may be in it."""


class Bucket:
    __slots__ = (
        "acked",
        "ahead",
        "ahead_at_us",
        "at",
        "avail",
        "back",
        "cost",
        "gone",
        "hands",
        "here",
        "known_us",
        "left",
        "left_at_us",
        "low",
        "open",
        "open_said",
        "quota",
        "ready_us",
        "refused_least",
        "refused_until_us",
        "requests",
        "scarce",
        "sent",
        "slots",
        "spare",
        "stand",
        "step",
        "total",
        "used",
        "word",
    )

    def __init__(self, quota: Quota) -> None:
        self.quota = quota  # as last seen
        self.cost = 1  # of the last request for which more was asked
        self.requests = quota.unit is LimitUnit.REQUESTS
        self.slots = quota.unit is LimitUnit.CONCURRENCY
        self.at = 0  # its place in the book
        self.word = 0  # where `total` is written
        self.hands = 0
        self.avail = 0  # to spend
        self.open = 0  # reserved by requests in flight, and not used yet; a request itself is used once admitted
        self.back = 0  # returns with the next message
        self.total = 0  # spent in all
        self.sent = 0  # of these, said
        self.acked = 0  # of these, answered
        self.open_said = 0
        self.left = 0  # what the store had left at its last answer, nobody's slices among it
        self.left_at_us = -1  # when that was, by the store's clock
        self.known_us = 0  # and by this worker's
        self.low = NEVER  # with less to spend than this, more is asked for, before a request has to wait for it
        self.ahead = 0
        self.ahead_at_us = 0
        self.scarce = True  # the store lends none of it: every request is judged there
        self.step = 1  # what is left is told in steps of so many units
        self.used = True  # since the last tick
        self.spare = 0  # slots: the fewest to spend since the last slow tick
        self.refused_least = 0
        self.refused_until_us = 0  # until then nobody asks again for `refused_least` or more
        self.ready_us = 0  # when `refused_least` is there
        self.stand: Stand | None = None  # what holds while the store cannot be asked
        self.here = False  # it is in its session's hands: not resting, and not gone
        self.gone = False  # its session was lost: reservations from then have nothing here any more

    @property
    def unsaid(self) -> bool:
        return self.total != self.sent or self.back != 0

    @property
    def empty(self) -> bool:
        """Whether forgetting it forgets nothing."""
        return not (self.open or self.avail or self.back or self.hands or self.total != self.acked or self.stand)

    @property
    def remaining(self) -> int:
        """What a caller is told is left: the store's, and what is here; while the store cannot be asked, what this
        worker lets pass."""
        if self.stand is not None:
            return self.stand.known
        if self.slots and self.left_at_us < 0:
            return self.quota.amount - self.open
        return self.left + self.avail

    def lent(self, units: int) -> None:
        """What the store has just lent of what was wanted ahead."""
        self.scarce = units == 0
        self.low = self.avail // LOW if units and not self.slots else NEVER
        self.spare = self.avail
        # Never so that nothing seems to be left: near the end each unit is told.
        coarse = self.ahead >= BUSY and self.left * LOW >= self.avail > STEPS
        self.step = self.avail // STEPS if coarse else 1

    def part(self, want: int = 0, *, anew: bool = True) -> Part:
        """What there is to say of it. Nothing of it is under way. `anew`: and what there was of it before, to a
        store that has not been told in this epoch."""
        quota = self.quota
        spent, back = self.total - self.sent, self.back
        return Part(
            quota.limit,
            quota.subject,
            quota.unit,
            quota.amount,
            quota.burst,
            quota.period_s,
            quota.starts_s,
            quota.ends_s,
            spent=spent,
            back=back,
            open=max(min(self.open, self.hands - spent - back), 0),
            want=want,
            left=self.left,
            left_at_us=self.left_at_us if anew else -1,
            held=self.hands if anew else 0,
        )

    def heard(self, spent: int, back: int, lent: int) -> None:
        """The store has counted a message: as it does, so is done here."""
        hands = self.hands - spent - back
        if hands < 0:
            self.avail -= hands  # the debt is the bucket's own now
            hands = 0
        self.hands = hands + lent
        self.avail += lent

    def give(self, units: int) -> bool:
        """`units` that are in hands and nobody's are free again. Whether others should hear of it soon."""
        self.refused_until_us = 0
        if self.avail < 0:
            paid = min(units, -self.avail)
            self.avail += paid
            units -= paid
            if self.stand is not None:
                self.stand.give(paid)
        if not self.scarce:
            self.avail += units
            return False
        self.back += units
        return units > 0

    def wait_us(self, claim: Claim, now_us: int) -> int:
        """Until the store has as much as `claim` needs, by what it said when it last refused. 0: ask it."""
        least = claim.enough
        if now_us >= self.refused_until_us or least < self.refused_least:
            return 0
        if self.ready_us == NEVER:
            return NEVER
        wait = max(self.ready_us - now_us, 1)
        more = least - self.refused_least
        if more and not self.slots:
            if least > (claim.quota.amount if claim.quota.ends_s else claim.quota.burst):
                return NEVER
            if not claim.quota.ends_s:
                wait += -(-more * max(claim.quota.period_s, 1) * 1_000_000 // claim.quota.amount)
        return wait

    def refills_us(self, now_us: int) -> int:
        """Until a rate is full again, as far as is known; 0 of others, and of one that lets nothing pass."""
        quota = self.quota
        if quota.ends_s or quota.amount <= 0 or self.slots:
            return 0
        missing = (quota.burst or quota.amount) - self.left
        wait = -(-missing * max(quota.period_s, 1) * 1_000_000 // quota.amount)
        return max(self.known_us + wait - now_us, 0)

    def refuse(self, least: int, wait_us: int, now_us: int) -> None:
        """The store has just refused `least`."""
        self.refused_least = least
        self.ready_us = NEVER if wait_us < 0 else now_us + wait_us
        self.refused_until_us = now_us + (REFUSED_US if wait_us < 0 else min(wait_us, REFUSED_US))

    def want(self, workers: int, now_us: int) -> int:
        """How much to ask for ahead."""
        cost = max(self.cost, 1)
        if self.slots:
            return SLOTS_AHEAD * cost
        since = now_us - self.ahead_at_us
        if self.ahead and since < PAUSE_US:
            if since < AGAIN_US and not self.scarce:  # it was lent and is spent, not asked for in vain
                self.ahead = min(self.ahead * 2, MOST_AHEAD)
        else:
            self.ahead = AHEAD
        self.ahead_at_us = now_us
        most = self.ahead * cost
        if self.left_at_us >= 0:
            most = min(most, self.left // (2 * workers))
        return max(most, SCARCE * cost)
