"""The token bucket's laws."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.bucket import Level, Rate, change, charge, full, give, holds, level, refill, units, wait_us

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
    there, now = full(rate, 0), 0
    log: list[tuple[int, int]] = []
    for wait, n, gives_back in moves:
        now += wait
        there = refill(rate, there, now)
        if units(rate, there) < n:
            continue
        there = charge(rate, there, n)
        if gives_back:
            there = give(rate, there, n)
        else:
            log.append((now, n))
    for i, (start, _) in enumerate(log):
        for (end, _), total in zip(log[i:], accumulate(n for _, n in log[i:]), strict=True):
            assert total * rate.period_us <= rate.burst * rate.period_us + rate.amount * (end - start)


@given(rates, st.integers(0, 10**13), st.integers(1, 10_000_000))
def test_the_wait_is_exact_to_the_microsecond(rate: Rate, missing: int, n: int) -> None:
    there = Level(rate.cap - missing, 0)
    wait = wait_us(rate, there, n)
    if wait is None:
        assert n > rate.burst
        return
    assert units(rate, refill(rate, there, wait)) >= n
    if wait > 0:
        assert units(rate, refill(rate, there, wait - 1)) < n


@given(rates, st.integers(0, 10**9), waits)
def test_giving_back_restores(rate: Rate, n: int, wait: int) -> None:
    there = refill(rate, full(rate, 0), wait)
    assert give(rate, charge(rate, there, n), n) == there


@given(rates, st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_what_does_not_fit_above_what_is_lent_is_lost(rate: Rate, left: int, n: int, lent: int) -> None:
    there = level(rate, min(left, rate.burst), 0)
    given_back = give(rate, there, n, lent)
    assert units(rate, there) <= units(rate, given_back) <= units(rate, there) + n
    assert given_back.ticks <= max(rate.cap - lent * rate.period_us, there.ticks)


@given(rates, waits, waits)
def test_time_in_parts_brings_as_much_as_in_one(rate: Rate, first: int, second: int) -> None:
    there = Level(-rate.cap, 0)
    assert refill(rate, refill(rate, there, first), first + second) == refill(rate, there, first + second)


@given(rates, st.data())
def test_what_is_lent_holds_the_top_down(rate: Rate, data: st.DataObject) -> None:
    lent = data.draw(st.integers(0, rate.burst))
    assert units(rate, refill(rate, charge(rate, full(rate, 0), lent), 10**15, lent)) == rate.burst - lent


@given(rates, rates, st.integers(0, 10**13), st.one_of(st.none(), st.integers(0, 10**7)))
def test_a_changed_rate_never_overfills(old: Rate, new: Rate, missing: int, had: int | None) -> None:
    changed = change(old, new, Level(old.cap - missing, 5), had)
    assert changed.ticks <= new.cap
    if missing == 0 and had is None:
        assert changed.ticks == new.cap


@given(rates, rates, st.integers(0, 10**9))
def test_what_was_had_already_is_not_brought_in_again(old: Rate, new: Rate, missing: int) -> None:
    before = Level(old.cap - missing * old.period_us, 5)
    assert units(new, change(old, new, before, max(holds(old), holds(new)))) <= units(old, before)


def test_a_clock_that_was_set_back_brings_nothing_in_and_counts_on_from_there() -> None:
    rate = Rate(10, 1_000_000, 10)
    assert refill(rate, Level(0, 500), 400) == Level(0, 400)


def test_an_amount_of_nothing_lets_nothing_pass() -> None:
    rate = Rate(0, 1_000_000, 7)
    assert full(rate, 0).ticks == 0
    assert wait_us(rate, full(rate, 0), 1) is None
    raised = Rate(5, 1_000_000, 5)
    assert units(raised, change(rate, raised, full(rate, 0))) == 5
