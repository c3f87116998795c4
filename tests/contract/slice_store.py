"""A worker that speaks to a `SliceStore`, message by message, and the places where one is found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from gateway.limits.accounts import LimitOwner
from gateway.limits.protocol import Part, Slice, SliceAnswer, SliceAsk, Wish
from gateway.limits.store import SlicePlace, SliceStore
from tenants.ids import OrgId
from tenants.models import LimitUnit
from tests.contract.slice_store_redis import FakeTime, forget, on_cluster, on_one

ACME, OTHER = OrgId("acme"), OrgId("other")
SECOND = 1_000_000
NOON = 1_800_000_000
"""Unix seconds; a fake clock begins here."""

Advance = Callable[[float], None]


@dataclass(frozen=True)
class Backend:
    """A store that knows nothing yet. `advance` moves its clock by seconds; `lose` makes it forget everything."""

    store: SliceStore
    admin: SlicePlace
    advance: Advance
    lose: Callable[[], Awaitable[None]]


class MemoryStore(LimitOwner):
    """The owner with a clock that tests move."""

    def __init__(self) -> None:
        self.now_us = NOON * SECOND
        super().__init__(lambda: self.now_us)

    def advance(self, seconds: float) -> None:
        self.now_us += round(seconds * SECOND)

    async def lose(self) -> None:
        super().__init__(lambda: self.now_us)


@asynccontextmanager
async def in_memory() -> AsyncIterator[Backend]:
    store = MemoryStore()
    yield Backend(store, store, store.advance, store.lose)


@asynccontextmanager
async def on_redis(kind: Literal["redis", "valkey", "cluster"]) -> AsyncIterator[Backend]:
    time = FakeTime(NOON * SECOND)
    opened = on_cluster(time) if kind == "cluster" else on_one(kind, time)
    async with opened as (store, servers):

        async def lose() -> None:
            forget(servers, store.prefix)

        yield Backend(store, store, time.advance, lose)


PLACES: dict[str, Callable[[], AbstractAsyncContextManager[Backend]]] = {
    "memory": in_memory,
    "redis": lambda: on_redis("redis"),
    "valkey": lambda: on_redis("valkey"),
    "cluster": lambda: on_redis("cluster"),
}


def rate(amount: int, *, burst: int = 0, period_s: int = 60, limit: str = "rate", subject: str = "") -> Part:
    return Part(limit, subject, LimitUnit.TOKENS, amount, burst or amount, period_s)


def budget(
    amount: int, *, limit: str = "budget", starts_s: int = NOON - 3_600, ends_s: int = NOON + 3_600
) -> Part:
    return Part(limit, "", LimitUnit.SPEND, amount, amount, 0, starts_s, ends_s)


def slots(amount: int, *, limit: str = "slots") -> Part:
    return Part(limit, "", LimitUnit.CONCURRENCY, amount, amount, 0)


class Worker:
    """One worker's session. Nothing is repeated unless a test does it."""

    def __init__(self, store: SliceStore, name: str = "w1", org: OrgId = ACME, *, workers: int = 1) -> None:
        self.store = store
        self.name = name
        self.org = org
        self.workers = workers
        self.session = ""
        self.epoch = ""
        self.seq = 0
        self.last: SliceAsk | None = None

    def message(
        self,
        *parts: Part,
        wishes: tuple[tuple[Wish, ...], ...] = (),
        close: bool = False,
        rebuilds: bool = False,
    ) -> SliceAsk:
        seq = self.seq + 1
        return SliceAsk(
            self.org, self.name, self.session, self.epoch, seq, self.workers, parts, wishes, close, rebuilds
        )

    async def say(
        self, *parts: Part, wishes: tuple[tuple[Wish, ...], ...] = (), close: bool = False
    ) -> SliceAnswer:
        """A message; once more in a new session if the lease had run out."""
        answer = await self.send(self.message(*parts, wishes=wishes, close=close))
        if not answer.known:
            answer = await self.send(self.message(*parts, wishes=wishes, close=close))
        assert answer.known
        return answer

    async def send(self, message: SliceAsk) -> SliceAnswer:
        self.last = message
        answer = await self.store.ask(message)
        if answer.known:
            self.session, self.seq, self.epoch = answer.session, message.seq, answer.epoch
        else:
            self.session, self.seq = "", 0  # in another epoch, what it knew of the one before is what counts
        return answer

    async def open(self) -> SliceAnswer:
        return await self.say()

    async def take(self, part: Part, cost: int, least: int | None = None) -> int | None:
        """Units granted of one bucket; None: refused."""
        answer = await self.say(part, wishes=((Wish(0, cost if least is None else least, cost),),))
        assert len(answer.results) == 1
        granted = answer.results[0].granted
        return granted[0] if granted else None

    async def use(self, part: Part, units: int) -> int:
        """Takes and spends; returns what is left."""
        assert await self.take(part, units) == units
        return (await self.part(part, spent=units)).left

    async def wait_us(self, part: Part, cost: int) -> int:
        answer = await self.say(part, wishes=((Wish(0, cost, cost),),))
        assert answer.results[0].granted == ()
        return answer.results[0].wait_us

    async def left(self, part: Part) -> int:
        return (await self.part(part)).left

    async def part(self, part: Part, **said: int) -> Slice:
        answer = await self.say(replace(part, **said))
        return answer.slices[0]
