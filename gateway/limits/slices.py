"""A worker's limits: spends what it was lent, and asks the store whenever that is not enough."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.clock import Clock, SystemClock
from gateway.errors import UnavailableError
from gateway.exchange import Claim, Hold
from gateway.limits.asking import Asker, Message, Refuser
from gateway.limits.awaylog import AwayLog
from gateway.limits.book import Book
from gateway.limits.headers import rate_limit_headers
from gateway.limits.hold import SlicedHold
from gateway.limits.local import Bucket
from gateway.limits.outage import Refusal, admit, reconcile
from gateway.limits.refusal import owner, refused, undecided
from gateway.limits.session import Session
from gateway.limits.store import SliceStore
from gateway.quota import Key
from tenants.ids import PLATFORM, OrgId
from tenants.models import LimitUnit, OnOutage

log = logging.getLogger("orgate.limits")

TICK_S = 0.25
"""How often unused parts of slices return, and how often a store that did not answer is asked again: by one
account of the worker's, whatever the number of requests."""

SLOW_TICKS = 4
"""In so many ticks also what came back to busy buckets returns, and each lease is renewed."""

SOON_S = 0.005
"""How long what comes back to a scarce bucket waits for more of it: others may be refused meanwhile."""

PACE_S = 0.004
"""From one message about a scarce bucket to the next, when several requests want of it at once, or soon one after
the other: all that come in between share a message."""

UNKNOWN = 3
"""After so many answers running that know no session, not even a new one, the store makes no sense."""

MOST_ASLEEP = 16_384
"""Buckets that are remembered in all accounts that are not in use, besides those of accounts that are."""

LOOKED_AT = 16
"""Of the accounts that are not in use, so many are looked at each tick."""

CLOSING = 32
"""Accounts that are closed at the same time."""

Found = tuple[Sequence[Bucket], Sequence[int]]
Sample = tuple[str, tuple[str, ...], float]


class SlicedLimits:
    """The `LimitStore` of a worker, on any `SliceStore`.

    `worker` is unique to this process (a restarted worker takes another); `workers`: how many are expected to
    share an account, at least. `folder`: where this worker's book is kept for `undertaker.bury`; None: nowhere.
    `spread` gives a number from 0 to 1: ticks are not everybody's at the same time.

    One message is under way for each account at a time; requests that wait meanwhile share the next. A slice that
    runs low is renewed while the rest of it is spent, so that at a steady rate nobody waits. Who is refused would
    have been by the store within the last 25 ms.
    Memory: accounts and buckets that are in use, and for a few seconds after; of some thousand buckets, until they
    have refilled, what was left of them.
    If this process dies, the undertaker says what was spent, else the store ends its sessions after a lease.
    """

    def __init__(
        self,
        worker: str,
        store: SliceStore,
        *,
        workers: int = 1,
        clock: Clock | None = None,
        folder: Path | None = None,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._worker = worker
        self._store = store
        self._workers = workers
        self._clock = clock or SystemClock()
        self._spread = spread
        self._book = Book(folder / worker if folder is not None else None)
        self._buckets: dict[Key, Bucket] = {}
        self._sessions: dict[OrgId, Session] = {}
        self._asleep: dict[OrgId, Session] = {}
        self._remembered = 0  # buckets in `_asleep`
        self._asking: dict[Session, asyncio.Task[None]] = {}
        self._away: dict[Session, None] = {}
        self._outages = AwayLog(
            log,
            "limits: the store cannot be asked (%s); each limit's on_outage holds",
            "limits: the store answers again",
            lambda: self._clock.monotonic_us() / 1_000_000,
            logging.INFO,
        )
        self._soon: asyncio.TimerHandle | None = None
        self._counted: dict[tuple[str, tuple[str, ...]], float] = {}
        self._ticks = 0
        self._closed = False

    async def reserve(self, claims: Sequence[Claim]) -> Hold:
        wanted = tuple(claims)
        if (hold := self.take(wanted)) is not None:
            return hold
        if self._closed:
            raise _stopping()
        at, units = await self._reserve(wanted)
        return SlicedHold(self, wanted, at, [bucket.left + bucket.avail for bucket in at], list(units))

    def take(self, claims: tuple[Claim, ...]) -> Hold | None:
        left: list[int] = []
        found = self._spend(claims, left)
        return None if found is None else SlicedHold(self, claims, found, left)

    async def run(self) -> None:
        """Return what is not used, renew leases, ask a store that is away; until cancelled."""
        while True:
            await asyncio.sleep(TICK_S * (0.75 + self._spread() / 2))
            self._tick()

    async def sync(self) -> None:
        """One tick, to its end."""
        self._tick()
        await self.settled()

    async def settled(self) -> None:
        """Until no message is under way and nobody waits."""
        while self._asking:
            await asyncio.wait(self._asking.values())

    async def close(self) -> None:
        """Give everything back. What requests still in flight settle afterwards is not told any more; what could
        not be told now, the undertaker finds."""
        self._closed = True
        if self._soon is not None:
            self._soon.cancel()
        await self.settled()
        turns = asyncio.Semaphore(CLOSING)
        await asyncio.gather(*(self._end(session, turns) for session in list(self._sessions.values())))
        await self.settled()
        told = not any(session.opened for session in self._sessions.values())
        for bucket in self._buckets.values():
            bucket.gone, bucket.here = True, False  # for what settles from now on
        self._buckets.clear()
        self._book.close(keep=not told)

    @property
    def away(self) -> bool:
        """Whether the store cannot be asked, for any account."""
        return bool(self._away)

    @property
    def denying(self) -> bool:
        """Whether a limit of the platform's denies because of that: this worker serves hardly anybody then."""
        return any(
            bucket.quota.on_outage is OnOutage.DENY and owner(bucket.quota) == "platform"
            for session in self._away
            for bucket in session.own
        )

    def counted(self) -> tuple[Sample, ...]:
        """What was counted since the last time this was asked."""
        counted, self._counted = self._counted, {}
        return tuple([(name, labels, value) for (name, labels), value in counted.items()])

    def gauges(self) -> tuple[Sample, ...]:
        """`orgate_limit_accounts_away` of this moment."""
        return (("orgate_limit_accounts_away", (), len(self._away)),)

    # What holds, and those that wait, call: synchronous.

    def now_ms(self) -> int:
        return int(self._clock.now() * 1_000)

    def spent(self, bucket: Bucket, units: int) -> None:
        bucket.total = total = bucket.total + units
        self._book.words[bucket.word] = total

    def charge(self, claim: Claim, bucket: Bucket, units: int, before: int, after: int) -> None:
        more = after - before
        if self._closed:
            return
        if bucket.gone:
            # Its reservation is the store's again: this is used of what is there now, and debt beyond that.
            bucket = self._session(claim.quota.org).bucket(claim.quota)
            inside = 0
        else:
            if not bucket.here:
                self._session(claim.quota.org).wake(bucket)
            inside = min(more, max(units - before, 0)) if more > 0 else 0
        self.spent(bucket, more)
        bucket.open -= inside
        if more > 0:
            bucket.avail -= more - inside
        else:
            if bucket.stand is None:
                # Through the store, and not to be spent here: the bucket may have refilled since.
                bucket.back -= more
                bucket.refused_until_us = 0
            else:
                bucket.give(-more)  # of this worker's share first, which is all there is meanwhile
            self._owe(bucket)

    def release(self, bucket: Bucket, units: int) -> None:
        if not bucket.gone and not self._closed:
            bucket.open -= units
            if bucket.give(units):
                self._owe(bucket)

    def ask(self, asker: Asker) -> None:
        claims = asker.claims
        if (found := self._spend(claims)) is not None:
            asker.granted(found, [claim.cost for claim in claims])
            return
        session = self._session(claims[0].quota.org)
        if session.away:
            self._fall_back(session, asker)
        elif (no := session.refusal(claims, self._clock.monotonic_us())) is not None:
            asker.refused(*no, by="worker")
        else:
            session.waiting.append(asker)
            self._begin(session)

    # Stage 5, when the slices do not do.

    async def _reserve(self, claims: tuple[Claim, ...]) -> Found:
        org = claims[0].quota.org
        if all(claim.quota.org == org for claim in claims):
            return await self._wait_for(claims)
        # One message is about one account. What organizations share comes last: of that, whoever is refused by its
        # own limits takes nothing, not even for the time of a message.
        orgs = sorted({claim.quota.org for claim in claims}, key=lambda each: each == PLATFORM)
        taken: dict[Claim, tuple[Bucket, int]] = {}
        try:
            for each in orgs:
                group = tuple([claim for claim in claims if claim.quota.org == each])
                at, units = await self._wait_for(group)
                taken.update(zip(group, zip(at, units, strict=True), strict=True))
        except BaseException:
            self._give_back([(claim, *found) for claim, found in taken.items()])
            raise
        return [taken[claim][0] for claim in claims], [taken[claim][1] for claim in claims]

    async def _wait_for(self, claims: tuple[Claim, ...]) -> Found:
        """Claims of one account."""
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self.ask(_Waiter(self, claims, future))
        try:
            return await future
        except asyncio.CancelledError:
            # Granted in the same instant as the caller went away: nobody else knows of it.
            if future.done() and not future.cancelled() and future.exception() is None:
                self._give_back(list(zip(claims, *future.result(), strict=True)))
            raise
        finally:
            # A refusal holds this frame by its traceback, and the frame would hold it: a circle for each refused
            # request, of which the collector frees twenty thousand parts at once while everybody waits.
            del future

    def _spend(self, claims: tuple[Claim, ...], left: list[int] | None = None) -> list[Bucket] | None:
        """All of `claims` out of the slices, or nothing. `left`: gets what each claim's bucket has left then."""
        look = self._buckets.get
        found = []
        for claim in claims:
            quota = claim.quota
            bucket = look(quota.key)
            if bucket is None:
                return None
            bucket.used = True
            if bucket.avail < claim.cost:
                return None
            if bucket.quota is not quota:
                if not bucket.quota.same(quota):
                    return None
                bucket.quota = quota
            found.append(bucket)
        for place, bucket in enumerate(found):
            cost = claims[place].cost
            bucket.avail = avail = bucket.avail - cost
            if bucket.requests:
                bucket.total = total = bucket.total + cost
                self._book.words[bucket.word] = total
            else:
                bucket.open += cost
                if bucket.slots and avail < bucket.spare:
                    bucket.spare = avail
            if left is not None:
                left.append(bucket.left + avail - avail % bucket.step)
            if avail < bucket.low:
                bucket.low, bucket.cost = -1, cost
                session = self._sessions[bucket.quota.org]
                session.low[bucket] = None
                self._begin(session)
        return found

    def _give_back(self, taken: Sequence[tuple[Claim, Bucket, int]]) -> None:
        for claim, bucket, units in taken:
            if claim.quota.unit is LimitUnit.REQUESTS:
                self.charge(claim, bucket, units, units, 0)
            else:
                self.release(bucket, units)

    def _fall_back(self, session: Session, asker: Asker) -> None:
        try:
            at, units = admit(session, asker.claims, self._clock.monotonic_us())
        except Refusal as no:
            asker.refused(no.claim, no.wait_us, by="outage")
        else:
            asker.granted(at, units)

    def refusal(self, claims: Sequence[Claim], no: Claim, wait_us: int | None, by: Refuser) -> Exception:
        """In words; and counted."""
        self._count("orgate_limit_refusals_total", (no.quota.org, by))
        if wait_us is None:
            return undecided(no)
        left = [self._session(claim.quota.org).bucket(claim.quota).remaining for claim in claims]
        return refused(no, wait_us, rate_limit_headers(claims, left, self.now_ms), left=left[claims.index(no)])

    # Messages.

    def _session(self, org: OrgId) -> Session:
        session = self._sessions.get(org)
        if session is None:
            session = self._asleep.pop(org, None)
            if session is not None:
                self._remembered -= len(session.resting)
                session.wake_up()
            else:
                session = Session(
                    org, self._worker, self._workers, buckets=self._buckets, book=self._book, spend=self._spend
                )
            self._sessions[org] = session
        return session

    def _begin(self, session: Session) -> None:
        if session not in self._asking and not session.away:
            self._send(session)

    def _send(self, session: Session) -> None:
        self._asking[session] = asyncio.get_running_loop().create_task(self._talk(session))

    def _owe(self, bucket: Bucket) -> None:
        self._session(bucket.quota.org).owed[bucket] = None
        if bucket.scarce and self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(SOON_S, self._pay)

    def _pay(self) -> None:
        self._soon = None
        for session in self._sessions.values():
            if session.owed:
                self._begin(session)

    async def _talk(self, session: Session) -> None:
        """Messages of one account, until nothing is due or one is not answered."""
        loop = asyncio.get_running_loop()
        try:
            while session.due:
                message = session.next_message(self._clock.monotonic_us())
                if message is None:
                    break
                before, session.began_s = session.began_s, loop.time()
                if not await self._exchange(session, message):
                    return
                busy = len(message.asked) > 1 or session.began_s - before < PACE_S
                if busy and any(b.scarce for one in message.asked for b in one.buckets):
                    await asyncio.sleep(max(session.began_s + PACE_S - loop.time(), 0))
        finally:
            del self._asking[session]

    async def _exchange(self, session: Session, message: Message) -> bool:
        """Send, and take the answer. False: there was none; the message stays under way."""
        if message.times:
            self._count("orgate_limit_resends_total", (session.org,))
        message.times += 1
        reason = ""
        try:
            answer = await self._store.ask(message.ask)
            now = self._clock.monotonic_us()
            if session.away:
                reconcile(session, now)
            session.take(answer, now)
            if session.unknown > UNKNOWN:
                session.unknown = 0
                reason = "it knows no session, not even a new one"
        except UnavailableError as error:
            reason = error.message
        except Exception:
            log.exception("limits: the store's answer cannot be made use of")
            reason = "its answer makes no sense"
        if reason:
            self._gone(session, message, reason)
            return False
        self._count("orgate_limit_messages_total", (session.org,))
        if session.away:
            self._back(session)
        return True

    def _gone(self, session: Session, message: Message, reason: str) -> None:
        self._outages.failed(reason)
        session.away = True
        self._away[session] = None
        for asker in session.failed(message):
            self._fall_back(session, asker)

    def _back(self, session: Session) -> None:
        session.away = False
        del self._away[session]
        if not self._away:
            self._outages.worked()
        for other in list(self._away):  # one has found it answering: the others need not wait for their turn
            if other not in self._asking:
                self._send(other)

    def _tick(self) -> None:
        if self._closed:
            return
        self._ticks += 1
        slow = self._ticks % SLOW_TICKS == 0
        now = self._clock.monotonic_us()
        if self._away and (asked := next(iter(self._away))) not in self._asking:
            del self._away[asked]
            self._away[asked] = None  # the next tick asks another
            self._send(asked)
        for session in list(self._sessions.values()):
            if session.away:
                continue
            if session.tick(now, slow=slow):
                if session.due:
                    self._begin(session)
                elif session.asleep and session not in self._asking:
                    self._lay_down(session)
            elif session not in self._asking:
                session.leave()
                del self._sessions[session.org]
        self._look_at_asleep(now)

    def _lay_down(self, session: Session) -> None:
        """Out of the way of those in use, until it is asked for."""
        session.leave()
        del self._sessions[session.org]
        self._asleep[session.org] = session
        self._remembered += len(session.resting)

    def _look_at_asleep(self, now_us: int) -> None:
        """Forget what has refilled, and accounts where they are too many."""
        for _ in range(min(LOOKED_AT, len(self._asleep))):
            session = self._asleep.pop(next(iter(self._asleep)))
            before = len(session.resting)
            session.forget_old(now_us)
            self._remembered -= before - len(session.resting)
            if session.resting:
                self._asleep[session.org] = session
        while self._remembered > MOST_ASLEEP:
            session = self._asleep.pop(next(iter(self._asleep)))
            self._remembered -= len(session.resting)
            session.forget_all()

    async def _end(self, session: Session, turns: asyncio.Semaphore) -> None:
        """Close one account. A message that has not been answered yet goes first."""
        async with turns:
            if session.opened:
                session.closing = True
                if session not in self._asking:
                    self._send(session)
                await self._asking[session]

    def _count(self, name: str, labels: tuple[str, ...]) -> None:
        key = (name, labels)
        self._counted[key] = self._counted.get(key, 0) + 1


class _Waiter:
    """A request that waits for its claims on one account."""

    __slots__ = ("_future", "_limits", "claims")

    def __init__(self, limits: SlicedLimits, claims: tuple[Claim, ...], future: asyncio.Future[Found]) -> None:
        self._limits = limits
        self._future = future
        self.claims = claims

    @property
    def gone(self) -> bool:
        return self._future.done()

    def granted(self, buckets: Sequence[Bucket], units: Sequence[int]) -> None:
        self._future.set_result((buckets, units))

    def refused(self, claim: Claim, wait_us: int | None, *, by: Refuser) -> None:
        self._future.set_exception(self._limits.refusal(self.claims, claim, wait_us, by))


def _stopping() -> UnavailableError:
    return UnavailableError("limits cannot be asked: the gateway is stopping", retry_after_s=1)
