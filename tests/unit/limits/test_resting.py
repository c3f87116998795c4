"""What a worker remembers of buckets of which nothing is here any more, for a store that forgets."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import LimitExceededError
from gateway.limits import holdings, slices
from gateway.limits.accounts import LimitOwner
from gateway.limits.book import written
from gateway.limits.protocol import LEASE_S
from gateway.limits.session import IDLE_TICKS
from gateway.limits.slices import SLOW_TICKS, TICK_S, SlicedLimits
from tenants.ids import OrgId
from tests.contract.test_limit_store import ACME, FakeClock, admitted, claim
from tests.unit.limits.wire import Wire

DAY_S = 86_400
DAILY = claim(limit="daily", amount=5, period_s=DAY_S)


async def idle(limits: SlicedLimits, clock: FakeClock, seconds: float) -> None:
    """Long enough to settle down, and then as long as it takes."""
    for _ in range(IDLE_TICKS + 2 * SLOW_TICKS):
        clock.advance(TICK_S)
        await limits.sync()
    clock.advance(seconds)
    for _ in range(SLOW_TICKS):
        await limits.sync()


async def test_a_daily_rate_that_is_used_up_is_so_in_a_store_that_came_back_empty(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    assert await admitted(limits, [DAILY], 8) == 5
    await idle(limits, clock, 75)
    assert await admitted(limits, [DAILY], 1) == 0
    await idle(limits, clock, 75)
    wire.owner = LimitOwner(clock)
    clock.advance(LEASE_S)
    assert await admitted(limits, [DAILY], 10) == 0
    await idle(limits, clock, 6 * 3_600)
    wire.owner = LimitOwner(clock)
    assert await admitted(limits, [DAILY], 10) == 1  # what has come in since, and no more
    with pytest.raises(LimitExceededError) as refusal:
        await limits.reserve([DAILY])
    assert 0 < (refusal.value.retry_after_s or 0) <= DAY_S / 5


async def test_what_is_only_remembered_costs_no_message(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    assert await admitted(limits, [DAILY], 5) == 5
    await idle(limits, clock, 0)
    before = len(wire.messages)
    for _ in range(10):
        await idle(limits, clock, 3_600)
    assert len(wire.messages) == before
    assert await admitted(limits, [DAILY], 9) == 2  # ten hours of the day have come in


async def test_it_has_no_place_in_the_book_and_is_no_work_of_each_tick(
    wire: Wire, clock: FakeClock, tmp_path: Path
) -> None:
    limits = SlicedLimits("w1", wire, clock=clock, folder=tmp_path)
    assert await admitted(limits, [DAILY], 5) == 5
    await idle(limits, clock, 0)
    assert list(written((tmp_path / "w1").read_bytes())) == []
    assert (limits._sessions, list(limits._asleep)) == ({}, [ACME])
    assert await admitted(limits, [DAILY], 1) == 0
    [found] = written((tmp_path / "w1").read_bytes())
    assert found.line.session
    assert (list(limits._sessions), limits._asleep) == ([ACME], {})
    await idle(limits, clock, 0)
    await limits.close()
    assert not list(tmp_path.iterdir())


async def test_it_is_forgotten_when_it_has_refilled(limits: SlicedLimits, clock: FakeClock) -> None:
    await admitted(limits, [DAILY], 5)
    await idle(limits, clock, DAY_S / 2)
    assert len(limits._asleep) == 1
    await idle(limits, clock, DAY_S / 2)
    assert (limits._asleep, limits._remembered) == ({}, 0)


async def test_no_rate_is_remembered_for_longer_than_a_day(limits: SlicedLimits, clock: FakeClock) -> None:
    monthly = claim(limit="monthly", amount=5, period_s=30 * DAY_S)
    await admitted(limits, [monthly], 5)
    await idle(limits, clock, DAY_S)
    assert limits._asleep == {}


async def test_of_too_many_those_that_refill_soonest_are_forgotten(
    limits: SlicedLimits, wire: Wire, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "MOST_RESTING", 4)
    daily = [claim(limit=f"l{number}", amount=5, period_s=DAY_S) for number in range(6)]
    for number, each in enumerate(daily):
        await admitted(limits, [each], 5 - number % 2)  # of every other one, one is left
    await idle(limits, clock, 0)
    resting = {bucket.quota.limit for bucket, _ in limits._asleep[ACME].resting.values()}
    assert {"l0", "l2", "l4"} <= resting <= {"l0", "l1", "l2", "l3", "l4", "l5"}
    assert len(limits._asleep[ACME].resting) == 4


async def test_of_too_many_accounts_some_are_forgotten(
    limits: SlicedLimits, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "MOST_ASLEEP", 3)
    for number in range(5):
        await admitted(limits, [claim(org=OrgId(f"org-{number}"), amount=5, period_s=DAY_S)], 5)
    await idle(limits, clock, 0)
    assert len(limits._asleep) == limits._remembered == 3


async def test_a_reset_is_not_undone_by_what_was_remembered(clock: FakeClock) -> None:
    """The owner forgets an account in which everything is as new, and has lost nothing by that."""
    wire = Wire(LimitOwner(clock))
    limits = SlicedLimits("w1", wire, clock=clock)
    assert await admitted(limits, [DAILY], 5) == 5
    await idle(limits, clock, 75)
    await wire.owner.reset(ACME, "daily")
    clock.advance(LEASE_S)
    for _ in range(9):  # others speak, and the owner looks at what it can forget
        await SlicedLimits("w2", wire, clock=clock).reserve([claim(org=OrgId("other"))])
    assert ACME not in wire.owner._accounts
    assert await admitted(limits, [DAILY], 9) == 5
