"""The arithmetic inside Redis, which has doubles only, against Python's integers."""

from __future__ import annotations

from importlib.resources import files

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.limits import bucket
from gateway.limits.bucket import Level, Rate
from tests.kit.redis import shared_server

MOST = 9_000_000_000_000_000
DAY_US = 86_400_000_000
MONTH_US = 31 * DAY_US

CALL = """
local calls = {
  muldiv = function(c) return { muldiv(c[1], c[2], c[3], c[4]) } end,
  advance = function(c) return { advance(c[1], c[2], c[3], c[4], c[5], c[6]) } end,
  wait_for = function(c) return { wait_for(c[1], c[2], c[3], c[4], c[5]) } end,
}
local answers = {}
for i, case in ipairs(cmsgpack.unpack(ARGV[2])) do
  answers[i] = calls[ARGV[1]](case)
end
return cmsgpack.pack(answers)
"""
SCRIPT = (files("gateway.limits") / "redis_numbers.lua").read_text() + CALL


def inside(function: str, cases: list[tuple[int, ...]]) -> list[list[int]]:
    with shared_server("redis").client() as client:
        answer = client.eval(SCRIPT, 0, function, msgspec.msgpack.encode(cases))
    return msgspec.msgpack.decode(answer, type=list[list[int]])


amounts = st.one_of(st.integers(0, 100), st.integers(0, MOST), st.integers(MOST - 100, MOST))
periods = st.one_of(st.integers(1, 100), st.integers(1, 31 * 86_400), st.just(31 * 86_400)).map(
    lambda seconds: seconds * 1_000_000
)
elapsed = st.one_of(st.integers(0, 1_000), st.integers(0, DAY_US), st.integers(0, 50 * 365 * DAY_US))


@st.composite
def products(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """a, b, c, d of floor((a * b + c) / d)."""
    d = draw(st.one_of(st.integers(1, 1_000), st.integers(1, MONTH_US), st.just(MONTH_US)))
    a = draw(st.one_of(amounts, st.integers(0, 2**53 - 1), st.just(2**53 - 1)))
    near = st.one_of(st.integers(0, d - 1), st.just(d - 1), st.just(0))
    return a, draw(near), draw(near), d


@settings(max_examples=60, deadline=None)
@given(st.lists(products(), min_size=1, max_size=100))
@example([(2**53 - 1, MONTH_US - 1, MONTH_US - 1, MONTH_US)])
def test_a_product_and_its_quotient_are_exact(cases: list[tuple[int, int, int, int]]) -> None:
    assert inside("muldiv", list(cases)) == [list(divmod(a * b + c, d)) for a, b, c, d in cases]


@st.composite
def levels(draw: st.DrawFn) -> tuple[int, int, int, int, int, int]:
    """level, part, amount, period, elapsed, top."""
    amount, period = draw(amounts), draw(periods)
    top = draw(st.one_of(st.integers(0, MOST), st.integers(0, 1_000)))
    level = draw(
        st.one_of(st.integers(-MOST, MOST), st.integers(-1_000, 1_000), st.integers(-3, 3).map(top.__add__))
    )
    level = min(level, MOST)
    return level, draw(st.integers(0, period - 1)), amount, period, draw(elapsed), top


@settings(max_examples=60, deadline=None)
@given(st.lists(levels(), min_size=1, max_size=100))
@example([(-MOST, 0, MOST, MONTH_US, 2 * MONTH_US - 1, MOST)])
@example([(0, 0, 1, MONTH_US, MONTH_US - 1, 1), (0, MONTH_US - 1, 1, MONTH_US, 1, 1)])
def test_a_refill_is_the_integers(cases: list[tuple[int, int, int, int, int, int]]) -> None:
    expected = []
    for level, part, amount, period, since, top in cases:
        rate = Rate(amount, period, max(top, 0))
        if amount > 0:
            ticks = bucket.refill(rate, Level(level * period + part, 0), since).ticks
        else:
            ticks = level * period + part  # a bucket of nothing holds nothing: it is never asked to hold `top`
        expected.append(list(divmod(ticks, period)))
    assert inside("advance", list(cases)) == expected


@st.composite
def lacking(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """level, part, amount, period, and the units wanted, which are not there."""
    amount, period = max(draw(amounts), 1), draw(periods)
    wanted = draw(st.one_of(st.integers(1, 1_000), st.integers(1, MOST)))
    level = draw(st.one_of(st.integers(-MOST, wanted - 1), st.integers(wanted - 3, wanted - 1)))
    return level, draw(st.integers(0, period - 1)), amount, period, wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(lacking(), min_size=1, max_size=100))
def test_a_wait_is_right_to_the_microsecond(cases: list[tuple[int, int, int, int, int]]) -> None:
    expected = []
    for level, part, amount, period, wanted in cases:
        wait = bucket.wait_us(Rate(amount, period, MOST), Level(level * period + part, 0), wanted)
        assert wait is not None
        expected.append([min(wait, MOST)])
    assert inside("wait_for", list(cases)) == expected
