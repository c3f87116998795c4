"""Slices when something goes wrong: lost answers, cancelled callers, restarted stores, sessions that ran out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import pytest

from gateway.errors import LimitExceededError, UnavailableError
from gateway.exchange import Claim, Used
from gateway.limits.accounts import LimitOwner
from gateway.limits.local import Bucket
from gateway.limits.memory import MemoryLimits
from gateway.limits.protocol import LEASE_S, SliceAnswer, SliceAsk
from gateway.limits.session import IDLE_TICKS, WISHES
from gateway.limits.slices import UNKNOWN, SlicedLimits, _Waiter
from gateway.quota import Quota
from tenants.ids import PLATFORM
from tenants.models import LimitUnit
from tests.contract.test_limit_store import ACME, OTHER, FakeClock, Turns, admitted, claim, slots, tokens
from tests.unit.limits.wire import Wire, budget, standing, ticks, used


def another(wire: Wire, clock: FakeClock) -> SlicedLimits:
    return SlicedLimits("w2", wire, clock=clock)


async def test_most_requests_need_no_message(limits: SlicedLimits, wire: Wire) -> None:
    assert await admitted(limits, [claim(amount=1_000)], 1_000) == 1_000
    assert len(wire.messages) < 100


async def test_requests_at_once_share_a_message(limits: SlicedLimits, wire: Wire) -> None:
    await asyncio.gather(*(limits.reserve([claim(amount=100)]) for _ in range(50)))
    assert len(wire.messages) == 1


async def test_a_message_asks_for_so_much_and_the_rest_comes_in_the_next(limits: SlicedLimits, wire: Wire) -> None:
    names = [f"l{number}" for number in range(20)]
    asked = [[budget(1, 9, limit=f"{name}-{who}") for name in names] for who in range(60)]
    await asyncio.gather(*(limits.reserve(claims) for claims in asked))
    sizes = [sum(map(len, message.requests)) for message in wire.messages]
    assert sum(sizes) == 20 * 60
    assert max(sizes) < WISHES + 20
    assert len(sizes) == 3


async def test_a_full_bucket_costs_no_message_for_each_who_is_refused(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    wanted = [claim(amount=3)]
    assert await admitted(limits, wanted, 4) == 3
    before = len(wire.messages)
    assert await admitted(limits, wanted, 50) == 0
    assert len(wire.messages) == before
    clock.advance(0.03)  # what others gave back may be there by now
    assert await admitted(limits, wanted, 50) == 0
    assert len(wire.messages) == before + 1


async def test_who_wants_more_than_was_refused_is_told_to_wait_longer(limits: SlicedLimits, wire: Wire) -> None:
    await limits.reserve([tokens(1_000)])
    waits = []
    for cost in (10, 100):
        with pytest.raises(LimitExceededError) as refusal:
            await limits.reserve([tokens(cost)])
        waits.append(refusal.value.retry_after_s)
    assert waits == [2, 8]  # as long as it takes to come in, once it is known what the first has used
    assert len(wire.messages) == 2  # the second refusal followed from the first


async def test_what_comes_back_here_is_there_at_once(limits: SlicedLimits) -> None:
    wanted = [tokens(600)]
    first = await limits.reserve(wanted)
    with pytest.raises(LimitExceededError):
        await limits.reserve(wanted)
    first.refund()
    await limits.reserve(wanted)


async def test_an_unused_slice_returns(limits: SlicedLimits, wire: Wire, clock: FakeClock) -> None:
    await limits.reserve([claim(amount=100)])
    await ticks(limits)
    assert await admitted(another(wire, clock), [claim(amount=100)], 200) == 99


async def test_closing_returns_everything_and_refuses_from_then_on(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    open_still = await limits.reserve([claim(amount=100), slots(5), tokens(10)])
    await limits.close()
    open_still.settle(Used(7))  # not told any more
    assert await admitted(another(wire, clock), [claim(amount=100)], 200) == 99
    assert await admitted(another(wire, clock), [slots(5)], 10) == 5
    with pytest.raises(UnavailableError):
        await limits.reserve([claim(amount=100)])


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_an_answer_that_is_lost_comes_again(limits: SlicedLimits, wire: Wire, lost: int) -> None:
    wanted = [budget(1, 40, limit="a"), slots(30), budget(10, 10_000, limit="b")]
    passed = await admitted(limits, wanted, 5)
    wire.lose_answers = lost
    passed += await admitted(limits, wanted, 3)
    await ticks(limits)
    assert wire.lose_answers == 0
    await limits.close()
    for limit in ("a", "b"):
        found = await standing(wire.owner, limit)
        assert (found.level, found.lent) == (found.amount, 0)  # nothing was settled: all is back
    assert passed == 8


async def test_a_message_is_sent_again_word_for_word(limits: SlicedLimits, wire: Wire) -> None:
    await limits.reserve([claim(amount=100)])
    wire.lose_answers = 2
    await ticks(limits)
    await ticks(limits)
    lost, *again = [message for message in wire.messages if message.seq == 2]
    assert again == [lost, lost]
    await limits.reserve([claim(limit="other")])
    assert wire.messages[-1].seq == 3


async def test_a_lost_first_answer_opens_one_session(limits: SlicedLimits, wire: Wire) -> None:
    wire.lose_answers = 1
    held = await limits.reserve([slots(4)])
    await ticks(limits)
    assert (await standing(wire.owner, "at-once")).sessions == 1
    held.settle(Used(0))
    await ticks(limits)
    assert await admitted(limits, [slots(4)], 10) == 4


async def test_a_silent_workers_slice_is_charged_and_its_slots_come_free(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    wanted = [budget(1, 100), slots(2)]
    await limits.reserve(wanted)
    await limits.reserve(wanted)
    other = another(wire, clock)
    with pytest.raises(LimitExceededError):
        await other.reserve([slots(2)])
    clock.advance(LEASE_S)
    assert await admitted(other, [slots(2)], 5) == 2
    assert 50 <= await used(wire.owner, "tokens") < 60


async def test_a_worker_taken_for_dead_takes_its_slots_again(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    held = [await limits.reserve([slots(3)]) for _ in range(2)]
    clock.advance(LEASE_S)
    other = another(wire, clock)
    await other.reserve([claim()])  # its session is over now
    await ticks(limits)
    assert await admitted(other, [slots(3)], 5) == 1
    held[0].settle(Used(0))
    await ticks(limits)
    clock.advance(0.1)
    assert await admitted(other, [slots(3)], 5) == 1


async def test_what_is_used_after_the_lease_ran_out_is_a_debt(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    wanted = [budget(300, 1_000)]
    early, late = await limits.reserve(wanted), await limits.reserve(wanted)
    await ticks(limits)  # both are known to be open
    early.settle(Used(200))
    clock.advance(LEASE_S)
    await ticks(limits)
    assert await used(wire.owner, "tokens") == 200
    late.settle(Used(120))
    await ticks(limits)
    await limits.close()
    assert await used(wire.owner, "tokens") == 320


async def test_a_refund_after_the_lease_ran_out_is_made(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    wanted = [budget(1, 100, unit=LimitUnit.REQUESTS)]
    hold = await limits.reserve(wanted)
    await ticks(limits)
    await ticks(limits)
    clock.advance(LEASE_S)
    await ticks(limits)
    assert await used(wire.owner, "tokens") == 1
    hold.refund()
    await ticks(limits)
    assert await used(wire.owner, "tokens") == 0


async def test_a_store_that_lost_everything_is_told_what_is_held(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    wanted = [slots(4), budget(100, 10_000)]
    held = [await limits.reserve(wanted) for _ in range(3)]
    await ticks(limits)
    held[0].settle(Used(40))
    wire.owner = LimitOwner(clock)
    assert await admitted(limits, [slots(4)], 5) == 2
    assert (await standing(wire.owner, "at-once")).level <= 0
    await ticks(limits)
    assert await used(wire.owner, "tokens") == 40
    for hold in held[1:]:
        hold.settle(Used(10))
    await limits.close()
    assert await used(wire.owner, "tokens") == 60


async def test_a_caller_that_goes_away_while_the_store_is_asked_costs_nothing(
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
    waiting = asyncio.ensure_future(limits.reserve([claim(amount=1), slots(1)]))
    granted = _Waiter.granted

    def grant_and_cancel(waiter: _Waiter, buckets: Sequence[Bucket], units: Sequence[int]) -> None:
        granted(waiter, buckets, units)
        waiting.cancel()  # granted, and its task has not run yet

    monkeypatch.setattr(_Waiter, "granted", grant_and_cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    monkeypatch.undo()
    await ticks(limits)
    await limits.reserve([claim(amount=1), slots(1)])


async def test_a_caller_that_goes_away_between_two_accounts_gives_the_first_back(
    limits: SlicedLimits, wire: Wire
) -> None:
    shared = claim(org=PLATFORM, limit="origin", amount=1)
    await limits.reserve([claim(amount=2)])
    await limits.settled()
    wire.gate.clear()
    waiting = asyncio.ensure_future(limits.reserve([claim(amount=2), shared]))
    await wire.arrived.wait()
    wire.gate.set()
    while len(wire.messages) < 2 or wire.messages[-1].org != PLATFORM:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await ticks(limits)
    await limits.reserve([claim(amount=2), shared])


async def test_shared_buckets_are_asked_apart_and_the_own_given_back_when_they_refuse(
    limits: SlicedLimits, wire: Wire
) -> None:
    own, shared = budget(1, 10, unit=LimitUnit.REQUESTS), slots(2, org=PLATFORM, limit="gpu")
    held = [await limits.reserve([own, shared]) for _ in range(2)]
    with pytest.raises(LimitExceededError) as refusal:
        await limits.reserve([own, shared])
    assert refusal.value.limit == "gpu"
    assert {message.org for message in wire.messages} == {ACME, PLATFORM}
    for hold in held:
        hold.settle(Used(0))
    await ticks(limits)
    await limits.close()
    assert await used(wire.owner, "tokens") == 2


async def test_who_is_refused_by_its_own_limit_takes_nothing_of_what_is_shared(
    wire: Wire, clock: FakeClock
) -> None:
    """Others have the shared slots to themselves, and who is refused is told of the limit that refuses."""
    workers = Turns([SlicedLimits(f"w{number}", wire, workers=2, clock=clock) for number in range(2)])
    gpu = slots(2, org=PLATFORM, limit="gpu")
    acme, globex = claim(amount=1, limit="acme"), claim(amount=1_000, limit="globex", org=OTHER)
    assert await admitted(workers, [acme], 3) == 1

    async def ask() -> set[str]:
        told = set()
        for _ in range(20):
            clock.advance(0.03)  # what is known of a refusal here is too old
            with pytest.raises(LimitExceededError) as refusal:
                await workers.reserve([acme, gpu])
            told.add(refusal.value.limit)
        return told

    async def serve() -> int:
        passed = 0
        for _ in range(60):
            hold = await workers.reserve([globex, gpu])
            await asyncio.sleep(0)
            hold.settle(Used(0))
            passed += 1
        return passed

    assert await asyncio.gather(*(ask() for _ in range(6))) == [{"acme"}] * 6
    assert {message.org for message in wire.messages} == {ACME}
    *told, passed = await asyncio.gather(*(ask() for _ in range(6)), serve())
    assert (told, passed) == ([{"acme"}] * 6, 60)


async def test_a_fault_of_the_store_leaves_nobody_waiting(
    limits: SlicedLimits, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: SliceAsk) -> SliceAnswer:
        raise KeyError

    monkeypatch.setattr(wire.owner, "answer", broken)
    await limits.reserve([claim()])  # by this worker alone
    assert limits.away
    monkeypatch.undo()
    await limits.sync()
    assert not limits.away


async def test_an_answer_to_something_else_is_no_answer(
    limits: SlicedLimits, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire.owner, "answer", lambda _: SliceAnswer("s", "e", 1))
    await limits.reserve([claim()])
    assert limits.away


async def test_a_store_that_knows_no_session_is_asked_a_few_times_only(
    limits: SlicedLimits, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire.owner, "answer", lambda _: SliceAnswer("", "e", 1, known=False))
    await limits.reserve([claim()])
    assert limits.away
    assert len(wire.messages) == UNKNOWN + 1
    monkeypatch.undo()
    await limits.sync()
    assert await admitted(limits, [claim(amount=10)], 20) == 9


async def test_a_limit_that_becomes_one_of_another_unit_begins_anew(limits: SlicedLimits) -> None:
    before, after = slots(2), claim(limit="at-once", amount=5)
    held = [await limits.reserve([before]) for _ in range(2)]
    assert await admitted(limits, [after], 9) == 5
    for hold in held:
        hold.settle(Used(0))  # the slots' bucket is no more
    await ticks(limits)
    assert await admitted(limits, [after], 9) == 0
    assert await admitted(limits, [before], 9) == 2


async def test_what_is_open_of_the_unit_before_settles_into_the_bucket_of_that_unit(
    limits: SlicedLimits, wire: Wire
) -> None:
    held = [await limits.reserve([budget(400, 1_000, limit="same", unit=LimitUnit.BYTES)]) for _ in range(2)]
    assert await admitted(limits, [budget(1, 1_000, limit="same", unit=LimitUnit.REQUESTS)], 700) == 700
    held[0].settle(Used(bytes=900))
    await ticks(limits)
    await ticks(limits)
    held[1].settle(Used(bytes=50))
    await ticks(limits)
    assert await admitted(limits, [budget(1, 1_000, limit="same", unit=LimitUnit.REQUESTS)], 700) == 300
    await limits.close()
    found = {one.unit: one.used for one in await wire.owner.usage(ACME) if one.limit == "same"}
    assert found == {LimitUnit.BYTES: 950, LimitUnit.REQUESTS: 1_000}


async def test_a_new_window_is_another_bucket(limits: SlicedLimits, wire: Wire, clock: FakeClock) -> None:
    def of(window: int) -> Claim:
        return Claim(
            Quota(
                ACME, "monthly", "org", "", LimitUnit.TOKENS, 100, 100, 0, window * 1_000, window * 1_000 + 1_000
            ),
            10,
        )

    held = await limits.reserve([of(1)])
    assert await admitted(limits, [of(1)], 20) == 9
    assert await admitted(limits, [of(2)], 20) == 10
    held.settle(Used(4))  # of the window in which it began
    await ticks(limits)
    await ticks(limits)
    found = {each.starts_s: each for each in await wire.owner.usage(ACME) if each.limit == "monthly"}
    assert {starts: (each.level, each.lent) for starts, each in found.items()} == {1_000: (6, 90), 2_000: (0, 100)}


async def test_a_refund_does_not_outlast_the_refill_of_its_bucket(limits: SlicedLimits, clock: FakeClock) -> None:
    hold = await limits.reserve([claim(amount=10)])
    await ticks(limits)
    clock.advance(60)  # full again at the owner
    hold.refund()
    await ticks(limits)
    assert await admitted(limits, [claim(amount=10)], 20) == 10


async def test_what_is_not_used_returns_by_itself(
    limits: SlicedLimits, wire: Wire, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.limits.slices.TICK_S", 0)
    await limits.reserve([claim(amount=100)])
    running = asyncio.ensure_future(limits.run())
    async with asyncio.timeout(60):
        while (await standing(wire.owner, "per-minute")).lent:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await admitted(another(wire, clock), [claim(amount=100)], 200) == 99


async def test_closing_waits_for_what_is_asked(limits: SlicedLimits, wire: Wire, clock: FakeClock) -> None:
    (await limits.reserve([slots(2)])).settle(Used(0))  # a message about it would follow soon
    wire.gate.clear()
    wire.arrived.clear()
    waiting = asyncio.ensure_future(limits.reserve([claim(amount=2)]))
    await wire.arrived.wait()
    closing = asyncio.ensure_future(limits.close())
    wire.gate.set()
    await asyncio.gather(waiting, closing)
    assert await admitted(another(wire, clock), [slots(2)], 5) == 2


async def test_what_is_idle_is_forgotten_everywhere(clock: FakeClock, limits: SlicedLimits, wire: Wire) -> None:
    memory = MemoryLimits(clock)
    for number in range(200):
        clock.advance(61)
        wanted: list[Claim] = [claim(subject=f"mem_{number}"), tokens(5), slots(3)]
        for store in (memory, limits):
            (await store.reserve(wanted)).settle(Used(5))
        await ticks(limits)
    assert len(memory) < 10
    assert len(wire.owner) < 10
    assert len(limits._buckets) < 10
    clock.advance(61)  # what is known of it is no use to anybody any more
    for _ in range(3 * IDLE_TICKS):
        await limits.sync()
    assert not limits._buckets
    assert not limits._sessions
    assert wire.messages[-1].close


async def test_what_is_counted_says_who_refused(limits: SlicedLimits) -> None:
    assert await admitted(limits, [claim(amount=2)], 5) == 2
    counted = {(name, labels): value for name, labels, value in limits.counted()}
    assert counted["orgate_limit_refusals_total", (ACME, "store")] == 1
    assert counted["orgate_limit_refusals_total", (ACME, "worker")] == 2
    assert counted["orgate_limit_messages_total", (ACME,)] >= 1
    assert not limits.counted()
    assert limits.gauges() == (("orgate_limit_accounts_away", (), 0),)


async def test_a_refusal_leaves_nothing_for_the_collector(limits: SlicedLimits, clock: FakeClock) -> None:
    """An organization at ten times its limit would else stop everybody once a second."""
    wanted = [claim(amount=1)]
    assert await admitted(limits, wanted, 1) == 1

    def refusals() -> int:
        return sum(type(one) is LimitExceededError for one in gc.get_objects())

    gc.collect()
    gc.disable()
    before = refusals()  # other tests may have kept theirs
    try:
        for _ in range(3):
            clock.advance(0.03)  # so that the store is asked, and not what is known of it
            assert await admitted(limits, wanted, 1) == 0
        assert refusals() <= before + 1  # the last one is still known here
    finally:
        gc.enable()
