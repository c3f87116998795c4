"""A worker's limits: spends what it was lent, and asks the owner whenever that is not enough."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from gateway.errors import GatewayError, UnavailableError
from gateway.exchange import Claim, Hold, Standing, Used
from gateway.limits.claims import costing
from gateway.limits.messages import Ahead, Refused, SliceAnswer, SliceAsk
from gateway.limits.parcel import NEVER, Local, Parcel
from gateway.limits.refusal import exceeded
from gateway.limits.table import Key, key_of, standings
from tenants.models import LimitUnit

log = logging.getLogger("orgate.limits")

TICK_S = 0.2
"""How often unused parts of slices return."""

SLOW_TICKS = 5
"""In so many ticks also what came back to busy buckets returns, and the owner hears of slots still in use."""

SOON_S = 0.005
"""How long what comes back to a scarce bucket waits for more of it: others may be refused meanwhile."""

BATCH = 256
"""Requests asked about in one message."""

Batch = list[tuple[tuple[Claim, ...], asyncio.Future[Hold]]]


class SlicedLimits:
    """The `LimitStore` of a worker. `ask` carries a message to the owner and raises `UnavailableError`.

    `worker` is unique to this process (a restarted worker takes another). Nobody is refused without the owner
    having said so just now. One message is under way at a time; requests that wait meanwhile share the next.
    A slice that runs low is renewed while the rest of it is spent, so that at a steady rate nobody waits.
    When the owner cannot be asked, what is left of the slices is spent, then `UnavailableError` is raised.
    If this process dies, the owner charges what it was lent and frees its slots.
    """

    def __init__(self, worker: str, ask: Callable[[SliceAsk], Awaitable[SliceAnswer]]) -> None:
        self._worker = worker
        self._ask = ask
        self._locals: dict[Key, Local] = {}
        self._waiting: Batch = []
        self._asking: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._soon: asyncio.TimerHandle | None = None
        self._owed: set[Key] = set()
        self._low: set[Key] = set()
        self._session = ""
        self._seq = 0
        self._seen = 0
        self._ticks = 0
        self._closed = False

    async def reserve(self, claims: Sequence[Claim]) -> Hold:
        wanted = claims if type(claims) is tuple else tuple(claims)
        if (hold := self._spend(wanted)) is not None:
            return hold
        if self._closed:
            raise _unavailable()
        future: asyncio.Future[Hold] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, future))
        self._begin()
        try:
            return await future
        except asyncio.CancelledError:
            # Granted in the same instant as the caller went away: nobody else knows of this hold.
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().refund()
            raise

    async def run(self) -> None:
        """Return what is not used, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            await self.sync()

    async def sync(self) -> None:
        """One tick: give unused parts and what came back to the owner; keep them when it cannot be asked."""
        self._ticks += 1
        slow = self._ticks % SLOW_TICKS == 0
        idle: list[Local] = []
        busy: list[Local] = []
        for key, local in list(self._locals.items()):
            if (not local.used or slow) and (local.avail or local.back):
                (busy if local.used and not local.scarce else idle).append(local)
            elif not (local.used or local.out or self._turn.locked()):  # a message under way may put some back
                local.gone = True
                del self._locals[key]
            local.used = False
        if idle or busy or (slow and any(local.out for local in self._locals.values())):
            await self._exchange([], idle, busy)

    async def close(self) -> None:
        """Give everything back. What requests still in flight settle afterwards is not told any more."""
        self._closed = True
        if self._soon is not None:
            self._soon.cancel()
        while self._asking is not None:
            await self._asking
        await self._exchange([], list(self._locals.values()), [])

    # What `_SlicedHold` calls: synchronous.

    def charge(self, claim: Claim, at: Local, reserved: int, used: int) -> None:
        """`used` instead of `reserved`; for concurrency, 0 instead of the slot. `at` is where it was taken."""
        local = self._local(claim) if at.gone else at
        if local is not at and (local.slots or at.slots):
            return  # the limit has been another one meanwhile: its bucket knows nothing of this slot
        if claim.unit is LimitUnit.CONCURRENCY:
            local.avail += reserved - used
        elif used > reserved:
            local.avail -= used - reserved
        else:
            local.back += reserved - used
        local.remaining += reserved - used
        if local.scarce and not self._closed:
            self._owed.add(key_of(claim))
            if self._soon is None:
                self._soon = asyncio.get_running_loop().call_later(SOON_S, self._begin)

    def _spend(self, claims: tuple[Claim, ...]) -> Hold | None:
        """All of `claims` out of the slices, or nothing."""
        found = []
        for claim in claims:
            local = self._locals.get((claim.org, claim.limit, claim.subject))
            if local is None:
                local = self._local(claim)
            local.used = True
            if local.avail < claim.cost or not (local.claim is claim or _same(local.claim, claim)):
                return None
            found.append(local)
        remaining = []
        for local, claim in zip(found, claims, strict=True):
            local.claim = claim
            local.avail = avail = local.avail - claim.cost
            local.remaining = left = local.remaining - claim.cost
            remaining.append(left)
            if avail < local.low:
                local.low = NEVER
                self._low.add(key_of(claim))
                self._begin()
            local.spare = min(local.spare, avail)
        return _SlicedHold(self, claims, found, remaining)

    def _hold(self, claims: tuple[Claim, ...]) -> Hold:
        found = [self._local(claim) for claim in claims]
        return _SlicedHold(self, claims, found, [local.remaining for local in found])

    def _local(self, claim: Claim) -> Local:
        key = key_of(claim)
        local = self._locals.get(key)
        if local is None:
            local = self._locals[key] = Local(claim)
        return local

    def _begin(self) -> None:
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask_for_waiting())

    async def _ask_for_waiting(self) -> None:
        try:
            while self._waiting or self._owed or self._low:
                if self._soon is not None:
                    self._soon.cancel()
                    self._soon = None
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                owed, low = self._known(self._owed), self._known(self._low)
                await self._exchange(batch, owed, [], low)
        finally:
            self._asking = None

    def _known(self, keys: set[Key]) -> list[Local]:
        found = [self._locals[key] for key in keys if key in self._locals]
        keys.clear()
        return found

    async def _exchange(
        self, batch: Batch, idle: Sequence[Local], busy: Sequence[Local], low: Sequence[Local] = ()
    ) -> None:
        """One message and its answer, applied. A message whose answer did not come has never been.

        All of `idle` returns, and of `busy` what came back to it or was not needed; `low` gets more on top.
        """
        async with self._turn:
            batch = [(claims, future) for claims, future in batch if not future.done()]
            asked = [self._renewed(claim) for claims, _ in batch for claim in claims]
            parcel = Parcel([*idle, *asked], busy, low)
            try:
                answer = await self._asked(tuple([claims for claims, _ in batch]), parcel)
            except BaseException as error:
                parcel.put_back()
                self._serve_alone(batch)
                if not isinstance(error, Exception):
                    raise  # cancelled
                if not isinstance(error, GatewayError):
                    log.exception("the owner of the limits cannot be asked")
                return
            parcel.arrived()
            self._apply(answer, batch, parcel)

    def _renewed(self, claim: Claim) -> Local:
        """The bucket of `claim`, with the amounts as the newest request knows them."""
        local = self._local(claim)
        if local.claim.unit is not claim.unit:
            local.gone = True
            local = self._locals[key_of(claim)] = Local(claim)
        local.claim = claim
        return local

    async def _asked(self, asks: tuple[tuple[Claim, ...], ...], parcel: Parcel) -> SliceAnswer:
        back, parts = parcel.back(), parcel.ahead()
        answer = await self._send(asks, back, parts)
        if not answer.known:
            # The owner was restarted, or had taken this worker for dead: it is told again what is out here.
            self._session = ""
            answer = await self._send(asks, back, parts)
        if len(answer.results) != len(asks):
            raise _unavailable()  # known by nobody, or overtaken by another process with this worker's name
        self._session = answer.session
        return answer

    async def _send(
        self, asks: tuple[tuple[Claim, ...], ...], back: tuple[Claim, ...], ahead: tuple[Ahead, ...]
    ) -> SliceAnswer:
        out = () if self._session else self._locals.values()
        held = tuple(costing(local.claim, local.out) for local in out if local.out)
        self._seq += 1
        seq = self._seq
        ask = SliceAsk(self._worker, self._session, seq, self._seen, asks, back, held, ahead)
        answer = await self._ask(ask)
        if answer.known:
            self._seen = seq
        return answer

    def _apply(self, answer: SliceAnswer, batch: Batch, parcel: Parcel) -> None:
        granted = []
        for (claims, future), result in zip(batch, answer.results, strict=True):
            if isinstance(result, Refused):
                if not future.done():
                    future.set_exception(exceeded(result))
                continue
            for claim in claims:
                local = self._local(claim)
                if local.slots:
                    local.out += claim.cost
            granted.append((claims, future))
        for part in answer.slices:
            if (found := self._locals.get((part.org, part.limit, part.subject))) is not None:
                parcel.take(found, part)
        for claims, future in granted:
            hold = self._hold(claims)
            if future.done():  # the caller went away while the owner was asked
                hold.refund()
            else:
                future.set_result(hold)

    def _serve_alone(self, batch: Batch) -> None:
        """The owner cannot be asked: spend what there is here."""
        for claims, future in batch:
            if future.done():
                continue
            if (hold := self._spend(claims)) is not None:
                future.set_result(hold)
            else:
                future.set_exception(_unavailable())


class _SlicedHold:
    __slots__ = ("_at", "_claims", "_limits", "_open", "_remaining")

    def __init__(
        self, limits: SlicedLimits, claims: tuple[Claim, ...], at: Sequence[Local], remaining: Sequence[int]
    ) -> None:
        self._limits = limits
        self._claims = claims
        self._at = at
        self._remaining = remaining
        self._open = True

    @property
    def standings(self) -> tuple[Standing, ...]:
        """As of the moment when all was granted."""
        return standings(self._claims, self._remaining)

    @property
    def metered(self) -> bool:
        return False

    def spending(self, used: Used) -> Claim | None:
        return None

    def settle(self, used: Used) -> None:
        self._close()
        for claim, at in zip(self._claims, self._at, strict=True):
            if claim.unit is not LimitUnit.REQUESTS:
                self._limits.charge(claim, at, claim.cost, used.of(claim.unit))

    def refund(self) -> None:
        self._close()
        for claim, at in zip(self._claims, self._at, strict=True):
            self._limits.charge(claim, at, claim.cost, 0)

    def _close(self) -> None:
        if not self._open:
            raise RuntimeError("this hold has been settled or refunded already")
        self._open = False


def _same(one: Claim, other: Claim) -> bool:
    """Whether both say the same of their bucket; a changed limit is asked about before it is spent from."""
    return (
        one.unit is other.unit
        and one.amount == other.amount
        and one.burst == other.burst
        and one.period_s == other.period_s
    )


def _unavailable() -> UnavailableError:
    return UnavailableError("limits cannot be asked", retry_after_s=1)
