"""Slices renewed while they are spent: nobody waits at a steady rate, and the bound holds whatever is lost."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.errors import LimitExceededError
from gateway.exchange import Used
from gateway.limits.accounts import LimitOwner
from gateway.limits.local import AGAIN_US, AHEAD, BUSY, LOW, MOST_AHEAD, PAUSE_US, STEPS, Bucket
from gateway.limits.protocol import LEASE_S, REBUILD_S
from gateway.limits.slices import SLOW_TICKS, SlicedLimits
from tests.contract.test_limit_store import ACME, SECOND, FakeClock, admitted, claim, slots, tokens
from tests.unit.limits.wire import Wire, grown_up, standing, ticks


def wanted(wire: Wire) -> list[int]:
    """What each message asked for ahead of its only bucket."""
    return [part.want for message in wire.messages for part in message.parts]


async def test_while_a_slice_is_renewed_the_rest_of_it_is_spent(limits: SlicedLimits, wire: Wire) -> None:
    plenty = claim(amount=100_000)
    await limits.reserve([plenty])
    wire.gate.clear()
    served = 0
    for _ in range(AHEAD):
        (await limits.reserve([plenty])).settle(Used(0))  # nobody waits: the gate is closed
        served += 1
        if len(wire.messages) == 2:
            break
        await asyncio.sleep(0)
    assert AHEAD - AHEAD // LOW < served <= AHEAD - AHEAD // LOW + 2  # asked ahead, and no sooner
    assert await admitted(limits, [plenty], AHEAD - served) == AHEAD - served
    waiting = asyncio.ensure_future(limits.reserve([plenty]))  # all is spent now
    await asyncio.sleep(0)
    assert not waiting.done()
    wire.gate.set()
    await waiting
    assert len(wire.messages) == 2  # whoever waited was served out of the renewed slice


async def test_a_busy_slice_grows_and_one_after_a_pause_is_small_again(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    plenty = [claim(amount=10_000_000)]
    while not wire.messages or wanted(wire)[-1] < MOST_AHEAD:
        await admitted(limits, plenty, 10)
        await asyncio.sleep(0)
        clock.advance(0.000_1)
    assert wanted(wire) == [AHEAD * 2**n for n in range(7)]
    clock.now_us += PAUSE_US
    await ticks(limits)
    await ticks(limits)
    await limits.reserve(plenty)
    assert wanted(wire)[-1] == AHEAD


async def test_of_a_busy_bucket_what_is_left_is_told_in_steps_of_a_part_of_a_slice(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    plenty = [claim(amount=1_000_000)]
    told: list[tuple[int, int]] = []
    while len(told) < 20 * MOST_AHEAD:
        (_, (_, remaining), _) = (await limits.reserve(plenty)).headers()
        told.append((1_000_000 - len(told) - 1, int(remaining)))
        await asyncio.sleep(0)
    slow, busy = told[: BUSY // 2], told[-2 * MOST_AHEAD :]
    assert all(said == left for left, said in slow)
    assert all(left - MOST_AHEAD // STEPS * 2 < said <= left for left, said in busy)
    assert STEPS < len({said for _, said in busy}) < 5 * STEPS


async def test_nobody_is_told_that_nothing_is_left_as_long_as_something_is(limits: SlicedLimits) -> None:
    few = [claim(amount=20_000)]
    for left in reversed(range(20_000)):
        (_, (_, remaining), _) = (await limits.reserve(few)).headers()
        assert (int(remaining) == 0) == (left == 0)
        await asyncio.sleep(0)
    assert left == 0


def test_steps_are_parts_of_a_large_slice_of_a_bucket_that_is_far_from_empty() -> None:
    for ahead, avail, left, step in (
        (BUSY, 160, 40, 10),
        (BUSY, 160, 39, 1),  # others have most of it
        (BUSY, 160, 0, 1),
        (BUSY // 2, 160, 1_000, 1),  # not asked for as often
        (BUSY, STEPS, 1_000, 1),
        (BUSY, -5, 1_000, 1),  # a debt
    ):
        bucket = Bucket(claim().quota)
        bucket.ahead, bucket.avail, bucket.left = ahead, avail, left
        bucket.lent(avail)
        assert bucket.step == step


async def test_what_was_asked_for_in_vain_does_not_grow(clock: FakeClock) -> None:
    """A store that has just begun lends nothing for a while; a slice is small when it comes all the same."""
    wire = Wire(LimitOwner(clock))
    limits = SlicedLimits("w1", wire, clock=clock)
    plenty = [claim(amount=10_000_000)]
    for _ in range(20):
        await limits.reserve(plenty)
        clock.advance(0.001)
    assert wanted(wire) == [AHEAD] * 20
    clock.advance(REBUILD_S)
    await limits.reserve(plenty)
    assert wanted(wire)[-1] == wire.answers[-1].slices[0].lent == AHEAD


async def test_a_slice_that_lasts_longer_stays_as_large(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    plenty = [claim(amount=10_000_000)]
    for _ in range(3 * AHEAD):
        clock.now_us += AGAIN_US // AHEAD * 2
        await limits.reserve(plenty)
        await asyncio.sleep(0)
    assert set(wanted(wire)) == {AHEAD}


async def test_no_more_is_wanted_than_a_workers_part(wire: Wire, clock: FakeClock) -> None:
    limits = SlicedLimits("w1", wire, workers=4, clock=clock)
    assert await admitted(limits, [claim(amount=200)], 150) == 150
    lent = [piece.lent for answer in wire.answers for piece in answer.slices]
    assert lent[0] == 199 // 8
    assert sum(lent) < 150


async def test_a_busy_bucket_says_what_was_spent_and_keeps_its_slice(limits: SlicedLimits, wire: Wire) -> None:
    plenty = [tokens(100, amount=100_000)]
    (await limits.reserve(plenty)).settle(Used(10))
    for _ in range(SLOW_TICKS):
        (await limits.reserve(plenty)).settle(Used(10))
        await limits.sync()
    [part] = wire.messages[-1].parts
    assert (part.spent, part.back) == (10 * SLOW_TICKS + 10, 0)
    before = len(wire.messages)
    await limits.reserve(plenty)
    assert len(wire.messages) == before


async def test_slots_that_nobody_needed_for_a_while_return(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    busy = [slots(40)]
    for _ in range(4 * SLOW_TICKS):
        (await limits.reserve(busy)).settle(Used(0))
        await limits.sync()
    assert 0 < (await standing(wire.owner, "at-once")).lent <= 4
    assert await admitted(SlicedLimits("w2", wire, clock=clock), busy, 99) >= 36


async def test_what_is_held_back_is_asked_for_again_when_it_is_needed(
    limits: SlicedLimits, clock: FakeClock
) -> None:
    assert await admitted(limits, [claim(amount=1_000)], 300) == 300
    await ticks(limits)
    assert await admitted(limits, [claim(amount=1_000)], 1_000) == 700


async def test_no_more_than_burst_and_what_came_in_over_any_interval(
    wire: Wire, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.limits.slices.PACE_S", 0)
    chance = random.Random(7)
    workers = [SlicedLimits(f"w{n}", wire, workers=4, clock=clock) for n in range(4)]
    wanted = claim(amount=600, burst=200, period_s=60)  # 10 a second
    log: list[int] = []
    for turn in range(4_000):
        clock.now_us += chance.choice((0, 0, 0, 1_000, 50_000, 400_000))
        if turn % 8 == 0:
            await workers[turn // 8 % 4].sync()
        try:
            hold = await chance.choice(workers).reserve([wanted])
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


async def test_the_bound_holds_through_lost_answers_dead_workers_and_new_stores(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.limits.slices.PACE_S", 0)
    chance = random.Random(3)
    owner = await grown_up(clock)
    wires = [Wire(owner) for _ in range(3)]
    workers = [SlicedLimits(f"w{n}", wire, workers=3, clock=clock) for n, wire in enumerate(wires)]
    wanted = claim(amount=600, burst=300, period_s=60)
    restarts = 0
    log: list[int] = []
    for turn in range(3_000):
        clock.now_us += chance.choice((0, 0, 1_000, 30_000, 200_000))
        number = chance.randrange(3)
        if turn % 5 == 0:
            await workers[number].sync()
        if chance.random() < 0.02:
            wires[number].lose_answers = 1
        if chance.random() < 0.003:  # dies; what it was lent is charged
            workers[number] = SlicedLimits(f"w{number}-{turn}", wires[number], workers=3, clock=clock)
        if turn in (1_000, 2_000):
            restarts += 1
            owner = LimitOwner(clock)
            for wire in wires:
                wire.owner = owner
        try:
            hold = await workers[number].reserve([wanted])
        except LimitExceededError:
            continue
        hold.settle(Used(0))
        log.append(clock.now_us)
    seconds = (log[-1] - log[0]) / SECOND
    assert restarts == 2
    assert len(log) <= 1.01 * (300 + 10 * seconds)
    assert len(log) >= 0.5 * 10 * seconds  # and something passed at all


async def test_all_of_a_bucket_can_be_spent_through_renewals(limits: SlicedLimits) -> None:
    assert await admitted(limits, [claim(amount=777)], 1_000) == 777


async def test_a_lease_is_renewed_while_something_is_in_use(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    held = await limits.reserve([slots(1)])
    for _ in range(5):
        clock.advance(LEASE_S / 2)
        await ticks(limits)
    other = SlicedLimits("w2", wire, clock=clock)
    with pytest.raises(LimitExceededError):
        await other.reserve([slots(1)])
    held.settle(Used(0))


async def test_messages_about_a_full_bucket_are_some_time_apart(
    wire: Wire, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that come in within the pause share the next."""
    monkeypatch.setattr("gateway.limits.slices.PACE_S", 0.3)
    limits = SlicedLimits("w1", wire, clock=clock)
    few = claim(amount=40)
    await asyncio.gather(*(limits.reserve([few]) for _ in range(39)))  # one is left: nothing of it is lent
    before = len(wire.messages)
    first = [asyncio.ensure_future(limits.reserve([claim(limit=f"l{n}", amount=1)])) for n in range(2)]
    await wire_quiet(wire, before + 1)
    second = [asyncio.ensure_future(limits.reserve([claim(limit=f"m{n}", amount=1)])) for n in range(2)]
    await asyncio.sleep(0)
    third = [asyncio.ensure_future(limits.reserve([claim(limit=f"n{n}", amount=1)])) for n in range(2)]
    await asyncio.gather(*first, *second, *third)
    assert len(wire.messages) == before + 2
    assert all(message.org == ACME for message in wire.messages)


async def wire_quiet(wire: Wire, messages: int) -> None:
    while len(wire.answers) < messages:
        await asyncio.sleep(0)
