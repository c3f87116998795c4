"""`BudgetKeeper` on the stores that forget: the owner that is started again, Redis that comes back empty."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import pytest
from msgspec import structs
from msgspec.structs import replace

from gateway.errors import UnavailableError
from gateway.limits.keeper import BudgetKeeper
from gateway.limits.protocol import Part, SliceAnswer, SliceAsk
from gateway.limits.windows import window_at
from gateway.limits.zones import messages
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
    zone: str = "UTC"

    def now(self) -> float:
        return self.clock.now

    def monotonic_us(self) -> int:
        return int(self.clock.now * 1e6)

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        self.backend.advance(seconds)

    async def keeper(self) -> BudgetKeeper:
        """Of a control process that begins now."""
        made = BudgetKeeper(self.backend.admin, self.book.budgets, self.world, self)
        await made.restore()
        return made

    def world(self) -> Snapshot:
        org = Org(id=ACME, name="Acme", timezone=self.zone)
        return Snapshot(1, [TenantRecord(org, limits=(MONEY,))])

    async def move(self, keeper: BudgetKeeper, zone: str) -> None:
        await keeper.carry(ACME, self.zone, zone)
        self.zone = zone

    def part(self) -> Part:
        """The budget that runs now, where the organization is."""
        starts_s, ends_s = window_at(MONEY.window, self.zone, self.now())
        return budget(1_000, starts_s=starts_s, ends_s=ends_s)

    async def left(self) -> int:
        """As a worker finds it that has nothing to do with any other."""
        answer = await Worker(self.backend.store, f"w-{token_hex(4)}").say(self.part(), close=True)
        return answer.slices[0].left

    async def spend(self, units: int) -> None:
        await Worker(self.backend.store, f"w-{token_hex(4)}").say(replace(self.part(), spent=units), close=True)

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


ZONES = ("Asia/Tokyo", "America/New_York", "UTC", "Asia/Tokyo")
"""At `NOON`, 08:00 UTC, it is 17:00 and 03:00 there: three days that run, each with an end of its own."""


async def test_what_is_used_up_stays_so_in_every_time_zone_until_its_day_ends(place: Place) -> None:
    keeper = await place.keeper()
    await place.spend(1_000)
    for zone in ZONES:
        await place.move(keeper, zone)
        assert await place.left() == 0, zone
        await keeper.round()
    ends = {}
    for zone in ZONES[:3]:
        await place.move(keeper, zone)
        ends[zone] = place.part().ends_s
        assert await place.left() == 0, zone
    assert len(set(ends.values())) == 3
    for zone, end in ends.items():
        place.zone = zone
        before, place.clock.now = place.clock.now, float(end)
        assert await place.left() == 1_000, zone
        place.clock.now = before


async def test_each_move_takes_along_what_was_used_since(place: Place) -> None:
    keeper = await place.keeper()
    await place.spend(400)
    for spent, zone, left in ((0, "Asia/Tokyo", 600), (300, "UTC", 300), (50, "Asia/Tokyo", 250), (0, "UTC", 250)):
        await place.spend(spent)
        await place.move(keeper, zone)
        assert await place.left() == left, zone
        await keeper.round()
        await keeper.carry(ACME, "America/New_York", zone)  # nothing was used there
        assert await place.left() == left, zone


async def test_what_workers_have_been_lent_counts_as_used(place: Place) -> None:
    worker = Worker(place.backend.store)
    await worker.take(place.part(), 100)
    await worker.say(replace(place.part(), spent=10, open=30))
    await place.move(await place.keeper(), "Asia/Tokyo")
    assert await place.left() == 1_000 - 10 - 60
    await place.move(await place.keeper(), "UTC")
    await worker.say(replace(place.part(), spent=60, back=30))
    assert await place.left() == 1_000 - 10 - 60


async def test_what_was_carried_survives_the_store_and_the_process(place: Place) -> None:
    await place.spend(400)
    await place.move(await place.keeper(), "Asia/Tokyo")
    await place.backend.lose()
    await place.keeper()
    assert await place.left() == 600


async def test_a_reset_holds_where_it_was_and_where_it_is(place: Place) -> None:
    keeper = await place.keeper()
    await place.spend(400)
    await place.move(keeper, "Asia/Tokyo")
    await keeper.reset(ACME, "budget")
    await place.move(keeper, "UTC")
    assert await place.left() == 1_000


async def test_a_time_zone_that_was_changed_elsewhere_is_followed(place: Place) -> None:
    """By another control process, which has other buckets or the same."""
    keeper, other = await place.keeper(), await place.keeper()
    await place.spend(400)
    await place.move(other, "Asia/Tokyo")
    await place.spend(1)
    for _ in range(2):
        await keeper.round()
        await other.round()
        assert await place.left() == 599
    place.zone = "America/New_York"  # and nobody has carried anything
    await keeper.round()
    assert await place.left() == 599


async def test_two_that_carry_the_same_carry_it_once(place: Place) -> None:
    await place.spend(400)
    place.zone = "Asia/Tokyo"
    for _ in range(2):
        for message in messages(ACME, [replace(place.part(), spent=400)]):
            await place.backend.store.ask(message)
    assert await place.left() == 600


async def test_while_the_store_cannot_be_charged_nothing_moves_and_the_next_attempt_does_it_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer is lost: what it was asked for is done."""
    keeper = await place.keeper()
    await place.spend(400)
    ask = place.backend.admin.ask

    async def losing(message: SliceAsk) -> SliceAnswer:
        await ask(message)
        raise UnavailableError("the answer is lost")

    monkeypatch.setattr(place.backend.admin, "ask", losing)
    with pytest.raises(UnavailableError, match="the answer is lost"):
        await keeper.carry(ACME, "UTC", "Asia/Tokyo")
    place.zone = "Asia/Tokyo"
    place.advance(10)  # no lease is left
    monkeypatch.undo()
    await keeper.carry(ACME, "UTC", "Asia/Tokyo")
    assert await place.left() == 600
