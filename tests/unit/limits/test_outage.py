"""A store that cannot be asked: what each limit says of that holds, and is reconciled afterwards."""

from __future__ import annotations

import asyncio
import logging

import pytest
from msgspec.structs import replace

from gateway.errors import LimitExceededError, UnavailableError
from gateway.exchange import Claim, Used
from gateway.limits.accounts import LimitOwner
from gateway.limits.protocol import LEASE_S
from gateway.limits.slices import SlicedLimits
from tenants.ids import PLATFORM
from tenants.models import LimitUnit, OnOutage
from tests.contract.test_limit_store import ACME, OTHER, FakeClock, admitted, claim, slots, tokens
from tests.unit.limits.wire import Wire, budget, standing, ticks, used


@pytest.fixture
def limits(wire: Wire, clock: FakeClock) -> SlicedLimits:
    """One of four."""
    return SlicedLimits("w1", wire, workers=4, clock=clock)


def says(mode: OnOutage, of: Claim) -> Claim:
    return replace(of, quota=replace(of.quota, on_outage=mode))


def away(limits: SlicedLimits) -> float:
    """Accounts whose store cannot be asked."""
    [(_, _, value)] = limits.gauges()
    return value


async def down(wire: Wire, limits: SlicedLimits) -> None:
    """The store is away, and this worker knows it of the account."""
    wire.down = True
    await limits.reserve([says(OnOutage.ALLOW, claim(limit="probe"))])
    assert limits.away


async def test_a_share_of_the_limit_holds(limits: SlicedLimits, wire: Wire, clock: FakeClock) -> None:
    await down(wire, limits)
    minute = [claim(amount=120)]  # 2 a second; a quarter of it here
    assert await admitted(limits, minute, 99) == 30
    with pytest.raises(LimitExceededError) as refusal:
        await limits.reserve(minute)
    assert refusal.value.retry_after_s == 2
    clock.advance(2)
    assert await admitted(limits, minute, 99) == 1
    clock.advance(20)
    assert await admitted(limits, minute, 99) == 10


async def test_the_share_begins_with_what_was_left(limits: SlicedLimits, wire: Wire, clock: FakeClock) -> None:
    minute = [claim(amount=120)]
    other = SlicedLimits("w2", wire, workers=4, clock=clock)
    assert await admitted(other, minute, 80) == 80
    await ticks(other)
    await ticks(other)
    (await limits.reserve(minute)).settle(Used(0))
    await ticks(limits)
    await ticks(limits)
    await down(wire, limits)
    assert await admitted(limits, minute, 99) == (120 - 81) // 4


async def test_slices_are_spent_before_that(limits: SlicedLimits, wire: Wire) -> None:
    minute = [claim(amount=800)]
    (await limits.reserve(minute)).settle(Used(0))
    lent = (await standing(wire.owner, "per-minute")).lent - 1
    assert lent > 0
    wire.down = True
    assert await admitted(limits, minute, 999) == lent + (799 - lent) // 4


async def test_deny_says_503_and_the_limits_name(limits: SlicedLimits, wire: Wire) -> None:
    wire.down = True
    with pytest.raises(UnavailableError, match="'per-minute'") as refusal:
        await limits.reserve([claim(limit="other", amount=4), says(OnOutage.DENY, claim())])
    assert refusal.value.retry_after_s == 1
    assert await admitted(limits, [claim(limit="other", amount=4)], 9) == 1  # nothing of it was taken


async def test_allow_lets_everything_pass_and_charges_it_afterwards(limits: SlicedLimits, wire: Wire) -> None:
    wire.down = True
    month = [budget(100, 1_000, on_outage=OnOutage.ALLOW)]
    for _ in range(20):
        (await limits.reserve(month)).settle(Used(90))
    wire.down = False
    await ticks(limits)
    await limits.close()
    assert await used(wire.owner, "tokens") == 20 * 90
    assert (await standing(wire.owner, "tokens")).level == 1_000 - 20 * 90


async def test_of_a_budget_the_share_of_what_was_left_holds(limits: SlicedLimits, wire: Wire) -> None:
    month = [budget(100, 10_000)]
    (await limits.reserve(month)).settle(Used(2_000))
    await ticks(limits)
    await ticks(limits)
    await down(wire, limits)
    assert await admitted(limits, month, 99) == 20  # of 8,000 a quarter
    wire.down = False


async def test_slots_are_shared_too(limits: SlicedLimits, wire: Wire) -> None:
    wire.down = True
    held = [await limits.reserve([slots(12)]) for _ in range(3)]
    with pytest.raises(LimitExceededError):
        await limits.reserve([slots(12)])
    held.pop().settle(Used(0))
    held.append(await limits.reserve([slots(12)]))
    assert await admitted(limits, [says(OnOutage.ALLOW, slots(12))], 9) == 9
    wire.down = False
    await ticks(limits)
    assert (await standing(wire.owner, "at-once")).lent == 12  # those in use are taken there
    for hold in held:
        hold.settle(Used(0))
    await ticks(limits)
    assert (await standing(wire.owner, "at-once")).lent == 9


async def test_what_was_spent_is_owed_afterwards(limits: SlicedLimits, wire: Wire, clock: FakeClock) -> None:
    wire.down = True
    minute = [claim(amount=120)]
    assert await admitted(limits, minute, 99) == 30
    wire.down = False
    await ticks(limits)
    await limits.close()
    assert (await standing(wire.owner, "per-minute")).level == 90


async def test_what_came_in_meanwhile_is_not(limits: SlicedLimits, wire: Wire, clock: FakeClock) -> None:
    wire.down = True
    minute = [claim(amount=120)]
    for _ in range(10):  # for ten minutes, all that the share gives
        await admitted(limits, minute, 99)
        clock.advance(60)
    clock.advance(-10)
    wire.down = False
    await ticks(limits)
    await limits.close()
    level = (await standing(wire.owner, "per-minute")).level
    assert level == 120 - (30 - 25)  # fifty seconds after the last thirty


async def test_a_request_larger_than_a_share_passes_when_the_share_is_full(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    wire.down = True
    large = [tokens(900, amount=1_200)]  # a share holds 300
    (await limits.reserve(large)).settle(Used(900))
    with pytest.raises(LimitExceededError) as refusal:
        await limits.reserve(large)
    assert refusal.value.retry_after_s == 180  # 600 of debt and 300 more, at 5 a second
    clock.advance(180)
    await limits.reserve(large)


async def test_what_is_given_back_is_there_again(limits: SlicedLimits, wire: Wire) -> None:
    wire.down = True
    part = [tokens(300, amount=1_200)]
    for _ in range(3):
        (await limits.reserve(part)).refund()
    (await limits.reserve(part)).settle(Used(100))
    await limits.reserve([tokens(200, amount=1_200)])
    with pytest.raises(LimitExceededError):
        await limits.reserve([tokens(1, amount=1_200)])


async def test_a_late_answer_that_grants_is_given_back(limits: SlicedLimits, wire: Wire) -> None:
    """The request was decided without it: it is not charged twice."""
    wire.lose_answers = 1
    month = budget(100, 1_000, on_outage=OnOutage.ALLOW)
    hold = await limits.reserve([month])
    assert away(limits) == 1
    await limits.sync()
    assert away(limits) == 0
    hold.settle(Used(70))
    await ticks(limits)
    await limits.close()
    assert await used(wire.owner, "tokens") == 70


async def test_after_a_long_outage_the_lease_is_over_and_nothing_is_charged_twice(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    month = [budget(10, 1_000_000, on_outage=OnOutage.ALLOW)]
    open_still = await limits.reserve(month)
    (await limits.reserve(month)).settle(Used(4))
    await ticks(limits)
    lent = (await standing(wire.owner, "tokens")).lent - 10
    wire.down = True
    for _ in range(500):
        (await limits.reserve(month)).settle(Used(10))
    await ticks(limits)
    clock.advance(2 * LEASE_S)
    wire.down = False
    await ticks(limits)
    open_still.settle(Used(7))
    await ticks(limits)
    await limits.close()
    assert lent < 500 * 10
    assert await used(wire.owner, "tokens") == 4 + 500 * 10 + 7


async def test_a_store_that_comes_back_empty_knows_what_was_spent_without_it(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    month = [budget(10, 1_000, on_outage=OnOutage.ALLOW)]
    (await limits.reserve(month)).settle(Used(10))
    await ticks(limits)
    wire.down = True
    for _ in range(20):
        (await limits.reserve(month)).settle(Used(10))
    await ticks(limits)
    clock.advance(5)
    wire.owner = LimitOwner(clock)
    wire.down = False
    await ticks(limits)
    await limits.close()
    assert await used(wire.owner, "tokens") == 210


async def test_one_line_is_logged_of_each_change(
    limits: SlicedLimits, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="orgate.limits")
    wire.down = True
    for org in (ACME, OTHER):
        await admitted(limits, [claim(org=org, amount=100)], 50)
    await ticks(limits)
    assert away(limits) == 2
    wire.down = False
    await ticks(limits)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "nobody there" in caplog.text
    assert away(limits) == 0


async def test_the_store_is_looked_for_once_a_tick_whatever_the_requests(limits: SlicedLimits, wire: Wire) -> None:
    tried = 0
    ask = wire.ask

    class Counting:
        async def ask(self, message):  # type: ignore[no-untyped-def]
            nonlocal tried
            tried += 1
            return await ask(message)

    limits._store = Counting()
    wire.down = True
    for org in (ACME, OTHER):
        await admitted(limits, [claim(org=org, amount=100)], 50)
    assert tried == 2
    for _ in range(6):
        await limits.sync()
    assert tried == 8
    wire.down = False
    await limits.sync()
    assert not limits.away  # one found it, and the other was told


async def test_nobody_waits_for_a_store_that_is_known_to_be_away(limits: SlicedLimits, wire: Wire) -> None:
    await down(wire, limits)
    wire.down = False
    wire.gate.clear()  # it hangs now
    probing = asyncio.ensure_future(limits.sync())
    await wire.arrived.wait()
    assert await admitted(limits, [claim(amount=40)], 99) == 10
    wire.gate.set()
    await probing
    assert not limits.away


async def test_a_worker_denies_when_the_platform_says_so(limits: SlicedLimits, wire: Wire) -> None:
    wire.down = True
    own = says(OnOutage.DENY, claim(limit="own"))
    with pytest.raises(UnavailableError):
        await limits.reserve([own])
    assert limits.away
    assert not limits.denying  # that is one organization's wish
    with pytest.raises(UnavailableError):
        await limits.reserve([says(OnOutage.DENY, claim(limit="platform/fair-use"))])
    assert limits.denying


async def test_shared_buckets_have_an_outage_of_their_own(limits: SlicedLimits, wire: Wire) -> None:
    wire.down = True
    origin = claim(org=PLATFORM, limit="origin", amount=8, unit=LimitUnit.REQUESTS)
    assert await admitted(limits, [claim(amount=100), origin], 9) == 2
    assert await admitted(limits, [claim(amount=100)], 99) == 25 - 2


async def test_a_limit_that_is_changed_meanwhile_has_another_share(limits: SlicedLimits, wire: Wire) -> None:
    wire.down = True
    assert await admitted(limits, [claim(amount=40)], 99) == 10
    assert await admitted(limits, [claim(amount=80)], 99) == 20
