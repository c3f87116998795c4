"""Budgets outlive the store of limits, and are told of once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec import structs

from gateway.errors import UnavailableError
from gateway.limits.accounts import LimitOwner
from gateway.limits.keeper import KEPT_DAYS, BudgetKeeper
from gateway.limits.protocol import Part, SliceAnswer, SliceAsk, Standings
from tenants.budgets import Notice, Webhook
from tenants.ids import PLATFORM, OrgId
from tenants.models import Limit, LimitScope, LimitUnit, Org, Window
from tenants.snapshot import Snapshot, TenantRecord
from tenants.sql.store import SqlControlStore
from tenants.store import StoreUnavailableError
from tests.contract.control_store import NOW, OPERATOR, SqliteBackend, org

ACME = OrgId("acme")
START, END = int(NOW) - 1_000, int(NOW) + 86_400
MONTH = Limit(
    ACME, "month", LimitScope.MEMBER, LimitUnit.TOKENS, 1_000, period_s=0, window=Window.MONTH, notify_at=(80, 95)
)
RATE = Limit(ACME, "minute", LimitScope.ORG, LimitUnit.TOKENS, 1_000)
SHARED = Limit(
    PLATFORM, "all", LimitScope.ORG, LimitUnit.TOKENS, 10_000, period_s=0, window=Window.DAY, notify_at=(50,)
)


class Time:
    def __init__(self) -> None:
        self.seconds = NOW

    def now(self) -> float:
        return self.seconds

    def __call__(self) -> float:
        return self.seconds

    def monotonic_us(self) -> int:
        return int(self.seconds * 1e6)


class Place:
    """A control process: `owner` forgets everything in `lose`, the store's file stays."""

    def __init__(self, store: SqlControlStore, time: Time) -> None:
        self.store = store
        self.time = time
        self.told: list[Notice] = []
        self.limits: dict[OrgId, tuple[Limit, ...]] = {ACME: (MONTH, RATE), PLATFORM: ()}
        self.owner = Owner(time)
        self.keeper = self.start()

    def world(self) -> Snapshot:
        return Snapshot(1, [TenantRecord(Org(id=o, name=o), limits=limits) for o, limits in self.limits.items()])

    def start(self) -> BudgetKeeper:
        return BudgetKeeper(self.owner, self.store.budgets, self.world, self.time, self.told.append)

    async def restart(self) -> None:
        self.owner = Owner(self.time)
        self.keeper = self.start()
        await self.keeper.restore()

    async def used(self, limit: str = "month", subject: str = "mem_1") -> int | None:
        found = [s for s in await self.owner.usage(ACME) if (s.limit, s.subject) == (limit, subject)]
        return found[0].used if found else None


class Owner(LimitOwner):
    def __init__(self, time: Time) -> None:
        super().__init__(time.monotonic_us)
        self.away = False
        self.seeds: list[Sequence[Standings]] = []

    async def usage(self, org: OrgId) -> Sequence[Standings]:
        if self.away:
            raise UnavailableError("Redis does not answer")
        return await super().usage(org)

    async def seed(self, org: OrgId, used: Sequence[Standings]) -> None:
        self.seeds.append(used)
        await super().seed(org, used)


def part(limit: Limit = MONTH, subject: str = "mem_1", **changes: object) -> Part:
    name = f"platform/{limit.name}" if limit.org == PLATFORM else limit.name
    window = (START, END) if limit.window else (0, 0)
    values = (name, subject, limit.unit, limit.amount, limit.amount, limit.period_s, *window)
    return structs.replace(Part(*values), **changes)


async def spend(place: Place, *parts: Part) -> SliceAnswer:
    """A worker that used so much and is gone."""
    return await place.owner.ask(SliceAsk(ACME, "w1", "", "", 1, parts=parts, close=True))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    time = Time()
    store = await SqliteBackend(tmp_path).open(time)  # type: ignore[arg-type]
    await store.orgs.create(org("acme"), OPERATOR)
    yield Place(store, time)
    await store.close()


async def test_what_is_used_of_a_budget_survives_the_owner(place: Place) -> None:
    await spend(place, part(spent=300), part(RATE, "", spent=5), part(subject="mem_2", spent=7))
    await place.keeper.round()
    kept = await place.store.budgets.current(int(NOW))
    assert {(use.limit, use.subject, use.used) for use in kept} == {("month", "mem_1", 300), ("month", "mem_2", 7)}
    await place.restart()
    assert (await place.used(), await place.used(subject="mem_2")) == (300, 7)
    assert await place.used("minute", "") is None
    await spend(place, part(spent=10))
    assert await place.used() == 310


async def test_a_window_that_has_ended_is_not_seeded(place: Place) -> None:
    await spend(place, part(spent=300))
    await place.keeper.round()
    place.time.seconds = END + 1
    await place.restart()
    assert place.owner.seeds == []


async def test_nothing_is_written_while_nothing_changes(place: Place) -> None:
    await spend(place, part(spent=300))
    await place.keeper.round()
    (before,) = await place.store.budgets.current(0)
    place.time.seconds += 2
    await place.keeper.round()
    assert await place.store.budgets.current(0) == (before,)
    assert place.owner.seeds == []


async def test_a_store_that_came_back_empty_is_seeded_on_top_of_what_was_used_since(place: Place) -> None:
    """As Redis does, while the control process lives."""
    await spend(place, part(spent=300))
    await place.keeper.round()
    place.keeper._store = place.owner = Owner(place.time)  # the same keeper, another epoch
    place.time.seconds += 1
    await spend(place, part(spent=40))
    await place.keeper.round()
    assert await place.used() == 340
    await place.keeper.round()
    assert (await place.used(), len(place.owner.seeds)) == (340, 1)


async def test_a_worker_that_lives_knows_better_than_what_was_written(place: Place) -> None:
    """The control process alone dies: what was used after the last round is not lost, and nothing counts twice."""
    opened = await place.owner.ask(SliceAsk(ACME, "w1", "", "", 1, parts=(part(spent=300),)))
    place.time.seconds += 2
    lent = await place.owner.ask(SliceAsk(ACME, "w1", opened.session, opened.epoch, 2, parts=(part(want=50),)))
    assert lent.slices[0].lent == 50
    await place.keeper.round()
    place.time.seconds += 1
    await place.owner.ask(SliceAsk(ACME, "w1", lent.session, lent.epoch, 3, parts=(part(spent=30),)))
    left, at_us = lent.slices[0].left, place.time.monotonic_us()
    place.time.seconds += 0.5
    await place.restart()
    assert await place.used() == 350, "what was lent counts as used until somebody says better"
    again = part(left=left, left_at_us=at_us, held=20)
    await place.owner.ask(SliceAsk(ACME, "w1", "", lent.epoch, 1, parts=(again,)))
    assert await place.used() == 330


async def test_a_reset_stays_one(place: Place) -> None:
    await spend(place, part(spent=300), part(subject="mem_2", spent=7))
    await place.keeper.round()
    assert await place.keeper.reset(ACME, "month", "mem_1") == 1
    await place.keeper.round()
    assert (await place.used(), await place.used(subject="mem_2")) == (0, 7)
    await place.restart()
    assert (await place.used() or 0, await place.used(subject="mem_2")) == (0, 7)


async def test_what_was_reset_is_not_written_down_again(place: Place) -> None:
    """The subject may be a person who is being erased: no row must say their id from then on."""
    await spend(place, part(spent=300), part(subject="mem_2", spent=7))
    await place.keeper.round()
    await place.keeper.reset(ACME, "month", "mem_1")
    for _ in range(2):
        await place.keeper.round(last=True)
    assert [use.subject for use in await place.store.budgets.current(int(NOW))] == ["mem_2"]
    await spend(place, part(spent=5))  # they were not, and went on
    await place.keeper.round()
    assert {use.subject: use.used for use in await place.store.budgets.current(int(NOW))} == {
        "mem_1": 5,
        "mem_2": 7,
    }


async def test_each_threshold_is_told_once_in_a_window(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    await place.store.webhooks.put(Webhook(ACME, "https://hooks.example"), OPERATOR)
    await spend(place, part(spent=799))
    await place.keeper.round()
    assert place.told == []
    await spend(place, part(spent=1))
    with caplog.at_level(logging.WARNING, "orgate.limits"):
        await place.keeper.round()
        await place.keeper.round()
    assert [(n.percent, n.used, n.amount, n.subject) for n in place.told] == [(80, 800, 1_000, "mem_1")]
    # Logs name no member: whoever is erased later would still be in them.
    assert "acme: 80 % of the limit 'month' of a member are used, 800 of 1,000 tokens" in caplog.text
    await place.restart()
    await place.keeper.round()
    await spend(place, part(spent=300), part(subject="mem_2", spent=2_000))
    await place.keeper.round()
    assert [(n.percent, n.subject) for n in place.told[1:]] == [(95, "mem_1"), (80, "mem_2"), (95, "mem_2")]
    actions = [change.action for change in await place.store.outbox()]
    assert actions.count("limit.threshold") == 4


async def test_a_limit_that_counts_another_unit_begins_anew_and_tells_anew(place: Place) -> None:
    """And what still comes in of the unit before is not written over it."""
    money = structs.replace(MONTH, unit=LimitUnit.SPEND)
    await spend(place, part(spent=900))
    await place.keeper.round()
    place.limits[ACME] = (money,)
    await spend(place, part(money, spent=850), part(spent=99))
    await place.keeper.round()
    await spend(place, part(spent=1))
    await place.keeper.round()
    assert [(n.unit, n.percent) for n in place.told] == [(LimitUnit.TOKENS, 80), (LimitUnit.SPEND, 80)]
    await place.restart()
    await place.keeper.round()
    assert [(one.unit, one.used) for one in await place.owner.usage(ACME)] == [(LimitUnit.SPEND, 850)]
    assert len(place.told) == 2


async def test_a_unit_that_is_changed_back_is_written_down_again(place: Place) -> None:
    await spend(place, part(spent=300))
    await place.keeper.round()
    place.limits[ACME] = (structs.replace(MONTH, unit=LimitUnit.SPEND),)
    await spend(place, part(place.limits[ACME][0], spent=40))
    await place.keeper.round()
    place.limits[ACME] = (MONTH,)
    await place.keeper.round()
    await place.restart()
    assert [(one.unit, one.used) for one in await place.owner.usage(ACME)] == [(LimitUnit.TOKENS, 300)]


async def test_a_store_that_came_back_empty_is_told_of_each_unit(place: Place) -> None:
    money = structs.replace(MONTH, unit=LimitUnit.SPEND)
    await spend(place, part(spent=300), part(money, spent=40))
    await place.keeper.round()
    place.keeper._store = place.owner = Owner(place.time)
    place.time.seconds += 1
    await place.keeper.round()
    found = {one.unit: one.used for one in await place.owner.usage(ACME)}
    assert found == {LimitUnit.TOKENS: 300, LimitUnit.SPEND: 40}


async def test_a_limit_that_says_nothing_or_is_gone_tells_nobody(place: Place) -> None:
    place.limits[ACME] = (structs.replace(MONTH, notify_at=()),)
    await spend(place, part(spent=900))
    await place.keeper.round()
    place.limits[ACME] = (structs.replace(MONTH, name="other"),)
    await place.keeper.round()
    assert place.told == []


async def test_the_platforms_budget_of_each_organization_is_kept_too(place: Place) -> None:
    place.limits = {ACME: (), PLATFORM: (SHARED,)}
    await spend(place, part(SHARED, "", spent=6_000))
    await place.keeper.round()
    assert [(n.org, n.limit, n.percent) for n in place.told] == [("acme", "platform/all", 50)]
    await place.restart()
    assert await place.used("platform/all", "") == 6_000


async def test_without_a_budget_nobody_is_asked(place: Place) -> None:
    place.limits = {ACME: (RATE,), PLATFORM: ()}
    place.owner.away = True
    await place.keeper.round()
    assert not place.keeper._outages.away  # or it would say so


async def test_what_falls_in_the_epoch_that_it_was_used_in_is_not_lost(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream settles below what it was charged on its way."""
    ask = SliceAsk(ACME, "w1", "", "", 1, parts=(part(spent=300),))
    answer = await place.owner.ask(ask)
    await place.keeper.round()
    place.time.seconds += 1
    returned = structs.replace(
        ask, session=answer.session, epoch=answer.epoch, seq=2, parts=(part(spent=-120, back=120),)
    )
    await place.owner.ask(returned)
    with caplog.at_level(logging.INFO, "orgate.limits"):
        await place.keeper.round()
    assert (await place.used(), place.owner.seeds, caplog.messages) == (180, [], [])
    assert (await place.store.budgets.current(0))[0].used == 180


async def test_an_outage_is_one_line_and_is_made_up_for(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    await spend(place, part(spent=300))
    with caplog.at_level(logging.INFO, "orgate.limits"):
        place.owner.away = True
        await place.keeper.round()
        await place.keeper.round()
        place.owner.away = False
        await place.keeper.round()
    assert [record.getMessage() for record in caplog.records] == [
        "budgets are not written down for now: Redis does not answer",
        "budgets are written down again, after 0.0 s",
    ]
    assert (await place.store.budgets.current(0))[0].used == 300


async def test_a_control_store_that_cannot_be_written_is_written_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spend(place, part(spent=900))

    async def full(*_: object) -> tuple[Notice, ...]:
        raise StoreUnavailableError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(place.store.budgets, "write", full)
        await place.keeper.round()
    assert place.told == []
    await place.keeper.round()
    assert [n.percent for n in place.told] == [80]
    assert (await place.store.budgets.current(0))[0].used == 900


async def test_windows_of_long_ago_are_forgotten(place: Place) -> None:
    await spend(place, part(spent=900))
    await place.keeper.round()
    place.time.seconds = END + KEPT_DAYS * 86_400 + 1
    await place.restart()
    await place.keeper.round()
    assert await place.store.budgets.current(0) == ()


async def test_very_many_buckets_are_asked_for_less_often(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.limits.keeper.MANY", 2)
    monkeypatch.setattr("gateway.limits.keeper.SEEDED", 2)

    async def kept() -> list[int]:
        return sorted(use.used for use in await place.store.budgets.current(0))

    await spend(place, *(part(subject=f"mem_{n}", spent=n) for n in range(1, 6)))
    await place.keeper.round()
    await spend(place, part(subject="mem_1", spent=100))
    place.time.seconds += 2
    await place.keeper.round()
    assert await kept() == [1, 2, 3, 4, 5]
    place.time.seconds += 2
    await place.keeper.round()
    assert await kept() == [2, 3, 4, 5, 101]
    await spend(place, part(subject="mem_2", spent=100))
    await place.keeper.round(last=True)
    assert await kept() == [3, 4, 5, 101, 102]
    await place.restart()
    assert [len(seed) for seed in place.owner.seeds] == [2, 2, 1]
