"""Slices renewed while they are spent: nobody waits at a steady rate, and the bound holds whatever is lost."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.errors import GatewayError, LimitExceededError
from gateway.exchange import Hold, Used
from gateway.limits.owner import AHEAD, LEASE_US, LimitOwner
from gateway.limits.parcel import LOW
from gateway.limits.slices import SLOW_TICKS, SlicedLimits
from tests.contract.test_limit_store import SECOND, FakeClock, admitted, claim, slots, tokens
from tests.unit.limits.test_slices import Wire, ticks


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


async def test_while_a_slice_is_renewed_the_rest_of_it_is_spent(limits: SlicedLimits, wire: Wire) -> None:
    wanted = [claim(amount=100_000), tokens(7, 1_000_000), slots(1_000)]
    (await limits.reserve(wanted)).settle(Used(7))
    wire.gate.clear()
    wire.arrived.clear()
    for _ in range(AHEAD - AHEAD // LOW + 1):
        (await limits.reserve(wanted)).settle(Used(7))
    await wire.arrived.wait()
    for _ in range(AHEAD // LOW - 1):
        (await limits.reserve(wanted)).settle(Used(7))  # would wait for ever if it asked
    assert wire.messages[-1].asks == ()
    wire.gate.set()
    while limits._asking:
        await asyncio.sleep(0)
    asked = len([message for message in wire.messages if message.asks])
    for _ in range(20_000):
        (await limits.reserve(wanted)).settle(Used(7))
        await asyncio.sleep(0)
    assert len([message for message in wire.messages if message.asks]) == asked
    assert len(wire.messages) < 60


async def test_a_busy_bucket_returns_what_came_back_and_keeps_its_slice(limits: SlicedLimits, wire: Wire) -> None:
    wanted = [tokens(10, 10_000)]
    for _ in range(5):
        (await limits.reserve(wanted)).settle(Used(4))
    for _ in range(4):
        await limits.sync()
        await limits.reserve(wanted)  # used in each tick
    await limits.sync()
    assert (wire.messages[-1].ahead[0].back, wire.messages[-1].ahead[0].more) == (30, False)
    wire.down = True
    await limits.reserve(wanted)


async def test_slots_that_nobody_needed_for_a_while_return(limits: SlicedLimits, wire: Wire) -> None:
    held = [await limits.reserve([slots(40)]) for _ in range(12)]
    for _ in range(5 * SLOW_TICKS):
        held.pop().settle(Used(0))
        held.append(await limits.reserve([slots(40)]))
        await limits.sync()
    assert len([message for message in wire.messages if message.asks]) == 1
    assert await admitted(SlicedLimits("w2", wire), [slots(40)], 99) == 40 - 12


async def test_a_bucket_that_runs_dry_is_given_up_to_those_who_are_refused(
    limits: SlicedLimits, wire: Wire
) -> None:
    other = SlicedLimits("w2", wire)
    wanted = [claim(amount=100)]
    assert await admitted(limits, wanted, 40) == 40
    passed = await admitted(other, wanted, 100)
    await limits.reserve(wanted)
    await ticks(limits)
    await ticks(other)
    assert 41 + passed + await admitted(other, wanted, 100) == 100


async def test_a_new_owner_counts_what_is_kept_as_lent(limits: SlicedLimits, wire: Wire, clock: FakeClock) -> None:
    wanted = claim(amount=200, period_s=86_400)
    await limits.reserve([wanted])  # and 64 more to spend
    wire.owner = LimitOwner(clock, boot="another")
    for _ in range(AHEAD - AHEAD // LOW + 1):
        await limits.reserve([wanted])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert wire.messages[-1].ahead
    kept = AHEAD // LOW - 1
    clock.advance(1)
    others = await admitted(SlicedLimits("w2", wire), [wanted], 300)
    wire.down = True
    mine = 0
    while True:
        try:
            await limits.reserve([wanted])
        except GatewayError:
            break
        mine += 1
    assert mine >= kept
    assert mine + others <= 200


@pytest.mark.parametrize("seed", range(6))
async def test_no_more_than_burst_and_what_came_in_whatever_is_lost(
    owner: LimitOwner, clock: FakeClock, seed: int
) -> None:
    chance = random.Random(seed)
    wires = [Wire(owner) for _ in range(3)]
    workers = [SlicedLimits(f"w{n}", wire) for n, wire in enumerate(wires)]
    wanted = claim(amount=12_000, burst=4_000, period_s=60)  # 200 a second
    log: list[int] = []
    held: list[Hold] = []
    for step in range(12_000):
        clock.now_us += chance.choice((0, 0, 100, 2_000, 9_000))
        number = min(chance.randrange(4), 2)
        if chance.random() < 0.01:
            wires[number].lose_answers = chance.choice((0, 1, 2))
        if chance.random() < 0.005:
            wires[number].down = not wires[number].down
        if chance.random() < 0.02:
            await workers[number].sync()
        if step % 3_000 == 2_999:  # one dies, another takes its place
            owner.left(f"w{number}")
            clock.now_us += LEASE_US
            workers[number] = SlicedLimits(f"w{number}", wires[number])
            held.clear()
        if chance.random() < 0.2:
            await asyncio.sleep(0)
        try:
            hold = await workers[number].reserve([wanted])
        except GatewayError:
            continue
        if chance.random() < 0.1:
            hold.refund()
        else:
            log.append(clock.now_us)
    assert len(log) > 4_000
    for i in range(0, len(log), 37):
        for j in range(i, len(log), 37):
            assert j - i + 1 <= 4_000 + (log[j] - log[i]) * 200 // SECOND + 1


async def test_all_of_a_bucket_can_be_spent_through_renewals(limits: SlicedLimits) -> None:
    wanted = [claim(amount=50_000, period_s=86_400)]
    passed = 0
    for tries in range(50_100):
        try:
            await limits.reserve(wanted)
        except LimitExceededError:
            continue
        passed += 1
        if tries % 50 == 0:
            await asyncio.sleep(0)
    assert passed == 50_000
