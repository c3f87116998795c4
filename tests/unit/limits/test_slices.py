"""Slices when something goes wrong: lost answers, dead workers, restarted and unreachable owners."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.errors import LimitExceededError, UnavailableError
from gateway.exchange import Claim, Used
from gateway.limits.memory import MemoryLimits
from gateway.limits.messages import Granted, SliceAnswer, SliceAsk
from gateway.limits.owner import LEASE_US, LimitOwner
from gateway.limits.parcel import Parcel
from gateway.limits.slices import SLOW_TICKS, Batch, SlicedLimits
from tests.contract.test_limit_store import SECOND, FakeClock, admitted, claim, slots, tokens


class Wire:
    """Between a worker and its owner: counts messages, loses them or their answers, holds them at a gate."""

    def __init__(self, owner: LimitOwner) -> None:
        self.owner = owner
        self.messages: list[SliceAsk] = []
        self.down = False
        self.lose_answers = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()

    async def __call__(self, ask: SliceAsk) -> SliceAnswer:
        if self.down:
            raise UnavailableError("nobody there")
        self.messages.append(ask)
        self.arrived.set()
        await self.gate.wait()
        answer = self.owner.answer(ask)
        if self.lose_answers:
            self.lose_answers -= 1
            raise UnavailableError("the answer is lost")
        return answer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def owner(clock: FakeClock) -> LimitOwner:
    return LimitOwner(clock, boot="boot")


@pytest.fixture
def wire(owner: LimitOwner) -> Wire:
    return Wire(owner)


@pytest.fixture
def limits(wire: Wire) -> SlicedLimits:
    return SlicedLimits("w1", wire)


async def ticks(limits: SlicedLimits) -> None:
    for _ in range(SLOW_TICKS):
        await limits.sync()


async def test_most_requests_need_no_message(limits: SlicedLimits, wire: Wire) -> None:
    assert await admitted(limits, [claim(amount=1_000)], 1_000) == 1_000
    assert len(wire.messages) < 100


async def test_requests_at_once_share_a_message(limits: SlicedLimits, wire: Wire) -> None:
    await asyncio.gather(*(limits.reserve([claim(amount=100)]) for _ in range(50)))
    assert len(wire.messages) == 1


async def test_nobody_is_refused_without_the_owner_being_asked(limits: SlicedLimits, wire: Wire) -> None:
    wanted = [claim(amount=3)]
    await admitted(limits, wanted, 3)
    for _ in range(3):
        before = len(wire.messages)
        with pytest.raises(LimitExceededError):
            await limits.reserve(wanted)
        assert len(wire.messages) == before + 1


async def test_an_unused_slice_returns(limits: SlicedLimits, wire: Wire) -> None:
    await limits.reserve([claim(amount=100)])
    other = SlicedLimits("w2", wire)
    await ticks(limits)
    assert await admitted(other, [claim(amount=100)], 200) == 99


async def test_closing_returns_everything_and_refuses_from_then_on(limits: SlicedLimits, wire: Wire) -> None:
    await limits.reserve([claim(amount=100)])
    await limits.close()
    assert await admitted(SlicedLimits("w2", wire), [claim(amount=100)], 200) == 99
    with pytest.raises(UnavailableError):
        await limits.reserve([claim(amount=100)])


async def test_without_the_owner_the_slice_is_spent_and_then_it_is_said(limits: SlicedLimits, wire: Wire) -> None:
    await limits.reserve([claim(amount=100)])
    wire.down = True
    served = 49  # half of the 99 that were left
    for _ in range(served):
        await limits.reserve([claim(amount=100)])
    with pytest.raises(UnavailableError, match="limits cannot be asked") as refusal:
        await limits.reserve([claim(amount=100)])
    assert refusal.value.retry_after_s == 1
    await ticks(limits)  # fails quietly, loses nothing
    wire.down = False
    assert await admitted(limits, [claim(amount=100)], 200) == 100 - 1 - served


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_an_answer_that_is_lost_has_never_been(limits: SlicedLimits, wire: Wire, lost: int) -> None:
    wanted = [claim(amount=40), slots(30), tokens(10)]
    passed = await admitted(limits, wanted, 5)
    wire.lose_answers = lost
    while wire.lose_answers:
        try:
            await limits.reserve(wanted)
        except UnavailableError:
            continue
        passed += 1
    assert passed + await admitted(limits, wanted, 100) == 30
    assert await admitted(limits, [claim(amount=40)], 100) == 10


async def test_a_lost_first_answer_opens_one_session(limits: SlicedLimits, wire: Wire) -> None:
    wire.lose_answers = 1
    with pytest.raises(UnavailableError):
        await limits.reserve([slots(4)])
    assert await admitted(limits, [slots(4)], 10) == 4


async def test_a_message_that_was_overtaken_does_nothing(owner: LimitOwner) -> None:
    late = SliceAsk("w1", "", 1, 0, asks=((claim(amount=5),),))
    first = owner.answer(SliceAsk("w1", "", 2, 0, asks=((claim(amount=5),),)))
    assert first.results == (Granted(),)
    assert owner.answer(late).results == ()
    again = SliceAsk("w1", first.session, 2, 2, asks=((claim(amount=5),),))
    assert owner.answer(again).results == ()
    asks = ((claim(amount=5),),) * 5
    results = owner.answer(SliceAsk("w1", first.session, 3, 2, asks=asks, back=(claim(amount=5, cost=0),))).results
    assert sum(isinstance(result, Granted) for result in results) == 4


async def test_a_dead_workers_slots_come_free_and_its_slice_is_charged(
    limits: SlicedLimits, wire: Wire, owner: LimitOwner, clock: FakeClock
) -> None:
    wanted = [claim(amount=100, period_s=86_400), slots(2)]
    await limits.reserve(wanted)
    await limits.reserve(wanted)
    owner.left("w1")
    other = SlicedLimits("w2", wire)
    with pytest.raises(LimitExceededError):
        await other.reserve([slots(2)])
    clock.now_us += LEASE_US
    assert await admitted(other, [slots(2)], 5) == 2
    passed = await admitted(other, [claim(amount=100, period_s=86_400)], 200)
    assert 100 - 2 - 50 <= passed < 100 - 2


async def test_a_worker_taken_for_dead_declares_its_slots_again(
    limits: SlicedLimits, wire: Wire, owner: LimitOwner, clock: FakeClock
) -> None:
    held = [await limits.reserve([slots(3)]) for _ in range(2)]
    owner.left("w1")
    clock.now_us += LEASE_US
    other = SlicedLimits("w2", wire)
    await other.reserve([claim()])  # buries w1
    await ticks(limits)
    assert await admitted(other, [slots(3)], 5) == 1
    held[0].settle(Used(0))
    await ticks(limits)
    assert await admitted(other, [slots(3)], 5) == 1


async def test_a_worker_that_only_lost_its_stream_keeps_what_it_holds(
    limits: SlicedLimits, wire: Wire, owner: LimitOwner, clock: FakeClock
) -> None:
    await limits.reserve([slots(1)])
    owner.left("w1")
    await ticks(limits)  # it is heard of again
    clock.now_us += LEASE_US
    with pytest.raises(LimitExceededError):
        await SlicedLimits("w2", wire).reserve([slots(1)])


async def test_a_restarted_owner_is_told_of_slots_in_use(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    held = [await limits.reserve([slots(4)]) for _ in range(3)]
    wire.owner = LimitOwner(clock, boot="another")
    assert await admitted(limits, [slots(4)], 5) == 1
    held[0].settle(Used(0))
    await ticks(limits)
    assert await admitted(SlicedLimits("w2", wire), [slots(4)], 5) == 1


async def test_a_caller_that_goes_away_while_the_owner_is_asked_costs_nothing(
    limits: SlicedLimits, wire: Wire
) -> None:
    wire.gate.clear()
    waiting = asyncio.ensure_future(limits.reserve([claim(amount=1), slots(1)]))
    await wire.arrived.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    wire.gate.set()
    await ticks(limits)
    (await limits.reserve([claim(amount=1), slots(1)])).settle(Used(0))


async def test_a_caller_that_goes_away_as_it_is_granted_costs_nothing(
    limits: SlicedLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.ensure_future(limits.reserve([claim(amount=1)]))
    apply = limits._apply

    def apply_and_cancel(answer: SliceAnswer, batch: Batch, parcel: Parcel) -> None:
        apply(answer, batch, parcel)
        waiting.cancel()  # granted, and its task has not run yet

    monkeypatch.setattr(limits, "_apply", apply_and_cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    monkeypatch.undo()
    await ticks(limits)
    await limits.reserve([claim(amount=1)])


async def test_a_fault_of_the_wire_leaves_nobody_waiting(
    limits: SlicedLimits, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: SliceAsk) -> SliceAnswer:
        raise KeyError

    monkeypatch.setattr(wire.owner, "answer", broken)
    with pytest.raises(UnavailableError):
        await limits.reserve([claim()])
    monkeypatch.undo()
    assert await admitted(limits, [claim(amount=10)], 20) == 10


async def test_a_limit_that_becomes_one_of_another_unit_begins_anew(limits: SlicedLimits) -> None:
    before, after = slots(2), claim(limit="at-once", amount=5)
    held = [await limits.reserve([before]) for _ in range(2)]
    assert await admitted(limits, [after], 9) == 5
    for hold in held:
        hold.settle(Used(0))  # the slots' bucket is no more
    await ticks(limits)
    assert await admitted(limits, [after], 9) == 0


async def test_slots_of_a_limit_that_was_something_else_meanwhile_are_not_spent_again(
    limits: SlicedLimits,
) -> None:
    held = [await limits.reserve([slots(2)]) for _ in range(2)]
    await limits.reserve([claim(limit="at-once", amount=5)])
    again = [await limits.reserve([slots(2)]) for _ in range(2)]
    for hold in held:
        hold.settle(Used(0))
    with pytest.raises(LimitExceededError):
        await limits.reserve([slots(2)])
    again[0].settle(Used(0))
    await limits.reserve([slots(2)])


async def test_a_refund_does_not_outlast_the_refill_of_its_bucket(limits: SlicedLimits, clock: FakeClock) -> None:
    hold = await limits.reserve([tokens(900)])
    clock.advance(60)  # full again at the owner
    hold.refund()
    await limits.reserve([tokens(900)])
    with pytest.raises(LimitExceededError):
        await limits.reserve([tokens(900)])


async def test_returned_slots_are_not_declared_to_a_restarted_owner(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    await limits.reserve([slots(40)])  # and some more are lent with it
    await ticks(limits)
    wire.owner = LimitOwner(clock, boot="another")
    await limits.reserve([claim()])
    assert [c.cost for c in wire.messages[-1].held] == [1]
    assert await admitted(SlicedLimits("w2", wire), [slots(40)], 99) == 39


async def test_what_is_lent_still_counts_when_its_return_went_unanswered(
    owner: LimitOwner, clock: FakeClock
) -> None:
    wanted = claim(amount=100)
    first = owner.answer(SliceAsk("w1", "", 1, 0, asks=((wanted,),), back=(claim(amount=100, cost=0),)))
    lent = first.slices[0].amount
    assert lent > 0
    owner.answer(SliceAsk("w1", first.session, 2, 1, back=(claim(amount=100, cost=lent),)))
    owner.answer(SliceAsk("w1", first.session, 3, 1))  # never saw the second answer: still has what it was lent
    clock.advance(3_600)
    other = owner.answer(SliceAsk("w2", "", 1, 0, asks=((wanted,),) * 200))
    assert sum(isinstance(result, Granted) for result in other.results) == 100 - lent


async def test_two_processes_of_one_name_are_not_served_each_others_answers(wire: Wire) -> None:
    one, two = SlicedLimits("w1", wire), SlicedLimits("w1", wire)
    await admitted(one, [claim(amount=3)], 3)
    with pytest.raises(UnavailableError):
        await two.reserve([claim(amount=3)])


async def test_what_is_not_used_returns_by_itself(
    limits: SlicedLimits, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.limits.slices.TICK_S", 0)
    await limits.reserve([claim(amount=100)])
    running = asyncio.ensure_future(limits.run())
    other = SlicedLimits("w2", wire)
    async with asyncio.timeout(10):
        while not any(sum(c.cost for c in message.back) == 49 for message in wire.messages):
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await admitted(other, [claim(amount=100)], 200) == 99


async def test_a_message_that_is_cancelled_under_way_loses_nothing(limits: SlicedLimits, wire: Wire) -> None:
    await limits.reserve([claim(amount=100)])
    await limits.sync()  # the slice counts as unused from here on
    wire.gate.clear()
    wire.arrived.clear()
    ticking = asyncio.ensure_future(limits.sync())
    await wire.arrived.wait()
    ticking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ticking
    wire.gate.set()
    assert await admitted(limits, [claim(amount=100)], 200) == 99


async def test_closing_waits_for_what_is_asked_and_for_what_comes_back(limits: SlicedLimits, wire: Wire) -> None:
    (await limits.reserve([slots(2)])).settle(Used(0))  # a message about it would follow soon
    wire.gate.clear()
    wire.arrived.clear()
    waiting = asyncio.ensure_future(limits.reserve([claim(amount=2)]))
    await wire.arrived.wait()
    closing = asyncio.ensure_future(limits.close())
    wire.gate.set()
    await asyncio.gather(waiting, closing)
    assert await admitted(SlicedLimits("w2", wire), [slots(2)], 5) == 2


async def test_no_more_than_burst_and_what_came_in_over_any_interval(wire: Wire, clock: FakeClock) -> None:
    chance = random.Random(7)
    workers = [SlicedLimits(f"w{n}", wire) for n in range(4)]
    wanted = claim(amount=600, burst=200, period_s=60)  # 10 a second
    log: list[int] = []
    for _ in range(4_000):
        clock.now_us += chance.choice((0, 0, 0, 1_000, 50_000, 400_000))
        worker = chance.choice(workers)
        if chance.random() < 0.02:
            await worker.sync()
        try:
            hold = await worker.reserve([wanted])
        except LimitExceededError:
            continue
        if chance.random() < 0.1:
            hold.refund()
        else:
            hold.settle(Used(0))
            log.append(clock.now_us)
    for i in range(0, len(log), 10):
        for j in range(i, len(log), 10):
            assert j - i + 1 <= 200 + (log[j] - log[i]) * 10 // SECOND + 1


async def test_full_buckets_are_forgotten(clock: FakeClock, limits: SlicedLimits, owner: LimitOwner) -> None:
    memory = MemoryLimits(clock)
    for number in range(500):
        clock.advance(61)
        wanted: list[Claim] = [claim(subject=f"mem_{number}"), tokens(5), slots(3)]
        for store in (memory, limits):
            (await store.reserve(wanted)).settle(Used(5))
        await ticks(limits)
    assert len(memory) < 10
    assert len(owner) < 10
    assert len(limits._locals) < 10
