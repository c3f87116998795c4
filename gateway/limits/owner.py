"""The owner of the buckets in the control process: judges exactly, and lends slices to the workers.

What a worker has been lent is out of the bucket, and holds the top of it down: what the workers spend and what
the owner grants never exceed burst + amount × time together. A worker that dies is charged all it was lent
(at most 1/(2 × workers) of what was left when it asked); its concurrency slots come free.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from itertools import count

from gateway.exchange import Claim
from gateway.limits.messages import Ahead, Granted, Refused, Slice, SliceAnswer, SliceAsk
from gateway.limits.table import Key, Table, key_of
from tenants.models import LimitUnit

LEASE_US = 2_000_000
"""A worker whose stream ended and who has not asked for as long is dead."""

AHEAD = 64
"""A slice is as much as so many requests like the one that asked, to begin with."""

MOST_AHEAD = 4_096
AGAIN_US = 500_000
"""A worker that has spent a slice within this time gets twice as much, so that a busy bucket costs a message
every second or so and not for every 64 requests."""

PAUSE_US = 4 * AGAIN_US
"""One that has not spent it within this time begins anew."""

SLOTS_AHEAD = 16

FORGET = 10_000
"""Buckets of one worker whose pace is remembered."""

SCARCE = 8
"""With less left than so many requests of each worker, nothing is lent: every request is judged here."""


class _Effect:
    """What the last answer did to one bucket, to be taken back if the answer never arrived."""

    __slots__ = ("claim", "given", "lent_before")

    def __init__(self, claim: Claim, lent_before: int) -> None:
        self.claim = claim
        self.lent_before = lent_before
        self.given = 0  # units out of the bucket; negative: more came back than went out


class _Session:
    __slots__ = ("ahead", "effects", "id", "left_at_us", "seq", "worker")

    def __init__(self, session: str, worker: str) -> None:
        self.ahead: dict[Key, tuple[int, int]] = {}  # how far ahead it was lent the last time, and when
        self.id = session
        self.worker = worker
        self.seq = 0
        self.effects: dict[Key, _Effect] = {}
        self.left_at_us: int | None = None


class LimitOwner:
    """One loop's own; never awaits. Not durable: a restart begins with full buckets, and workers declare the
    slots they hold. `workers`: how many are expected, so that the first to ask is not lent the others' part.
    `boot` tells this owner's sessions from those of one before it.
    """

    def __init__(self, clock_us: Callable[[], int], *, workers: int = 1, boot: str = "") -> None:
        self._clock_us = clock_us
        self._expected = workers
        self._boot = boot or secrets.token_hex(6)
        self._numbers = count(1)
        self._table = Table()
        self._sessions: dict[str, _Session] = {}
        self._by_worker: dict[str, _Session] = {}

    def __len__(self) -> int:
        """How many buckets are remembered."""
        return len(self._table)

    def left(self, worker: str) -> None:
        """The worker's stream has ended: it is dead unless it asks again within the lease."""
        if (session := self._by_worker.get(worker)) is not None:
            session.left_at_us = self._clock_us()

    def answer(self, ask: SliceAsk) -> SliceAnswer:
        now = self._clock_us()
        self._bury(now)
        session = self._sessions.get(ask.session)
        if session is None or session.worker != ask.worker:
            if ask.session:
                return SliceAnswer(session="", known=False)
            earlier = self._by_worker.get(ask.worker)
            if earlier is not None and ask.seq <= earlier.seq:
                return SliceAnswer(session=earlier.id, known=True)  # overtaken by a later one, as below
            session = self._open(ask, now)
        elif ask.seq <= session.seq:
            return SliceAnswer(session=session.id, known=True)  # overtaken by a later one: nobody waits for it
        elif ask.seen < session.seq:
            self._undo(session, now)
        session.left_at_us = None
        session.seq = ask.seq
        session.effects = {}
        for claim in ask.back:
            effect = self._effect(session, claim, now)
            self._table.at(claim, now).give(claim.cost, session.id)
            effect.given -= claim.cost
        for part in ask.ahead:
            self._renew(session, part, now)
        results = tuple(self._judge(session, claims, now) for claims in ask.asks)
        slices = self._slices(session, ask, results, now) + self._more(session, ask, now)
        self._table.sweep(now, len(session.effects) + 1)
        return SliceAnswer(session=session.id, known=True, results=results, slices=slices)

    def _open(self, ask: SliceAsk, now_us: int) -> _Session:
        """A worker's first message, or the first to this owner. It knows best which slots it holds."""
        if (earlier := self._by_worker.get(ask.worker)) is not None:
            if ask.seen < earlier.seq:
                self._undo(earlier, now_us)
            self._close(earlier)
        session = _Session(f"{self._boot}-{next(self._numbers)}", ask.worker)
        self._sessions[session.id] = self._by_worker[ask.worker] = session
        for claim in ask.held:
            self._table.at(claim, now_us).take(claim.cost, session.id)
        return session

    def _judge(self, session: _Session, claims: tuple[Claim, ...], now_us: int) -> Granted | Refused:
        refused = self._table.take(claims, session.id, now_us)
        if refused is not None:
            return refused
        for claim in claims:
            self._effect(session, claim, now_us).given += claim.cost
        return Granted()

    def _slices(
        self, session: _Session, ask: SliceAsk, results: tuple[Granted | Refused, ...], now_us: int
    ) -> tuple[Slice, ...]:
        """What is left of each bucket that was asked about, and a slice of it where there is plenty."""
        dearest: dict[Key, Claim] = {}
        refused: set[Key] = set()
        for claims, result in zip(ask.asks, results, strict=True):
            for claim in claims:
                key = key_of(claim)
                if key not in dearest or dearest[key].cost < claim.cost:
                    dearest[key] = claim
                if isinstance(result, Refused):
                    refused.add(key)
        slices = []
        for key, claim in dearest.items():
            found = self._table.at(claim, now_us)
            left = found.left
            amount = 0 if key in refused else self._slice(session, key, claim, left, now_us)
            if amount:
                effect = self._effect(session, claim, now_us)
                found.lend(amount, session.id)
                effect.given += amount
            slices.append(Slice(claim.org, claim.limit, claim.subject, amount, left))
        return tuple(slices)

    def _renew(self, session: _Session, part: Ahead, now_us: int) -> None:
        """What was spent of a slice is spent; the rest stays with the worker and goes on counting as lent."""
        effect = self._effect(session, part.claim, now_us)
        found = self._table.at(part.claim, now_us)
        effect.given += found.keep(part.keep, effect.lent_before, session.id)
        found.give(part.back, session.id)
        effect.given -= part.back

    def _more(self, session: _Session, ask: SliceAsk, now_us: int) -> tuple[Slice, ...]:
        """On top of what is kept, as much as makes the slice that a request would be given now."""
        slices = []
        for part in ask.ahead:
            claim = part.claim
            found = self._table.at(claim, now_us)
            left, amount = found.left, 0
            if part.more:
                kept = 0 if claim.unit is LimitUnit.CONCURRENCY else part.keep
                whole = self._slice(session, key_of(claim), claim, left, now_us, kept=kept)
                amount = max(0, min(whole - kept, left))
            if amount:
                effect = self._effect(session, claim, now_us)
                found.lend(amount, session.id)
                effect.given += amount
            slices.append(Slice(claim.org, claim.limit, claim.subject, amount, left))
        return tuple(slices)

    def _slice(self, session: _Session, key: Key, claim: Claim, left: int, now_us: int, *, kept: int = 0) -> int:
        workers, cost = max(len(self._sessions), self._expected), max(claim.cost, 1)
        if left < SCARCE * workers * cost:
            return 0
        if claim.unit is LimitUnit.CONCURRENCY:
            return min(left // (2 * workers), SLOTS_AHEAD * cost)
        before, at_us = session.ahead.get(key, (0, 0))
        if before and now_us - at_us < PAUSE_US:
            ahead = min(before * 2, MOST_AHEAD) if now_us - at_us < AGAIN_US else before
        else:
            ahead = AHEAD
        if len(session.ahead) > FORGET:
            session.ahead.clear()
        session.ahead[key] = (ahead, now_us)
        return min((left + kept) // (2 * workers), ahead * cost)

    def _effect(self, session: _Session, claim: Claim, now_us: int) -> _Effect:
        """The note on one bucket in this answer. First touched: all it was lent is back or spent."""
        key = key_of(claim)
        effect = session.effects.get(key)
        if effect is None:
            effect = session.effects[key] = _Effect(claim, self._table.at(claim, now_us).unlend(session.id))
        return effect

    def _undo(self, session: _Session, now_us: int) -> None:
        """The worker never saw the last answer: it still has what it gave back, and got nothing."""
        for effect in session.effects.values():
            found = self._table.at(effect.claim, now_us)
            found.unlend(session.id)
            found.give(effect.given, session.id)
            if effect.lent_before:
                found.give(effect.lent_before, session.id)
                found.lend(effect.lent_before, session.id)
        session.effects = {}

    def _bury(self, now_us: int) -> None:
        for session in list(self._sessions.values()):
            if session.left_at_us is not None and now_us - session.left_at_us >= LEASE_US:
                self._close(session)

    def _close(self, session: _Session) -> None:
        self._table.forget(session.id)
        del self._sessions[session.id]
        if self._by_worker.get(session.worker) is session:
            del self._by_worker[session.worker]
