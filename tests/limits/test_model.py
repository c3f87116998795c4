"""The exact model is held against the gateway's own bucket in one process; they share no code."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import LimitExceededError
from gateway.exchange import Claim, Hold, Used
from gateway.limits.memory import MemoryLimits
from gateway.quota import Quota
from tenants.models import LimitUnit
from tests.limits.model import Exact, Watched
from tests.limits.plan import ORG, SECOND_US, Bound

STEPS = st.lists(st.tuples(st.integers(0, 3 * SECOND_US), st.integers(1, 40), st.integers(0, 60)), max_size=40)


def claim(bound: Bound, cost: int) -> Claim:
    return Claim(Quota(ORG, bound.limit, "org", "", bound.unit, bound.amount, bound.burst, bound.period_s), cost)


@given(st.integers(1, 500), st.integers(1, 100), st.integers(1, 90), STEPS)
async def test_it_says_what_the_gateways_bucket_says(
    amount: int, burst: int, period_s: int, steps: list[tuple[int, int, int]]
) -> None:
    """Reservations, and uses of less and of more than was reserved, a step later."""
    bound = Bound("tokens", "org", LimitUnit.TOKENS, amount, burst, period_s)
    now = 5
    model, limits = Exact(bound, now), MemoryLimits(lambda: now)
    held: tuple[Hold, int, int] | None = None
    for wait_us, cost, used in steps:
        now += wait_us
        model.refill(now)
        if held is not None:
            held[0].settle(Used(held[2]))
            model.give(held[1] - held[2])
            held = None
        expected = model.has(cost)
        try:
            held = await limits.reserve([claim(bound, cost)]), cost, used
        except LimitExceededError:
            assert not expected
        else:
            assert expected
            model.take(cost)


@given(STEPS)
def test_what_is_watched_is_an_exact_bucket_while_nobody_is_refused_wrongly(
    steps: list[tuple[int, int, int]],
) -> None:
    bound = Bound("tokens", "org", LimitUnit.TOKENS, 10, 100)
    exact, watched = Exact(bound, 0), Watched(bound, 0)
    now = 0
    for wait_us, cost, used in steps:
        now += wait_us
        for bucket in (exact, watched):
            bucket.refill(now)
            bucket.take(cost)
            bucket.give(cost - used)
        assert exact.level == watched.level
        assert watched.room == watched.level or watched.level < 0


def test_a_budget_brings_nothing_in() -> None:
    bucket = Exact(Bound("month", "org", LimitUnit.TOKENS, 10, 10, budget=True), 0)
    bucket.take(10)
    bucket.refill(10**12)
    assert not bucket.has(1)


def test_units_beyond_the_limit_over_any_stretch() -> None:
    bucket = Watched(Bound("r", "org", LimitUnit.REQUESTS, 1, 2), 0)
    for _ in range(5):
        bucket.take(1)
    assert bucket.worst == 3
    bucket.refill(10 * SECOND_US)
    assert (bucket.worst, bucket.charged) == (3, 5)


def test_room_refused_wrongly_is_held_until_somebody_has_it() -> None:
    bucket = Watched(Bound("r", "org", LimitUnit.REQUESTS, 1, 2), 0)
    bucket.wrong(1)
    bucket.wrong(1)
    assert not bucket.has(1)
    bucket.take(2)
    assert (bucket.level, bucket.room) == (0, 0)
    bucket.refill(SECOND_US)
    assert bucket.has(1)


def test_room_that_nobody_took_flows_over_and_is_missed_again() -> None:
    bucket = Watched(Bound("r", "org", LimitUnit.REQUESTS, 1, 2), 0)
    bucket.wrong(2)
    bucket.refill(SECOND_US)
    assert bucket.has(1)
