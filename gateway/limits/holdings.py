"""What a worker has of one account: its buckets, those that it only remembers, and their places in its book."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import islice

from gateway.exchange import Claim
from gateway.limits.book import Book
from gateway.limits.local import NEVER, Bucket
from gateway.quota import Key, Quota
from tenants.ids import OrgId

REST_US = 60_000_000
LONGEST_REST_US = 86_400_000_000
MOST_RESTING = 4_096
"""A bucket of which nothing is here any more is remembered for a store that loses what it knew: until it would
have refilled, so long at least and at most. Of more than so many, those that refill soonest are not. Budgets are
written down by the control process besides."""

LOOK_US = 10_000_000
"""They are looked through so often at most."""


class Holdings:
    """`buckets`: of all accounts of this worker, by key, but for those that rest."""

    def __init__(self, org: OrgId, worker: str, buckets: dict[Key, Bucket], book: Book) -> None:
        self.org = org
        self.own: dict[Bucket, None] = {}
        self.owed: dict[Bucket, None] = {}  # something is to be said of them soon
        self.low: dict[Bucket, None] = {}  # more is to be asked for, ahead
        self.untold: dict[Bucket, None] = {}  # of a store that has begun anew: what it does not know of yet
        self.resting: dict[Key, tuple[Bucket, int]] = {}  # until when
        self._look_us = 0
        self.buckets = buckets
        self.book = book
        self.at = book.account(org, worker)

    def bucket(self, quota: Quota) -> Bucket:
        key = quota.key
        bucket = self.buckets.get(key)
        if bucket is None and key in self.resting:
            self.wake(self.resting[key][0])
            bucket = self.buckets.get(key)
        if bucket is None:
            bucket = self.buckets[key] = Bucket(quota)
            self._take_up(bucket)
        return bucket

    def wake(self, bucket: Bucket) -> None:
        """There is something of it here again, if it rests."""
        if bucket in self.own:
            return
        key = bucket.quota.key
        if key in self.resting and self.resting[key][0] is bucket:
            del self.resting[key]
            self.buckets.setdefault(key, bucket)
            self._take_up(bucket)

    def adopt(self, quota: Quota) -> Bucket:
        """The bucket of `quota`, with its limit as that knows it. What is in hands of another limit is returned
        before it is spent from."""
        bucket = self.bucket(quota)
        if bucket.quota is not quota:
            changed = not bucket.quota.same(quota)
            bucket.quota = quota
            if changed:
                self.book.rename(bucket.at, self.at, bucket.part())
                bucket.refused_until_us = 0
                bucket.stand = None
                if bucket.avail > 0:
                    bucket.back += bucket.avail
                    bucket.avail = 0
        return bucket

    def spent(self, bucket: Bucket, units: int) -> None:
        """`units` more are spent; fewer, when it is negative."""
        bucket.total += units
        self.book.words[bucket.word] = bucket.total

    def refusal(self, claims: Sequence[Claim], now_us: int) -> tuple[Claim, int] | None:
        """The claim that the store would refuse for longest, as far as is known without asking it again."""
        longest: tuple[Claim, int] | None = None
        for claim in claims:
            bucket = self.buckets.get(claim.quota.key)
            if bucket is None or not bucket.quota.same(claim.quota) or bucket.avail >= claim.cost:
                continue
            wait = bucket.wait_us(claim, now_us)
            if wait and (longest is None or (longest[1] != NEVER and (wait == NEVER or wait > longest[1]))):
                longest = claim, wait
        return longest

    def rest(self, bucket: Bucket, now_us: int) -> None:
        """Nothing of it is here: it is forgotten, or only remembered."""
        if bucket.slots or bucket.left_at_us < 0:
            self.forget(bucket)
            return
        key = bucket.quota.key
        self._put_down(bucket)
        if self.buckets.get(key) is bucket:
            del self.buckets[key]
        self.resting[key] = bucket, now_us + min(max(bucket.refills_us(now_us), REST_US), LONGEST_REST_US)

    def forget(self, bucket: Bucket) -> None:
        bucket.gone = True
        self._put_down(bucket)
        if self.buckets.get(key := bucket.quota.key) is bucket:
            del self.buckets[key]

    def forget_old(self, now_us: int) -> None:
        """Of those that rest."""
        more = len(self.resting) - MOST_RESTING
        if not self.resting or (more <= 0 and now_us < self._look_us):
            return
        self._look_us = now_us + LOOK_US
        old = [key for key, (_, until_us) in self.resting.items() if until_us <= now_us]
        if more > len(old):  # some more than that, so that they are not all compared for each that comes
            old = sorted(self.resting, key=lambda key: self.resting[key][1])[: more + MOST_RESTING // 8]
        for key in old:
            self.resting.pop(key)[0].gone = True

    def forget_all(self) -> None:
        for bucket in list(self.own):
            self.forget(bucket)
        for bucket, _ in self.resting.values():
            bucket.gone = True
        self.resting.clear()

    def first(self, queue: dict[Bucket, None], most: int) -> list[Bucket]:
        """Out of `queue`, those that have been in it for longest."""
        found: list[Bucket] = []
        while queue and len(found) < most:
            some = list(islice(queue, most - len(found)))
            for bucket in some:
                del queue[bucket]
            found += [bucket for bucket in some if bucket in self.own]
        return found

    def leave(self) -> None:
        """The account is used no more."""
        self.book.free(self.at)

    def returned(self, worker: str) -> None:
        """It is, after all."""
        self.at = self.book.account(self.org, worker)

    def _take_up(self, bucket: Bucket) -> None:
        bucket.at = at = self.book.bucket(self.at, bucket.part())
        bucket.word = at + 1
        bucket.used = bucket.here = True
        self.book.words[at + 1 : at + 4] = memoryview(array("q", (bucket.total, bucket.sent, bucket.acked)))
        self.own[bucket] = None

    def _put_down(self, bucket: Bucket) -> None:
        bucket.here = False
        del self.own[bucket]
        self.owed.pop(bucket, None)
        self.low.pop(bucket, None)
        self.untold.pop(bucket, None)
        self.book.free(bucket.at)
