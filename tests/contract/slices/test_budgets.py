"""What every `SliceStore` keeps of budgets; and what its `SliceAdmin` tells, seeds and sets back."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.limits.protocol import Part, Wish
from gateway.limits.store import SliceAdmin, SliceStore
from tenants.models import LimitUnit
from tests.contract.slice_store import ACME, NOON, OTHER, SECOND, Advance, Worker, budget, rate, slots
from tests.contract.slice_store_redis import FakeTime, on_one

# Budgets


async def test_a_budget_is_not_refilled_before_its_window_ends(worker: Worker, advance: Advance) -> None:
    day = budget(1_000, ends_s=NOON + 10)
    assert await worker.use(day, 1_000) == 0
    advance(2)
    assert await worker.wait_us(day, 1) == 8 * SECOND
    advance(8)
    assert await worker.left(day) == 0
    tomorrow = budget(1_000, starts_s=NOON + 10, ends_s=NOON + 20)
    assert await worker.take(tomorrow, 1_000) == 1_000


async def test_a_budget_keeps_count_of_what_was_used(worker: Worker, admin: SliceAdmin) -> None:
    month = budget(1_000)
    assert await worker.take(month, 300) == 300
    assert (await worker.part(month, spent=100, back=50, open=150)).left == 750
    (known,) = await admin.usage(ACME)
    assert (known.level, known.lent, known.open, known.used) == (750, 150, 150, 100)
    assert (known.limit, known.unit, known.amount, known.ends_s) == (month.limit, month.unit, 1_000, month.ends_s)


@pytest.mark.parametrize(("amount", "left"), [(1_500, 1_200), (500, 200), (100, -200)])
async def test_a_budget_that_changes_keeps_what_was_used(worker: Worker, amount: int, left: int) -> None:
    assert await worker.use(budget(1_000), 300) == 700
    assert await worker.left(budget(amount)) == left


async def test_a_seeded_budget_begins_where_it_was(store: SliceStore, admin: SliceAdmin, advance: Advance) -> None:
    before = Worker(store)
    assert await before.take(budget(1_000), 300) == 300
    await before.part(budget(1_000), spent=250)
    known = await admin.usage(ACME)
    assert isinstance(known[0].at_us, int)
    assert known[0].at_us > 0
    elsewhere = [replace(known[0], limit="other")]
    await admin.seed(OTHER, [replace(one, at_us=one.at_us - 1) for one in known])
    await admin.seed(OTHER, [replace(one, at_us=one.at_us - 1) for one in known])
    assert await Worker(store, org=OTHER).left(budget(1_000)) == 700
    await admin.seed(ACME, known)  # it is what this very bucket said
    await admin.seed(ACME, elsewhere)
    assert await before.left(budget(1_000)) == 700


async def test_a_seed_that_comes_late_takes_what_was_used_before(
    store: SliceStore, admin: SliceAdmin, worker: Worker
) -> None:
    assert await worker.take(budget(1_000), 100) == 100
    (known,) = await admin.usage(ACME)
    earlier = replace(known, level=400, lent=0, open=0, at_us=known.at_us - 5 * SECOND)
    for _ in range(2):
        await admin.seed(ACME, [earlier])
        assert await worker.left(budget(1_000)) == 300
    await admin.seed(ACME, [replace(earlier, level=900, at_us=earlier.at_us - 1)])
    assert await worker.left(budget(1_000)) == 300


async def test_only_budgets_are_seeded(store: SliceStore, admin: SliceAdmin) -> None:
    worker = Worker(store)
    await worker.say(rate(10), slots(3), wishes=((Wish(0, 9, 9), Wish(1, 2, 2)),))
    await admin.seed(OTHER, [replace(known, at_us=known.at_us - 1) for known in await admin.usage(ACME)])
    assert [one.left for one in (await Worker(store, org=OTHER).say(rate(10), slots(3))).slices] == [10, 3]


async def test_a_seed_from_before_the_clock_was_set_back_counts(
    store: SliceStore, admin: SliceAdmin, advance: Advance
) -> None:
    assert await Worker(store).use(budget(1_000), 300) == 700
    known = await admin.usage(ACME)
    advance(-60)
    await admin.seed(OTHER, known)
    assert await Worker(store, org=OTHER).left(budget(1_000)) == 700


# For admins


async def test_usage_is_of_one_organization(store: SliceStore, admin: SliceAdmin) -> None:
    assert await admin.usage(ACME) == [] or await admin.usage(ACME) == ()
    await Worker(store).say(
        rate(5, subject="mem_1"), slots(2), budget(9), wishes=((Wish(0, 1, 1), Wish(1, 1, 1)),)
    )
    await Worker(store, org=OTHER).say(rate(7, limit="theirs"))
    told = {(one.limit, one.subject): one for one in await admin.usage(ACME)}
    assert set(told) == {("rate", "mem_1"), ("slots", ""), ("budget", "")}
    found = told["rate", "mem_1"]
    assert (found.amount, found.burst, found.period_s, found.unit) == (5, 5, 60, LimitUnit.TOKENS)
    assert (found.level, found.lent, found.open) == (4, 1, 0)
    assert told["slots", ""].lent == 1
    assert told["budget", ""].starts_s == NOON - 3_600


@pytest.mark.parametrize("window", [(0, 0), (NOON - 3_600, NOON + 3_600)])
async def test_another_unit_is_another_bucket(
    store: SliceStore, admin: SliceAdmin, advance: Advance, window: tuple[int, int]
) -> None:
    """A limit whose unit was changed, or that was deleted and made again."""
    size = Part("same", "mem:1", LimitUnit.BYTES, 3_000, 3_000, 60, *window)
    spend, tokens = replace(size, unit=LimitUnit.SPEND), replace(size, unit=LimitUnit.TOKENS)
    one, two = Worker(store), Worker(store, "w2")
    assert await one.take(size, 1_000) == 1_000
    assert await one.use(size, 1_500) == 500
    assert await two.left(tokens) == 3_000  # the worker that knows of the change begins with a full one
    assert await two.use(tokens, 1_600) == 1_400
    answer = await one.say(replace(size, spent=700), replace(tokens, spent=100), spend, tokens)
    assert [found.left for found in answer.slices] == [500, 1_300, 3_000, 1_300]
    await one.say(close=True)  # what was open comes back to where it was taken
    told = {found.unit: (found.limit, found.subject, found.level, found.lent) for found in await admin.usage(ACME)}
    assert told[LimitUnit.BYTES] == ("same", "mem:1", 800, 0)
    assert told[LimitUnit.TOKENS] == ("same", "mem:1", 1_300, 0)
    if not window[1]:
        advance(50)
        assert await two.use(tokens, 3_000) == 0
        advance(20)  # the bytes' bucket is as good as new, and may be forgotten
        assert await two.left(tokens) == 1_000
        assert await two.left(size) == 3_000
    await two.use(size, 10)
    assert await admin.reset(ACME, "same", "mem:1") >= 2
    assert [await two.left(tokens), await two.left(size)] == [3_000, 3_000]


async def test_a_budget_is_seeded_by_its_unit(admin: SliceAdmin, worker: Worker) -> None:
    spend = budget(1_000)
    tokens = replace(spend, unit=LimitUnit.TOKENS)
    await worker.use(spend, 300)
    await worker.use(tokens, 20)
    known = [replace(one, at_us=one.at_us - 60 * SECOND, level=one.level - 5) for one in await admin.usage(ACME)]
    assert len(known) == 2
    await admin.seed(ACME, known)
    told = {one.unit: one.used for one in await admin.usage(ACME)}
    assert told == {LimitUnit.SPEND: 605, LimitUnit.TOKENS: 45}  # on top: it was another epoch's


async def test_gateways_of_before_and_of_now_find_the_same_buckets() -> None:
    """The text that knew no unit in names goes on beside this one during a rollout."""
    async with on_one("redis", FakeTime(NOON * SECOND)) as (store, [server]):
        await Worker(store).use(budget(1_000), 300)
        with server.client() as client:
            names = {name.decode() for name in client.scan_iter(match=f"{store.prefix}:*:b:*")}
        assert names == {f"{store.prefix}:{{acme}}:b:b:budget:{NOON - 3_600}:"}


async def test_a_reset_bucket_is_full_but_for_what_is_lent(
    store: SliceStore, admin: SliceAdmin, worker: Worker
) -> None:
    mine, theirs, day = rate(100, subject="mem_1"), rate(100, subject="mem_2"), budget(50)
    for part in (mine, theirs, day):
        await worker.take(part, 40)
        await worker.part(part, spent=400)
    assert await worker.take(rate(100, subject="mem_3"), 30) == 30
    assert await admin.reset(ACME, "rate", "mem_1") == 1
    assert await worker.left(mine) == 100
    assert await worker.left(theirs) < 0
    assert await admin.reset(ACME, "rate") == 3
    assert await worker.left(theirs) == 100
    assert await worker.left(rate(100, subject="mem_3")) == 70
    assert await worker.left(day) < 0
    assert await admin.reset(ACME, "budget", "") == 1
    assert await worker.left(day) == 50
    assert await admin.reset(ACME, "nobody's") == 0
    assert await admin.reset(OTHER, "rate") == 0
