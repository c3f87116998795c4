"""One organization's account: its buckets, the sessions with units of them in their hands, a message applied.

What `gateway.limits.protocol` says, in one process's memory; the library for Redis does the same to the unit, and
`tests/limits` compares them.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence

from gateway.limits.kinds import KINDS, NEVER, Bucket, kind_of
from gateway.limits.protocol import (
    LEASE_S,
    REBUILD_S,
    Part,
    Result,
    Slice,
    SliceAnswer,
    SliceAsk,
    Standings,
    Wish,
)
from tenants.models import LimitUnit

LEASE_US = int(LEASE_S * 1_000_000)
REBUILD_US = int(REBUILD_S * 1_000_000)

STEP_US = 1_000_000
"""A clock that goes back by no more has jittered, and time stands still until it is there again; by more, it has
been set, and time goes on from there."""

SCARCE = 8
"""A slice is lent only of a bucket that has so many units for each worker, and only when it is at least such a
part of what is wanted. Otherwise each request is judged here."""

KEPT_US = 60_000_000
"""Nothing of a store that began less than so long ago is forgotten: workers that come late compare what they
know with what others said."""

Key = tuple[str, str, str, int, str]


def key_of(part: Part) -> Key:
    """With the unit: what has been used of one says nothing of another."""
    return kind_of(part), part.limit, part.subject, part.starts_s, part.unit.value


class _Session:
    __slots__ = ("answer", "heard_us", "id", "opening", "seq", "worker")

    def __init__(self, session: str, opening: SliceAsk, now_us: int) -> None:
        self.id = session
        self.opening = opening
        self.worker = opening.worker
        self.seq = 0
        self.heard_us = now_us
        self.answer: SliceAnswer | None = None


class Account:
    """One loop's own; never awaits. `new_id` makes what no other session or epoch is called. `epoch`: of whoever
    has forgotten this account when all in it was as good as new, and so has lost nothing."""

    def __init__(
        self, now_us: int, new_id: Callable[[], str] = lambda: secrets.token_hex(8), *, epoch: str = ""
    ) -> None:
        self._new_id = new_id
        self.epoch = epoch or new_id()
        self._began_us = now_us
        self._now_us = now_us
        self._buckets: OrderedDict[Key, Bucket] = OrderedDict()
        self._sessions: dict[str, _Session] = {}
        self._by_worker: dict[str, _Session] = {}

    def __len__(self) -> int:
        """How many buckets are remembered."""
        return len(self._buckets)

    def answer(self, ask: SliceAsk, clock_us: int) -> SliceAnswer:
        now = self._at(clock_us)
        self._end_silent(now)
        session = self._speaker(ask, now)
        if session is None:
            return SliceAnswer("", self.epoch, now, known=False, sessions=0)
        session.heard_us = now
        if session.answer is not None and session.seq == ask.seq:
            return session.answer
        session.seq = ask.seq
        rebuilt = ask.rebuilds or (ask.seq == 1 and ask.epoch not in ("", self.epoch))
        buckets = [self._apply(session.id, part, now, rebuilt=rebuilt) for part in ask.parts]
        refused: set[int] = set()
        results = tuple([_judge(session.id, wishes, buckets, refused, now) for wishes in ask.requests])
        lent = [self._lend(session.id, ask, place, found, refused) for place, found in enumerate(buckets)]
        session.answer = SliceAnswer(
            session=session.id,
            epoch=self.epoch,
            now_us=now,
            sessions=len(self._sessions),
            results=results,
            slices=tuple([Slice(units, found.left) for units, found in zip(lent, buckets, strict=True)]),
        )
        if ask.close:
            self._close(session, now)
        return session.answer

    def left(self, worker: str, clock_us: int) -> None:
        """The worker is gone, the kernel says: its lease begins now, for whoever knows what it has spent."""
        if (session := self._by_worker.get(worker)) is not None:
            session.heard_us = self._at(clock_us)

    def usage(self, clock_us: int) -> list[Standings]:
        now = self._at(clock_us)
        self._end_silent(now)
        for found in self._buckets.values():
            found.refill(now)
        sessions, began = len(self._sessions), self._began_us
        return [found.standings(sessions, now, began) for found in self._buckets.values()]

    def reset(self, limit: str, subject: str | None, clock_us: int) -> int:
        now = self._at(clock_us)
        self._end_silent(now)
        count = 0
        for (_, name, whose, _, _), found in self._buckets.items():
            if name == limit and subject in (None, whose):
                found.refill(now)
                found.reset()
                count += 1
        return count

    def seed(self, used: Sequence[Standings], clock_us: int) -> None:
        now = self._at(clock_us)
        self._end_silent(now)
        for known in used:
            if known.ends_s <= 0 or known.unit is LimitUnit.CONCURRENCY:
                continue
            # One that is of this epoch is what the bucket itself said, perhaps of what has been lent since. (What
            # is said of the future was said before the clock was set back.)
            if not self._began_us <= known.at_us <= now:
                found = self._bucket(_part_of(known), now)
                found.learn(known.level, known.at_us, now)

    def sweep(self, clock_us: int, n: int) -> bool:
        """Look at the `n` buckets that were not used for longest, and forget those that are as good as new.
        Returns whether nothing at all is left."""
        now = self._at(clock_us)
        self._end_silent(now)
        if now - self._began_us < KEPT_US:
            return False
        for _ in range(min(n, len(self._buckets))):
            key, found = next(iter(self._buckets.items()))
            if found.as_new(now):
                del self._buckets[key]
            else:
                self._buckets.move_to_end(key)
        return not self._buckets and not self._sessions

    def _at(self, clock_us: int) -> int:
        if not 0 < self._now_us - clock_us <= STEP_US:
            self._now_us = clock_us
            self._began_us = min(self._began_us, clock_us)
            for session in self._sessions.values():
                session.heard_us = min(session.heard_us, clock_us)
        return self._now_us

    def _speaker(self, ask: SliceAsk, now_us: int) -> _Session | None:
        """The session that `ask` is the next, or once more the last, message of; None: it means nothing here."""
        if ask.session:
            session = self._sessions.get(ask.session)
            if session is None or session.worker != ask.worker or ask.seq not in (session.seq, session.seq + 1):
                return None
            return session
        if ask.seq != 1:
            return None
        session = self._by_worker.get(ask.worker)
        if session is not None:
            if session.seq == 1 and session.opening == ask:
                return session
            self._end([session], now_us)  # the worker has given it up
        session = _Session(self._new_id(), ask, now_us)
        self._sessions[session.id] = self._by_worker[ask.worker] = session
        return session

    def _end_silent(self, now_us: int) -> None:
        silent = [session for session in self._sessions.values() if now_us - session.heard_us >= LEASE_US]
        if silent:
            self._end(silent, now_us)

    def _end(self, sessions: Sequence[_Session], now_us: int) -> None:
        ids = [session.id for session in sessions]
        for found in self._buckets.values():
            if any(one in found.hands for one in ids):
                found.refill(now_us)
                found.end(ids, now_us)
        for session in sessions:
            self._forget(session)

    def _close(self, session: _Session, now_us: int) -> None:
        for found in self._buckets.values():
            if session.id in found.hands:
                found.refill(now_us)
                found.close(session.id)
        self._forget(session)

    def _forget(self, session: _Session) -> None:
        del self._sessions[session.id]
        if self._by_worker.get(session.worker) is session:
            del self._by_worker[session.worker]

    def _bucket(self, part: Part, now_us: int) -> Bucket:
        """The bucket that `part` names, brought up to now and to the limit as `part` knows it."""
        key = key_of(part)
        found = self._buckets.get(key)
        if found is None:
            found = self._buckets[key] = KINDS[key[0]](part, now_us)
        self._buckets.move_to_end(key)
        found.refill(now_us)
        found.adapt(part)
        return found

    def _apply(self, session: str, part: Part, now_us: int, *, rebuilt: bool) -> Bucket:
        found = self._bucket(part, now_us)
        if rebuilt:
            if part.left_at_us >= 0:
                found.learn(part.left, part.left_at_us, now_us)
            # What the worker had before anything that this message says of it. It was out of the bucket.
            found.hold(session, part.held)
        found.report(session, part.spent, part.back, part.open)
        return found

    def _lend(self, session: str, ask: SliceAsk, place: int, found: Bucket, refused: set[int]) -> int:
        want = ask.parts[place].want
        if want <= 0 or place in refused or not self._lends(found):
            return 0
        workers = max(len(self._sessions), ask.workers)
        left = found.left
        share = left // (2 * workers)
        if left < SCARCE * workers or share * SCARCE < want:
            return 0
        lent = min(want, share)
        found.grant(session, lent)
        return lent

    def _lends(self, found: Bucket) -> bool:
        """Not while others may have spent of it what nobody has said yet."""
        return found.basis_at_us >= 0 or self._now_us - self._began_us >= REBUILD_US


def _judge(
    session: str, wishes: Sequence[Wish], buckets: Sequence[Bucket], refused: set[int], now_us: int
) -> Result:
    """All of `wishes`, or none and the one that refuses for longest. Notes in `refused` which buckets did."""
    no: Result | None = None
    for wish in wishes:
        found = buckets[wish.part]
        if found.part.amount > 0 and found.left >= wish.least:
            continue
        refused.add(wish.part)
        wait = found.wait_us(wish.least, now_us)
        if no is None or (no.wait_us != NEVER and (wait == NEVER or wait > no.wait_us)):
            no = Result(part=wish.part, wait_us=wait)
    if no is not None:
        return no
    granted = []
    for wish in wishes:
        found = buckets[wish.part]
        units = max(min(wish.cost, found.left), 0)
        found.grant(session, units)
        granted.append(units)
    return Result(tuple(granted))


def _part_of(known: Standings) -> Part:
    return Part(
        known.limit,
        known.subject,
        known.unit,
        known.amount,
        known.burst,
        known.period_s,
        known.starts_s,
        known.ends_s,
    )
