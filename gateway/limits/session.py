"""A worker's use of one account: what the next message says, and what its answer changes. Does no I/O.

One message is under way at a time, and stays so until it is answered: it may have been counted, so nothing of it
is said again in another. Nothing here awaits: what is granted is known in the step in which somebody is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gateway.exchange import Claim
from gateway.limits.asking import Asked, Asker, Message
from gateway.limits.book import AccountLine, Book
from gateway.limits.holdings import Holdings
from gateway.limits.local import NEVER, Bucket
from gateway.limits.protocol import Result, SliceAnswer, SliceAsk, Wish
from gateway.quota import Key
from tenants.ids import OrgId
from tenants.models import LimitUnit

BATCH = 256
"""Requests in one message."""

WISHES = 512
"""And about so many wishes of theirs. Redis takes 20 to 40 µs for each that has a bucket of its own, and serves
nobody else meanwhile: 10 to 20 ms. 256 members with 20 limits each took 210 ms, twice as long as workers wait."""

NAMED = 256
"""And so many buckets at most that nobody wishes for now: what is spent, back, or asked for ahead. The rest is in
the next message. That is 5 to 10 ms more, after which others have their turn; another message costs no more than
two or three buckets do. All of 8,000 that a worker had news of took 160 ms."""

IDLE_TICKS = 8
"""An account without buckets is closed after so many."""


class Session(Holdings):
    """`workers`: how many are expected, at least. `spend` takes claims out of the slices, if they do."""

    def __init__(
        self,
        org: OrgId,
        worker: str,
        workers: int,
        *,
        buckets: dict[Key, Bucket],
        book: Book,
        spend: Callable[[tuple[Claim, ...]], list[Bucket] | None],
    ) -> None:
        super().__init__(org, worker, buckets, book)
        self.message: Message | None = None
        self.waiting: deque[Asker] = deque()
        self.all = False  # all there is to say of any bucket is due; and be it nothing, the lease is renewed
        self.closing = False
        self.short = False  # slots are in use that the store does not know of
        self._retake: dict[Bucket, None] = {}  # those of them that are still to be asked for
        self.began_s = 0.0  # when the last message was sent, by the loop's clock
        self.away = False  # the last message was not answered
        self.unknown = 0  # so many answers running said that the session means nothing
        self._worker = worker
        self._expected = workers
        self._sessions = 1
        self._session = ""
        self._epoch = ""
        self._seq = 0
        self._idle = 0
        self._spend = spend

    @property
    def workers(self) -> int:
        """How many share the account, as far as is known."""
        return max(self._sessions, self._expected)

    @property
    def opened(self) -> bool:
        """Whether the store may know of it."""
        return self._seq > 0

    @property
    def due(self) -> bool:
        """Whether there is anything to send."""
        said = self.owed or self.untold or self.low or self._retake
        return bool(self.message or self.waiting or said or self.all or self.closing)

    # What is to be said.

    def next_message(self, now_us: int) -> Message | None:
        """The one under way, else one that says what is due. None: nothing is."""
        if self.message is not None:
            return self.message
        if self.waiting:
            self.closing = False
        asked: list[Asked] = []
        wishes = 0
        while self.waiting and len(asked) < BATCH and wishes < WISHES:
            if (one := self._look(self.waiting.popleft(), now_us)) is not None:
                asked.append(one)
                wishes += len(one.wishes)
        wished = dict.fromkeys([one.buckets[place] for one in asked for place in one.wishes])
        for bucket in wished:
            if bucket.avail > 0:  # not enough for somebody: the store judges the whole
                bucket.back += bucket.avail
                bucket.avail = 0
        close = self.closing and self._ends()
        retaken = self._retaken(NAMED // 2)
        more, named, anew = self._named(wished, retaken)
        if not (named or self.all or close):
            return None
        self.all = False
        workers = self.workers
        parts = tuple(
            [
                bucket.part(bucket.want(workers, now_us) if bucket in more else 0, anew=bucket in anew)
                for bucket in named
            ]
        )
        places = {bucket: place for place, bucket in enumerate(named)}
        requests: list[tuple[Wish, ...]] = [(Wish(places[bucket], 0, -bucket.avail),) for bucket in retaken]
        requests += [one.wished(places) for one in asked]
        self._seq += 1
        ask = SliceAsk(
            self.org,
            self._worker,
            self._session,
            self._epoch,
            self._seq,
            workers,
            parts,
            tuple(requests),
            close,
            bool(anew),
        )
        said = [(bucket, part.spent, part.back) for bucket, part in zip(named, parts, strict=True)]
        self.message = Message(ask, said, retaken, asked, anew)
        words = self.book.words
        for bucket in named:
            bucket.sent = words[bucket.at + 2] = bucket.total
            bucket.back = 0
        if self._seq == 1:
            self._write_session(ask)
        else:
            words[self.at + 1] = self._seq
        return self.message

    def _ends(self) -> bool:
        """Whether the session can end with this message: all that is said before it has been. What is to be spent
        is spent no more, and comes back by itself then; but each bucket in its hands is one that the store goes
        through at the end, so that where they are many it comes back before."""
        self.low.clear()
        many = len(self.own) > NAMED
        for bucket in self.own:
            if bucket.avail > 0:
                bucket.back += bucket.avail if many else 0
                bucket.avail = 0
            bucket.low = NEVER
            if bucket.unsaid:
                self.owed[bucket] = None
        return len(self.owed | self.untold) <= NAMED

    def _retaken(self, most: int) -> list[Bucket]:
        """Slots in use that the store does not know of, each in its turn: it may say no to those of before."""
        if self.closing:
            return []
        if self.short and not self._retake:
            self._retake = {bucket: None for bucket in self.own if bucket.slots and bucket.avail < 0}
            self.short = bool(self._retake)
        return [bucket for bucket in self.first(self._retake, most) if bucket.avail < 0]

    def _named(
        self, wished: dict[Bucket, None], retaken: list[Bucket]
    ) -> tuple[dict[Bucket, None], list[Bucket], dict[Bucket, None]]:
        """Of which more is wanted; all that is named, besides the wished those that have waited for longest; and
        those of them of which this epoch has not been told yet."""
        room = NAMED - len(retaken)
        for bucket in wished:
            self.low.pop(bucket, None)
        more = wished | dict.fromkeys(self.first(self.low, room // 2))
        room -= len(more) - len(wished)
        if self.all:
            self.owed |= {bucket: None for bucket in self.own if bucket.unsaid or bucket.open_said != bucket.open}
        anew = dict.fromkeys(self.first(self.untold, room))
        named = more | anew | dict.fromkeys(self.first(self.owed, room - len(anew))) | dict.fromkeys(retaken)
        for bucket in named:
            self.owed.pop(bucket, None)
            if bucket in self.untold:
                del self.untold[bucket]
                anew[bucket] = None
        return more, list(named), anew

    def _look(self, asker: Asker, now_us: int) -> Asked | None:
        """What `asker` lacks; None when there is nothing to ask for it."""
        if asker.gone:
            return None
        if (found := self._spend(asker.claims)) is not None:
            asker.granted(found, [claim.cost for claim in asker.claims])
            return None
        if (no := self.refusal(asker.claims, now_us)) is not None:
            asker.refused(*no, by="worker")
            return None
        one = Asked(asker)
        for place, claim in enumerate(asker.claims):
            bucket = self.adopt(claim.quota)
            bucket.cost = claim.cost
            bucket.used = True
            one.buckets.append(bucket)
            if 0 < claim.cost <= bucket.avail:
                bucket.avail -= claim.cost
                bucket.open += claim.cost
                one.units.append(claim.cost)
            else:
                one.units.append(0)
                one.wishes.append(place)
        return one

    # What was answered.

    def take(self, answer: SliceAnswer, now_us: int) -> None:
        """The answer to the message under way. Raises `ValueError` when it cannot be the answer to it."""
        message = self.message
        if message is None or (
            answer.known
            and (len(answer.slices) != len(message.said) or len(answer.results) != len(message.ask.requests))
        ):
            raise ValueError("this does not answer what was asked")
        self.message = None
        if not answer.known:
            self.unknown += 1
            self._lost(message, answer.epoch)
            return
        self.unknown = 0
        self._sessions = answer.sessions
        words = self.book.words
        for (bucket, spent, back), part, piece in zip(message.said, message.ask.parts, answer.slices, strict=True):
            bucket.heard(spent, back, piece.lent)
            bucket.open_said = part.open
            bucket.acked = words[bucket.at + 3] = bucket.sent
            bucket.left, bucket.left_at_us, bucket.known_us = piece.left, answer.now_us, now_us
            if part.want:
                bucket.lent(piece.lent)
        if message.ask.close:
            self._closed()
        elif answer.session != self._session:
            self._session, self._epoch = answer.session, answer.epoch
            self._write_session()
        else:
            words[self.at + 2] = self._seq
        again = len(message.retaken)
        for bucket, result in zip(message.retaken, answer.results[:again], strict=True):
            for units in result.granted:
                bucket.hands += units
                bucket.avail += units
        for one, result in zip(message.asked, answer.results[again:], strict=True):
            if result.granted:
                self._grant(one, result)
            else:
                self._refuse(one, result, message, now_us)

    def failed(self, message: Message) -> list[Asker]:
        """`message` was not answered, and is said again later. Returns who will not wait for that."""
        for one in message.asked:
            self._undo(one)
        waiting = dict.fromkeys([*(one.asker for one in message.asked), *self.waiting])
        self.waiting.clear()
        return [asker for asker in waiting if not asker.gone]

    def _grant(self, one: Asked, result: Result) -> None:
        for place, units in zip(one.wishes, result.granted, strict=True):
            bucket = one.buckets[place]
            bucket.hands += units
            bucket.open += units
            one.units[place] = units
        if one.asker.gone:
            self._undo(one)
            return
        for claim, bucket, units in zip(one.asker.claims, one.buckets, one.units, strict=True):
            if claim.quota.unit is LimitUnit.REQUESTS:
                bucket.open -= units
                self.spent(bucket, units)
        one.asker.granted(one.buckets, one.units)

    def _refuse(self, one: Asked, result: Result, message: Message, now_us: int) -> None:
        bucket = message.said[result.part][0]
        claims = one.asker.claims
        claim = next(claims[place] for place in one.wishes if one.buckets[place] is bucket)
        self._undo(one)
        bucket.refuse(claim.enough, result.wait_us, now_us)
        if not one.asker.gone:
            one.asker.refused(claim, result.wait_us, by="store")

    def _undo(self, one: Asked) -> None:
        """What was reserved for it is free again."""
        for place, bucket in enumerate(one.buckets):
            if units := one.units[place]:
                one.units[place] = 0
                bucket.open -= units
                if bucket.give(units):
                    self.owed[bucket] = None

    # When it ends.

    def _lost(self, message: Message, epoch: str) -> None:
        """The store does not know the session. What the message said is to be said again, in a new one."""
        words = self.book.words
        for bucket, _, back in message.said:
            bucket.sent = words[bucket.at + 2] = bucket.acked
            bucket.back += back
        if message.ask.close:
            self._closed()
            return
        for one in message.asked:
            self._undo(one)
        self.waiting.extendleft([one.asker for one in reversed(message.asked) if not one.asker.gone])
        if epoch == self._epoch or not self._epoch:
            self._expired(message.anew)
        else:
            for bucket, _ in list(self.resting.values()):
                self.wake(bucket)
            self.untold = dict.fromkeys(self.own)
            for bucket in self.own:
                if bucket.slots and bucket.avail < 0:
                    bucket.hands -= bucket.avail  # in use, and to be said so
                    bucket.avail = 0
        self.all = True
        self._session, self._seq = "", 0
        self._write_session()

    def _expired(self, anew: dict[Bucket, None]) -> None:
        """Nothing was heard of this worker for longer than a lease. The store has counted as spent what was in its
        hands, but for what it knew to be reserved: that has come back, and what is used of it is a debt. So it may
        have with what it was told `anew` in its last message; of what it has not been told it has counted nothing,
        and what is left of either it may still have to hear."""
        words = self.book.words
        for old in list(self.own):
            if old in self.untold:
                continue
            if old.slots:
                old.hands = old.back = 0
                old.avail = -old.open
                old.scarce = True
                self.short = self.short or old.open > 0
                continue
            unsaid = old.total - old.acked
            charged = old.hands - old.open_said
            debt = min(unsaid, 0) or max(unsaid - charged, 0)  # what was to be taken back still is
            new = Bucket(old.quota)
            new.at, new.word, new.cost = old.at, old.word, old.cost
            new.left, new.left_at_us, new.known_us = old.left, old.left_at_us, old.known_us
            new.total = old.total
            new.avail, new.back = min(-debt, 0), max(-debt, 0)
            new.sent = new.acked = words[old.at + 2] = words[old.at + 3] = old.total - debt
            old.gone, old.here, new.here = True, False, True
            del self.own[old]
            self.own[new] = None
            if old in anew:
                self.untold[new] = None
            if self.buckets.get(key := old.quota.key) is old:
                self.buckets[key] = new
        self.owed.clear()
        self.low.clear()

    def _closed(self) -> None:
        """All that was in its hands is the store's again."""
        self.forget_all()
        self.closing = False
        self._session, self._seq = "", 0
        self._write_session()

    def _write_session(self, opening: SliceAsk | None = None) -> None:
        line = AccountLine(self.org, self._worker, self._session, self._epoch, opening)
        self.book.session(self.at, line, self._seq, 0 if opening else self._seq)

    # Now and then.

    def tick(self, now_us: int, *, slow: bool) -> bool:
        """Return what is not used. `slow`: also what came back to busy buckets, and half the slots that nobody
        needed. False: there is nothing here at all, and the session may be left."""
        for bucket in list(self.own):
            if not bucket.used:
                self._unused(bucket, now_us)
            elif slow and bucket.slots and bucket.avail > 0:
                # Half of them: what is needed at peaks must not be asked for at each of them.
                spare = (max(min(bucket.spare, bucket.avail), 0) + 1) // 2
                bucket.back += spare
                bucket.avail -= spare
                bucket.spare = bucket.avail
            bucket.used = False
        if slow:
            self.forget_old(now_us)
            self.all = self.all or any(bucket.hands or bucket.unsaid for bucket in self.own)
        if self.own or self.due:
            self._idle = 0
            return True
        self._idle += 1
        if self.resting:
            return True
        if self.opened and self._idle >= IDLE_TICKS:
            self.closing = True
        return self.opened

    @property
    def asleep(self) -> bool:
        """Whether nothing is here but what is remembered of buckets. Its session at the store ends by itself; the
        next message finds out, and whether the store is still the one that was told."""
        return bool(self.resting) and self._idle >= IDLE_TICKS and not (self.own or self.due)

    def wake_up(self) -> None:
        self._idle = 0
        self.returned(self._worker)
        self._write_session()

    def _unused(self, bucket: Bucket, now_us: int) -> None:
        if bucket.avail > 0:
            bucket.back += bucket.avail
            bucket.avail = 0
        bucket.low, bucket.scarce = NEVER, True
        if bucket.unsaid:
            self.owed[bucket] = None
        elif (
            bucket.empty
            and self.message is None
            and now_us >= bucket.refused_until_us
            and bucket not in self.untold
        ):
            self.rest(bucket, now_us)
