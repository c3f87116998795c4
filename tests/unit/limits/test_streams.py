"""What a stream uses as it goes: charged while it runs, and ended when a limit says so."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import LimitExceededError
from gateway.exchange import Claim, Hold, Used
from gateway.limits.hold import STEP
from gateway.limits.slices import SlicedLimits
from tenants.models import LimitUnit, OnEnd, OnOutage
from tests.contract.test_limit_store import FakeClock, claim, slots
from tests.unit.limits.wire import Wire, budget, standing, ticks, used


def cut(cost: int, amount: int, on_outage: OnOutage = OnOutage.LOCAL) -> Claim:
    return budget(cost, amount, least=1, on_end=OnEnd.CUT, on_outage=on_outage)


async def stream(hold: Hold, limits: SlicedLimits, most: int, piece: int = 10) -> int:
    """Use `piece` after `piece` until it is ended, or `most` is used. Returns how much was."""
    done = 0
    while done < most:
        done += piece
        ended = hold.spending(Used(done))
        await limits.settled()
        if ended is not None:
            assert ended.quota.limit == "tokens"
            break
    hold.settle(Used(done))
    return done


async def test_what_counts_as_it_goes_is_metered(limits: SlicedLimits) -> None:
    assert (await limits.reserve([claim(), budget(10, 1_000)])).metered
    assert not (await limits.reserve([claim(), slots(5)])).metered


async def test_what_a_stream_has_used_is_charged_while_it_runs(limits: SlicedLimits, wire: Wire) -> None:
    hold = await limits.reserve([budget(100, 1_000)])
    assert hold.spending(Used(30)) is None
    assert hold.spending(Used(30)) is None
    await ticks(limits)
    assert await used(wire.owner, "tokens") == 30
    assert (await standing(wire.owner, "tokens")).open == 70
    hold.spending(Used(130))  # more than was reserved
    await ticks(limits)
    assert await used(wire.owner, "tokens") == 130
    hold.settle(Used(120))  # the provider knows better
    await ticks(limits)
    await limits.close()
    assert await used(wire.owner, "tokens") == 120


async def test_a_refund_takes_back_what_was_thought_to_be_used(limits: SlicedLimits, wire: Wire) -> None:
    hold = await limits.reserve([budget(100, 1_000)])
    hold.spending(Used(130))
    await ticks(limits)
    hold.refund()
    await ticks(limits)
    await limits.close()
    assert await used(wire.owner, "tokens") == 0


async def test_a_stream_is_cut_when_its_budget_is_gone(limits: SlicedLimits, wire: Wire) -> None:
    hold = await limits.reserve([cut(400, 100)])  # it gets what there is
    assert await stream(hold, limits, 400) == 100
    await ticks(limits)
    assert await used(wire.owner, "tokens") == 100
    with pytest.raises(LimitExceededError):
        await limits.reserve([cut(400, 100)])


async def test_a_stream_that_uses_more_than_it_reserved_gets_more(limits: SlicedLimits, wire: Wire) -> None:
    hold = await limits.reserve([cut(400, 10_000)])
    assert await stream(hold, limits, 900) == 900
    await limits.close()
    assert await used(wire.owner, "tokens") == 900


async def test_more_is_asked_for_before_it_runs_out(limits: SlicedLimits, wire: Wire, clock: FakeClock) -> None:
    first = await limits.reserve([cut(400, 800)])
    second = await limits.reserve([cut(400, 800)])
    second.settle(Used(300))  # 100 are left of it
    await ticks(limits)
    wire.gate.clear()
    wire.arrived.clear()
    assert first.spending(Used(400 - 400 // STEP // 2 - 1)) is None
    await asyncio.sleep(0)
    assert not wire.arrived.is_set()
    assert first.spending(Used(400 - 400 // STEP // 2)) is None
    await wire.arrived.wait()
    assert first.spending(Used(420)) is None  # nobody has said no yet
    wire.gate.set()
    await limits.settled()
    assert first.spending(Used(430)) is None
    assert await stream(first, limits, 900) == 500
    await limits.close()
    assert await used(wire.owner, "tokens") == 800


async def test_two_streams_share_what_is_left(limits: SlicedLimits, wire: Wire, clock: FakeClock) -> None:
    other = SlicedLimits("w2", wire, clock=clock)
    one = await limits.reserve([cut(400, 500)])
    two = await other.reserve([cut(400, 500)])
    assert tuple(await asyncio.gather(stream(one, limits, 900), stream(two, other, 900))) == (400, 100)
    await limits.close()
    await other.close()
    assert await used(wire.owner, "tokens") == 500


async def test_what_a_limit_lets_finish_is_a_debt(limits: SlicedLimits, wire: Wire) -> None:
    last = budget(400, 100, least=1, on_end=OnEnd.DENY_NEXT)
    hold = await limits.reserve([last])
    assert await stream(hold, limits, 300) == 300
    await ticks(limits)
    assert (await standing(wire.owner, "tokens")).level == -200
    with pytest.raises(LimitExceededError):
        await limits.reserve([last])


async def test_without_that_a_request_needs_all_that_it_may_use(limits: SlicedLimits) -> None:
    with pytest.raises(LimitExceededError, match="holds 100 tokens at most"):
        await limits.reserve([budget(400, 100)])


@pytest.mark.parametrize(("mode", "until"), [(OnOutage.ALLOW, 900), (OnOutage.DENY, 400)])
async def test_in_an_outage_the_limit_says_what_becomes_of_streams(
    limits: SlicedLimits, wire: Wire, mode: OnOutage, until: int
) -> None:
    hold = await limits.reserve([cut(400, 400, mode)])
    wire.down = True
    assert await stream(hold, limits, 900) == until
    wire.down = False
    await ticks(limits)
    await limits.close()
    assert await used(wire.owner, "tokens") == until


async def test_bytes_and_money_are_counted_like_tokens(limits: SlicedLimits, wire: Wire) -> None:
    bounds = [
        budget(1_000, 10_000, limit="bytes", unit=LimitUnit.BYTES),
        budget(5_000_000, 50_000_000, limit="spend", unit=LimitUnit.SPEND),
    ]
    hold = await limits.reserve(bounds)
    hold.spending(Used(1, 1, 300, 2_000_000))
    await ticks(limits)
    assert [await used(wire.owner, limit) for limit in ("bytes", "spend")] == [300, 2_000_000]
    hold.settle(Used(1, 2, 400, 3_000_000))
    await limits.close()
    assert [await used(wire.owner, limit) for limit in ("bytes", "spend")] == [400, 3_000_000]


async def test_a_hold_that_has_ended_counts_no_more(limits: SlicedLimits, wire: Wire) -> None:
    hold = await limits.reserve([budget(100, 1_000)])
    hold.settle(Used(20))
    assert hold.spending(Used(90)) is None
    await limits.close()
    assert await used(wire.owner, "tokens") == 20
