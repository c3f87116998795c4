"""What every `SliceStore` keeps of rates and slots, to the unit: what is granted of them, and what lent."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway.limits.kinds import SPOKEN_US
from gateway.limits.protocol import REBUILD_S, Wish
from gateway.limits.store import SliceStore
from tests.contract.slice_store import OTHER, SECOND, Advance, Worker, budget, rate, slots

# Rates


async def test_a_bucket_begins_full_and_holds_its_burst(worker: Worker) -> None:
    tokens = rate(100, burst=30)
    assert await worker.take(tokens, 30) == 30
    assert await worker.take(tokens, 1) is None
    assert await worker.left(tokens) == 0


async def test_it_refills_by_the_microsecond(worker: Worker, advance: Advance) -> None:
    tokens = rate(7, period_s=60)
    assert await worker.use(tokens, 7) == 0
    wait = await worker.wait_us(tokens, 1)
    assert wait == -(-60 * SECOND // 7)
    advance((wait - 1) / SECOND)
    assert await worker.wait_us(tokens, 1) == 1
    advance(1 / SECOND)
    assert await worker.take(tokens, 1) == 1


@pytest.mark.parametrize(
    ("amount", "period_s"), [(9_000_000_000_000_000, 31 * 86_400), (1, 31 * 86_400), (999_999_999_999, 1)]
)
async def test_nothing_is_rounded_away(worker: Worker, advance: Advance, amount: int, period_s: int) -> None:
    """The largest and smallest there are, in steps that no period is a multiple of."""
    tokens = rate(amount, period_s=period_s)
    assert await worker.use(tokens, amount) == 0
    passed = 0
    for step in (1, 3, 17_000_001, 999_983):
        advance(step / SECOND)
        passed += step
        assert await worker.left(tokens) == min(amount * passed // (period_s * SECOND), amount)


async def test_more_used_than_taken_is_a_debt(worker: Worker, advance: Advance) -> None:
    tokens = rate(60, period_s=60)
    assert await worker.take(tokens, 60) == 60
    assert (await worker.part(tokens, spent=90)).left == -30
    assert await worker.wait_us(tokens, 1) == 31 * SECOND
    advance(30.999999)
    assert await worker.wait_us(tokens, 1) == 1
    advance(0.000001)
    assert await worker.take(tokens, 1) == 1


async def test_what_comes_back_is_there_at_once_and_never_more_than_the_burst(worker: Worker) -> None:
    tokens = rate(100)
    assert await worker.take(tokens, 80) == 80
    assert (await worker.part(tokens, spent=30, back=50)).left == 70
    assert (await worker.part(tokens, back=500)).left == 70  # nobody has those: a debt, and back


async def test_what_is_in_hands_holds_the_top_down(worker: Worker, advance: Advance) -> None:
    tokens = rate(100)
    assert await worker.take(tokens, 60) == 60
    advance(2)
    await worker.part(tokens)
    advance(2)
    assert await worker.left(tokens) == 40
    assert (await worker.part(tokens, spent=60)).left == 40
    advance(1.2)
    assert await worker.left(tokens) == 42


async def test_what_can_never_be_granted_is_said_so(worker: Worker) -> None:
    assert await worker.wait_us(rate(10, burst=5), 6) == -1
    assert await worker.wait_us(rate(0), 1) == -1
    assert await worker.wait_us(slots(3), 4) == -1
    assert await worker.wait_us(budget(3), 4) == -1
    assert await worker.wait_us(rate(0, limit="none"), 0) == -1


async def test_a_changed_limit_counts_at_once(worker: Worker) -> None:
    assert await worker.use(rate(4), 4) == 0
    assert await worker.left(rate(6)) == 2
    assert await worker.left(rate(1)) == 1
    assert await worker.left(rate(1, burst=9)) == 4
    assert await worker.left(rate(1, burst=9, period_s=3_600)) == 4
    assert await worker.take(rate(0), 1) is None


async def test_a_change_that_is_on_its_way_brings_in_no_more_than_one_raise(
    store: SliceStore, advance: Advance
) -> None:
    ahead, behind = Worker(store, "ahead"), Worker(store, "behind")
    assert await behind.use(rate(10), 10) == 0
    assert await ahead.use(rate(1_000), 990) == 0
    for _ in range(5):
        assert await behind.left(rate(10)) == 0
        assert await ahead.left(rate(1_000)) == 0
    assert await ahead.left(rate(1_100)) == 100
    assert await behind.left(rate(10)) == 10
    advance(10)
    assert await ahead.left(rate(1_000)) == 1_000


async def test_a_period_that_changes_keeps_the_part_of_a_unit_that_has_come_in(
    worker: Worker, advance: Advance
) -> None:
    assert await worker.use(rate(1, period_s=60), 1) == 0
    advance(20)
    assert await worker.wait_us(rate(1, period_s=60), 1) == 40 * SECOND
    assert await worker.wait_us(rate(1, period_s=2), 1) == 4 * SECOND // 3 + 1


# Slots


async def test_slots_are_as_many_as_nobody_holds(store: SliceStore) -> None:
    one, two = Worker(store, "w1"), Worker(store, "w2")
    assert await one.take(slots(3), 1) == 1
    assert await two.take(slots(3), 2) == 2
    assert await one.wait_us(slots(3), 1) == SECOND
    assert (await two.part(slots(3), back=1)).left == 1
    assert await one.take(slots(3), 1) == 1
    assert await one.left(slots(2)) == -1
    assert await one.left(slots(7)) == 4


# Requests


async def test_all_or_nothing_and_the_longest_wait_is_named(worker: Worker) -> None:
    wide, narrow, never = rate(100), rate(10, limit="narrow"), rate(5, limit="never")
    both = (Wish(0, 20, 20), Wish(1, 10, 10))
    answer = await worker.say(wide, narrow, never, wishes=(both, both, (*both, Wish(2, 6, 6)), (Wish(0, 80, 80),)))
    granted, late, never_said, rest = answer.results
    assert granted.granted == (20, 10)
    # All of it is in this worker's hands, and nothing comes in until it says what has become of that.
    assert (late.granted, late.part, late.wait_us) == ((), 1, 60 * SECOND + SPOKEN_US)
    assert (never_said.granted, never_said.part, never_said.wait_us) == ((), 2, -1)
    assert rest.granted == (80,)
    assert [part.left for part in answer.slices] == [0, 0, 5]


async def test_with_less_than_it_costs_a_request_is_given_what_is_left(worker: Worker) -> None:
    day = budget(100)
    assert await worker.take(day, 60) == 60
    assert await worker.take(day, 60) is None
    assert await worker.take(day, 60, least=1) == 40
    assert await worker.take(day, 60, least=1) is None
    assert await worker.take(day, 0, least=0) == 0
    await worker.part(day, spent=101)
    assert await worker.take(day, 0, least=0) is None


async def test_requests_of_a_hundred_workers_at_once_get_what_there_is(store: SliceStore) -> None:
    taken = await asyncio.gather(*(Worker(store, f"w{n}").take(rate(10), 1) for n in range(100)))
    assert taken.count(1) == 10
    assert taken.count(None) == 90


async def test_organizations_and_subjects_have_buckets_of_their_own(store: SliceStore) -> None:
    acme, other = Worker(store), Worker(store, org=OTHER)
    assert await acme.take(rate(5), 5) == 5
    assert await other.take(rate(5), 5) == 5
    assert await acme.take(rate(5, subject="mem_1"), 5) == 5
    assert await acme.take(rate(5, subject="mem_2"), 5) == 5
    assert await acme.take(rate(5), 1) is None


# Slices


async def test_a_part_of_what_there_is_is_lent(store: SliceStore, advance: Advance) -> None:
    worker = Worker(store, workers=4)
    await worker.open()
    advance(REBUILD_S)
    assert (await worker.part(rate(1_000), want=64)).lent == 64
    assert (await worker.part(rate(1_000), want=500)).lent == 936 // 8
    assert (await worker.part(rate(1_000), want=500)).left == 936 - 117 - 819 // 8


async def test_nothing_is_lent_of_what_is_scarce(store: SliceStore, advance: Advance) -> None:
    worker = Worker(store, workers=2)
    await worker.open()
    advance(REBUILD_S)
    assert (await worker.part(rate(15), want=1)).lent == 0
    assert (await worker.part(rate(16, limit="enough"), want=1)).lent == 1
    assert (await worker.part(rate(31, limit="less"), want=64)).lent == 0
    assert (await worker.part(rate(32, limit="more"), want=64)).lent == 8
    refusing = replace(rate(1_000, limit="refusing"), want=8)
    answer = await worker.say(refusing, wishes=((Wish(0, 1_001, 1_001),),))
    assert answer.slices[0].lent == 0


async def test_who_asks_first_is_not_lent_the_part_of_those_who_are_there(
    store: SliceStore, advance: Advance
) -> None:
    workers = [Worker(store, f"w{n}") for n in range(5)]
    sessions = [(await worker.open()).sessions for worker in workers]
    assert sessions == [1, 2, 3, 4, 5]
    advance(REBUILD_S)
    assert (await workers[0].part(rate(1_000), want=1_000)).lent == 0
    assert (await workers[0].part(rate(1_000), want=800)).lent == 100


# Time


async def test_a_clock_that_jitters_brings_nothing_in(worker: Worker, advance: Advance) -> None:
    tokens = rate(1_000, period_s=10)
    assert await worker.use(tokens, 1_000) == 0
    for _ in range(20):
        advance(-0.5)
        assert await worker.left(tokens) == 0
        advance(0.5)
        assert await worker.left(tokens) == 0


async def test_a_clock_that_is_set_back_goes_on_from_there(
    store: SliceStore, worker: Worker, advance: Advance
) -> None:
    tokens, at_once = rate(60, period_s=60), slots(1)
    assert await worker.use(tokens, 60) == 0
    dead = Worker(store, "dead")
    assert await dead.take(at_once, 1) == 1
    advance(-3_600)
    assert await worker.left(tokens) == 0
    advance(1)
    assert await worker.left(tokens) == 1
    advance(1.5)
    await worker.say()
    advance(0.5)
    assert await worker.take(at_once, 1) == 1  # the dead one's lease has not become an hour longer
