"""The token bucket's laws."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.bucket import Level, Rate, change, full, full_in_us, give, refill, settle, take, units, wait_us

rates = st.builds(
    Rate,
    amount=st.integers(1, 10_000_000),
    period_us=st.sampled_from([1_000_000, 7_000_000, 60_000_000, 86_400_000_000]),
    burst=st.integers(1, 10_000_000),
)
waits = st.integers(0, 10_000_000)
steps = st.lists(st.tuples(waits, st.integers(0, 500), st.booleans()), min_size=1, max_size=60)


@given(rates, steps)
def test_no_interval_admits_more_than_burst_and_what_came_in(
    rate: Rate, moves: list[tuple[int, int, bool]]
) -> None:
    level, now = full(rate, 0), 0
    log: list[tuple[int, int]] = []
    for wait, n, gives_back in moves:
        now += wait
        level = refill(rate, level, now)
        if (left := take(rate, level, n)) is not None:
            level = left
            if gives_back:
                level = give(rate, level, n)
            else:
                log.append((now, n))
    for i, (start, _) in enumerate(log):
        for (end, _), total in zip(log[i:], accumulate(n for _, n in log[i:]), strict=True):
            assert total * rate.period_us <= rate.burst * rate.period_us + rate.amount * (end - start)


@given(rates, st.integers(0, 10**13), st.integers(1, 10_000_000))
def test_the_wait_is_exact_to_the_microsecond(rate: Rate, missing: int, n: int) -> None:
    level = Level(rate.cap - missing, 0)
    wait = wait_us(rate, level, n)
    if wait is None:
        assert n > rate.burst
        return
    assert take(rate, refill(rate, level, wait), n) is not None
    if wait > 0:
        assert take(rate, refill(rate, level, wait - 1), n) is None


@given(rates, st.integers(0, 10**9), waits)
def test_giving_back_restores(rate: Rate, n: int, wait: int) -> None:
    level = refill(rate, full(rate, 0), wait)
    if (left := take(rate, level, n)) is not None:
        assert give(rate, left, n) == level
        assert settle(rate, left, n, n) == left


@given(rates, st.integers(0, 1_000), st.integers(0, 5_000))
def test_settling_charges_what_was_used(rate: Rate, reserved: int, used: int) -> None:
    level = full(rate, 0)
    if (left := take(rate, level, reserved)) is not None:
        assert settle(rate, left, reserved, used).ticks == rate.cap - used * rate.period_us


@given(rates, st.integers(0, 10**13))
def test_it_is_full_when_said(rate: Rate, missing: int) -> None:
    level = Level(rate.cap - missing, 0)
    wait = full_in_us(rate, level)
    assert refill(rate, level, wait).ticks == rate.cap
    assert wait == 0 or refill(rate, level, wait - 1).ticks < rate.cap


@given(rates, waits, waits)
def test_time_in_parts_brings_as_much_as_in_one(rate: Rate, first: int, second: int) -> None:
    level = Level(-rate.cap, 0)
    assert refill(rate, refill(rate, level, first), first + second) == Level(
        refill(rate, level, first + second).ticks, max(first + second, 0)
    )


@given(rates, st.data())
def test_what_is_lent_holds_the_top_down(rate: Rate, data: st.DataObject) -> None:
    lent = data.draw(st.integers(0, rate.burst))
    left = take(rate, full(rate, 0), lent)
    assert left is not None
    assert units(rate, refill(rate, left, 10**15, lent)) == rate.burst - lent


@given(rates, rates, st.integers(0, 10**13))
def test_a_changed_rate_never_overfills(old: Rate, new: Rate, missing: int) -> None:
    changed = change(old, new, Level(old.cap - missing, 5))
    assert changed.ticks <= new.cap
    if missing == 0:
        assert changed.ticks == new.cap


def test_a_clock_that_goes_back_brings_nothing_in() -> None:
    rate = Rate(10, 1_000_000, 10)
    level = Level(0, 500)
    assert refill(rate, level, 400) == Level(0, 400)


def test_an_amount_of_nothing_lets_nothing_pass() -> None:
    rate = Rate(0, 1_000_000, 0)
    assert full(rate, 0).ticks == 0
    assert wait_us(rate, full(rate, 0), 1) is None
    assert full_in_us(rate, full(rate, 0)) == 0
    raised = Rate(5, 1_000_000, 5)
    assert units(raised, change(rate, raised, full(rate, 0))) == 5
