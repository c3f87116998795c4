"""`BudgetKeeper` on the stores that forget: the owner that is started again, Redis that comes back empty."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec import structs

from gateway.limits.keeper import BudgetKeeper
from gateway.limits.protocol import Part
from tenants.models import Limit, LimitScope, LimitUnit, Org, Window
from tenants.snapshot import Snapshot, TenantRecord
from tenants.sql.store import SqlControlStore
from tests.contract.control_store import OPERATOR, Clock, SqliteBackend, org
from tests.contract.slice_store import ACME, NOON, PLACES, Backend, Worker, budget

MONEY = Limit(ACME, "budget", LimitScope.ORG, LimitUnit.SPEND, 1_000, period_s=0, window=Window.DAY)


@dataclass
class Place:
    backend: Backend
    book: SqlControlStore
    clock: Clock

    def now(self) -> float:
        return self.clock.now

    def monotonic_us(self) -> int:
        return int(self.clock.now * 1e6)

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        self.backend.advance(seconds)

    async def keeper(self) -> BudgetKeeper:
        """Of a control process that begins now."""
        world = Snapshot(1, [TenantRecord(Org(id=ACME, name="Acme"), limits=(MONEY,))])
        made = BudgetKeeper(self.backend.admin, self.book.budgets, lambda: world, self)
        await made.restore()
        return made

    async def used(self) -> int:
        (found,) = [standing for standing in await self.backend.admin.usage(ACME) if standing.ends_s]
        return found.used


@pytest.fixture(params=["memory", "redis"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    clock = Clock(float(NOON))
    book = await SqliteBackend(tmp_path).open(clock)
    await book.orgs.create(org("acme"), OPERATOR)
    async with PLACES[request.param]() as backend:
        yield Place(backend, book, clock)
    await book.close()


def knowing(left: int, at_s: float, held: int = 0) -> Part:
    return structs.replace(budget(1_000), left=left, left_at_us=round((NOON + at_s) * 1e6), held=held)


async def test_everything_dies_and_the_budget_is_as_it_was_written(place: Place) -> None:
    worker = Worker(place.backend.store)
    await worker.use(budget(1_000), 300)
    await (await place.keeper()).round()
    await place.backend.lose()
    keeper = await place.keeper()
    assert await place.used() == 300
    assert await Worker(place.backend.store).use(budget(1_000), 100) == 600
    await keeper.round()
    assert await place.used() == 400


async def test_a_store_that_lives_is_left_as_it_is(place: Place) -> None:
    worker = Worker(place.backend.store)
    await worker.use(budget(1_000), 300)
    await (await place.keeper()).round()
    await worker.use(budget(1_000), 50)
    keeper = await place.keeper()
    await keeper.round()
    assert await place.used() == 350


async def test_workers_that_live_and_what_was_written_count_once(place: Place) -> None:
    """Whichever speaks first to the empty store."""
    for first in ("keeper", "worker"):
        worker = Worker(place.backend.store)
        left = await worker.use(budget(1_000), 100)
        keeper = await place.keeper()
        await keeper.round()
        before = await place.used()
        place.advance(1)
        left = await worker.use(budget(1_000), 30)
        said = knowing(left, place.clock.now - NOON)
        await place.backend.lose()
        place.advance(0.5)
        if first == "keeper":
            await keeper.round()
        await worker.say()  # is told of the new epoch, and opens a session
        worker.session, worker.seq, worker.epoch = "", 0, "the one before"
        await worker.say(said)
        await keeper.round()
        assert await place.used() == before + 30, first


async def test_what_was_used_before_the_seed_comes_on_top(place: Place) -> None:
    await Worker(place.backend.store).use(budget(1_000), 300)
    keeper = await place.keeper()
    await keeper.round()
    await place.backend.lose()
    place.advance(1)
    await Worker(place.backend.store, "w2").use(budget(1_000), 40)
    await keeper.round()
    await keeper.round()
    assert await place.used() == 340


async def test_a_reset_is_not_undone(place: Place) -> None:
    await Worker(place.backend.store).use(budget(1_000), 300)
    keeper = await place.keeper()
    await keeper.round()
    assert await keeper.reset(ACME, "budget") == 1
    await keeper.round()
    await (await place.keeper()).round()
    assert await place.used() == 0
