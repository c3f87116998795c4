"""What every `SliceStore` and `SliceAdmin` keeps, to the unit: in memory, on Redis, Valkey and a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from msgspec.structs import replace

from gateway.limits.kinds import SPOKEN_US
from gateway.limits.protocol import LEASE_S, REBUILD_S, Part, SliceAnswer, SliceAsk, Wish
from gateway.limits.store import SliceAdmin, SliceStore
from tenants.models import LimitUnit
from tests.contract.slice_store import ACME, NOON, OTHER, PLACES, SECOND, Backend, Worker, budget, rate, slots
from tests.contract.slice_store_redis import FakeTime, on_one

Advance = Callable[[float], None]


@pytest.fixture(params=list(PLACES))
async def backend(request: pytest.FixtureRequest) -> AsyncGenerator[Backend]:
    async with PLACES[request.param]() as backend:
        yield backend


@pytest.fixture
def store(backend: Backend) -> SliceStore:
    return backend.store


@pytest.fixture
def admin(backend: Backend) -> SliceAdmin:
    return backend.admin


@pytest.fixture
def advance(backend: Backend) -> Advance:
    return backend.advance


@pytest.fixture
def worker(store: SliceStore) -> Worker:
    return Worker(store)


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


# Sessions


async def test_a_message_that_is_sent_again_counts_once(worker: Worker) -> None:
    tokens = rate(100)
    opening = worker.message(tokens, wishes=((Wish(0, 10, 10),),))
    first = await worker.send(opening)
    assert await worker.store.ask(opening) == first
    again = worker.message(replace(tokens, spent=5, back=5), wishes=((Wish(0, 10, 10),),))
    second = await worker.send(again)
    assert second.slices[0].left == 85
    for _ in range(3):
        assert await worker.store.ask(again) == second
    assert await worker.left(tokens) == 85


async def test_a_message_out_of_turn_does_nothing(worker: Worker) -> None:
    tokens = rate(100)
    opened = await worker.open()
    for seq in (0, 3, 9):
        out = replace(worker.message(tokens, wishes=((Wish(0, 10, 10),),)), seq=seq)
        answer = await worker.store.ask(out)
        assert (answer.known, answer.session, answer.epoch) == (False, "", opened.epoch)
        assert answer.results == ()
        assert answer.slices == ()
    assert await worker.left(tokens) == 100


@pytest.mark.parametrize("session", ["", "nobody's"])
async def test_who_was_not_given_a_session_has_none(worker: Worker, session: str) -> None:
    answer = await worker.store.ask(SliceAsk(ACME, "w1", session, "", 2, 1, (rate(5),), ((Wish(0, 1, 1),),)))
    assert not answer.known
    assert answer.epoch
    assert await worker.left(rate(5)) == 5


async def test_a_session_is_of_one_worker_and_one_organization(store: SliceStore) -> None:
    worker = Worker(store)
    await worker.open()
    message = worker.message(rate(5), wishes=((Wish(0, 5, 5),),))
    assert not (await store.ask(replace(message, worker="w2"))).known
    assert not (await store.ask(replace(message, org=OTHER))).known
    assert await worker.take(rate(5), 5) == 5


async def test_of_a_silent_session_the_reserved_comes_back_and_the_rest_counts_as_spent(
    store: SliceStore, advance: Advance
) -> None:
    dead, alive = Worker(store, "dead"), Worker(store, "alive")
    tokens, day, at_once = rate(1_000, period_s=86_400), budget(1_000), slots(10)
    await dead.say(tokens, day, at_once, wishes=((Wish(0, 100, 100), Wish(1, 100, 100), Wish(2, 3, 3)),))
    await dead.say(*(replace(part, open=n) for part, n in ((tokens, 30), (day, 40), (at_once, 3))))
    advance(LEASE_S - 0.001)
    assert [one.left for one in (await alive.say(tokens, day, at_once)).slices] == [900, 900, 7]
    advance(0.001)
    assert [one.left for one in (await alive.say(tokens, day, at_once)).slices] == [930, 940, 10]
    answer = await dead.send(dead.message(tokens))
    assert not answer.known
    assert answer.epoch == alive.epoch
    assert (await dead.say(replace(tokens, spent=20))).slices[0].left == 910  # what it used of the reserved


async def test_a_session_that_says_anything_lives(store: SliceStore, advance: Advance) -> None:
    worker, other = Worker(store), Worker(store, "other")
    tokens = rate(100, period_s=86_400)
    await worker.take(tokens, 60)
    for _ in range(3):
        advance(LEASE_S * 0.9)
        await worker.say()
        assert await other.left(tokens) == 40
    assert worker.last is not None
    for _ in range(2):
        advance(LEASE_S * 0.9)
        await worker.send(worker.last)  # again
    assert (await worker.part(tokens, back=60)).left == 100


async def test_a_worker_that_opens_anew_has_given_up_what_it_had(store: SliceStore) -> None:
    tokens = rate(100, period_s=86_400)
    worker = Worker(store)
    await worker.take(tokens, 60)
    await worker.part(tokens, open=10)
    answer = await Worker(store).say(tokens)
    assert (answer.slices[0].left, answer.sessions) == (50, 1)
    assert not (await worker.send(worker.message(tokens))).known


async def test_another_first_message_opens_another_session(store: SliceStore) -> None:
    tokens = rate(100, period_s=86_400)
    worker = Worker(store)
    await worker.take(tokens, 60)
    assert (await Worker(store).say(tokens)).slices[0].left == 40
    assert not (await worker.send(worker.message(tokens))).known


async def test_a_session_that_is_closed_gives_back_all_that_it_had(store: SliceStore, admin: SliceAdmin) -> None:
    tokens, at_once = rate(100, period_s=86_400), slots(5)
    worker, other = Worker(store), Worker(store, "other")
    await worker.say(tokens, at_once, wishes=((Wish(0, 60, 60), Wish(1, 2, 2)),))
    answer = await worker.say(replace(tokens, spent=20), close=True)
    assert answer.known
    assert [one.left for one in (await other.say(tokens, at_once)).slices] == [80, 5]
    assert all(one.lent == 0 for one in await admin.usage(ACME))
    assert not (await worker.send(worker.message(tokens))).known


# A store that has lost what it knew


async def test_two_epochs_have_two_names(store: SliceStore, backend: Backend) -> None:
    worker = Worker(store)
    first = (await worker.open()).epoch
    await backend.lose()
    answer = await worker.send(worker.message(rate(5)))
    assert not answer.known
    assert answer.epoch not in ("", first)


async def test_it_is_rebuilt_from_what_workers_know(store: SliceStore, backend: Backend, advance: Advance) -> None:
    one, two = Worker(store, "w1"), Worker(store, "w2")
    tokens, day, at_once = rate(10, burst=1_000, period_s=1), budget(1_000), slots(10)
    parts = (tokens, day, at_once)
    wishes = ((Wish(0, 200, 200), Wish(1, 200, 200), Wish(2, 2, 2)),)
    assert await one.use(tokens, 500) == 500
    knows_one = await one.say(*parts, wishes=wishes)
    advance(0.1)  # one unit of the rate comes in
    knows_two = await two.say(*parts, wishes=wishes)
    assert [part.left for part in knows_two.slices] == [101, 600, 6]
    await backend.lose()

    async def rejoin(worker: Worker, knows: SliceAnswer) -> list[int]:
        assert not (await worker.send(worker.message(*parts))).known
        had = zip(parts, knows.slices, (200, 200, 2), strict=True)
        known = [replace(part, left=was.left, left_at_us=knows.now_us, held=held) for part, was, held in had]
        said = [replace(part, spent=150, back=50) for part in known[:2]]
        return [part.left for part in (await worker.say(*said, known[2])).slices]

    # What the first one knows is older: it saw what was left before the other one took as much.
    assert await rejoin(one, knows_one) == [351, 850, 8]
    assert await rejoin(two, knows_two) == [201, 700, 6]


async def test_what_was_granted_before_anybody_spoke_stays_taken(store: SliceStore, backend: Backend) -> None:
    old, new = Worker(store, "old"), Worker(store, "new")
    tokens = rate(1_000, period_s=86_400)
    knows = await old.say(tokens, wishes=((Wish(0, 700, 700),),))
    await old.part(tokens, spent=700)
    await backend.lose()
    assert await new.take(tokens, 400) == 400
    assert not (await old.send(old.message(tokens))).known
    answer = await old.say(replace(tokens, left=300, left_at_us=knows.now_us))
    assert answer.slices[0].left == -100


@pytest.mark.parametrize("part", [budget(1_000), rate(1_000, period_s=86_400)], ids=["budget", "rate"])
async def test_newer_knowledge_wins_and_older_changes_nothing(
    store: SliceStore, backend: Backend, part: Part
) -> None:
    first = Worker(store)
    at_us = (await first.open()).now_us
    await backend.lose()

    async def joined(name: str, left: int, when_us: int) -> int:
        worker = Worker(store, name)
        worker.epoch = "another"
        return (await worker.part(part, left=left, left_at_us=when_us)).left

    assert await joined("a", 500, at_us - 50) == 500
    assert await joined("b", 700, at_us - 60) == 500
    assert await joined("c", 400, at_us - 50) == 500
    assert await joined("d", 300, at_us - 40) == 300
    assert await joined("e", 350, at_us - 30) == 350


async def test_who_knows_nothing_or_this_epoch_rebuilds_nothing(store: SliceStore) -> None:
    tokens = rate(1_000)
    first = Worker(store)
    now = (await first.open()).now_us
    false = replace(tokens, left=10, left_at_us=now, held=500)
    assert (await Worker(store, "blank").say(false)).slices[0].left == 1_000
    same = Worker(store, "same")
    same.epoch = first.epoch
    assert (await same.say(false)).slices[0].left == 1_000
    assert (await first.say(false)).slices[0].left == 1_000
    later = Worker(store, "later")
    await later.open()
    later.epoch = "another"
    assert (await later.say(false)).slices[0].left == 1_000


async def test_it_may_be_told_in_several_messages(store: SliceStore, backend: Backend) -> None:
    old, other = Worker(store, "old"), Worker(store, "other")
    parts = (rate(1_000, period_s=86_400), budget(1_000), slots(10))
    knows = await old.say(*parts, wishes=((Wish(0, 200, 200), Wish(1, 200, 200), Wish(2, 2, 2)),))
    await backend.lose()
    assert await other.take(parts[1], 100) == 100  # of one that seems to be full as yet
    assert not (await old.send(old.message(parts[0]))).known
    told = [
        replace(part, left=left, left_at_us=knows.now_us, held=held)
        for part, left, held in zip(parts, (500, 300, 8), (200, 200, 2), strict=True)
    ]
    assert [part.left for part in (await old.say(replace(told[0], spent=50))).slices] == [500]
    later = old.message(told[2], replace(told[1], back=200), rebuilds=True)
    answer = await old.send(later)
    assert [part.left for part in answer.slices] == [8, 400]  # and what was taken meanwhile stays taken
    assert await store.ask(later) == answer  # it is one message, that counts once
    assert [part.left for part in (await old.say(*parts)).slices] == [500, 400, 8]
    assert (await old.say(close=True)).known
    assert [part.left for part in (await other.say(*parts)).slices] == [650, 400, 10]


async def test_what_is_told_again_changes_nothing_but_what_is_in_hands(store: SliceStore) -> None:
    """As it is by a worker whose session ended before it knew whether that had been heard."""
    tokens, old = budget(1_000), Worker(store, "old")
    now = (await Worker(store).open()).now_us
    old.epoch = "another"
    assert (await old.say(replace(tokens, left=300, left_at_us=now - 5, held=100, open=10))).slices[0].left == 300
    await old.send(old.message(close=True))
    await old.open()
    again = old.message(replace(tokens, left=300, left_at_us=now - 5), rebuilds=True)
    assert (await old.send(again)).slices[0].left == 400


async def test_what_was_held_counts_as_being_in_the_bucket(store: SliceStore, advance: Advance) -> None:
    tokens = rate(100, period_s=10)
    now = (await Worker(store).open()).now_us
    old = Worker(store, "old")
    old.epoch = "another"
    advance(9)
    answer = await old.say(replace(tokens, left=50, left_at_us=now, held=40))
    assert answer.slices[0].left == 60
    assert (await old.part(tokens, back=40)).left == 100


async def test_nothing_is_lent_of_a_young_bucket_that_nobody_has_spoken_for(
    store: SliceStore, advance: Advance
) -> None:
    new, old = Worker(store, "new"), Worker(store, "old")
    old.epoch = "another"
    now = (await new.open()).now_us
    assert (await new.part(rate(1_000), want=8)).lent == 0
    assert (await old.part(rate(1_000), want=8, left=900, left_at_us=now - 5)).lent == 8
    assert (await new.part(rate(1_000), want=8)).lent == 8
    assert (await new.part(rate(1_000, limit="unspoken"), want=8)).lent == 0
    advance(REBUILD_S)
    assert (await new.part(rate(1_000, limit="unspoken"), want=8)).lent == 8


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
