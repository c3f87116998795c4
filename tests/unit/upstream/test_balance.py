from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.balance import HTTP_1_1_FACTOR, Bounds, capacity, dials, pick


class Load(NamedTuple):
    open: int
    limit: int
    started: int
    resets: int = 0
    usable: bool = True


loads = st.lists(
    st.builds(
        Load, st.integers(0, 200), st.integers(0, 200), st.integers(0, 9), st.integers(0, 5), usable=st.booleans()
    ),
    max_size=6,
)


@pytest.mark.parametrize(
    ("given_loads", "chosen"),
    [
        ([], None),
        ([Load(100, 100, 5)], None),
        ([Load(0, 0, 0)], None),
        ([Load(3, 100, 5), Load(2, 100, 9)], 1),
        ([Load(10, 100, 1), Load(10, 200, 9)], 1),  # fullness counts, not the number
        ([Load(0, 100, 7), Load(0, 100, 3), Load(0, 100, 4)], 1),  # equally full: the least used
        ([Load(100, 100, 0), Load(99, 100, 9)], 1),
    ],
)
def test_pick(given_loads: list[Load], chosen: int | None) -> None:
    assert pick(given_loads) == chosen


@given(loads, st.integers(0, 5))
def test_pick_finds_room_exactly_when_there_is_some(given_loads: list[Load], worn: int) -> None:
    index = pick(given_loads, worn)
    able = [
        load
        for load in given_loads
        if load.usable and load.open < load.limit and not (worn and load.resets >= worn)
    ]
    if index is None:
        assert not able
    else:
        chosen = given_loads[index]
        assert chosen in able
        assert all((chosen.open / chosen.limit, chosen.started) <= (o.open / o.limit, o.started) for o in able)


def test_pick_takes_no_worn_connection() -> None:
    fresh, worn = Load(50, 100, 0, resets=9), Load(0, 100, 0, resets=10)
    assert (pick([worn, fresh], 10), pick([worn], 10), pick([worn, fresh])) == (1, None, 0)


FULL, BUSY, FREE = Load(100, 100, 0), Load(1, 100, 0), Load(0, 100, 0)


@pytest.mark.parametrize(
    ("given_loads", "dialling", "waiting", "multiplexed", "count"),
    [
        ([], 0, 1, None, 1),  # the first request of all
        ([], 1, 5, None, 0),  # its dial will tell the protocol
        ([], 0, 0, None, 0),
        ([FREE], 0, 0, True, 0),
        ([BUSY], 0, 0, True, 1),  # ahead of need
        ([BUSY, FREE], 0, 0, True, 0),
        ([BUSY], 1, 0, True, 0),
        ([FULL], 0, 9, True, 1),
        ([FULL, FULL, FULL, FULL], 0, 9, True, 0),
        ([], 0, 3, False, 3),
        ([], 2, 3, False, 1),
        ([Load(1, 1, 0)], 0, 0, False, 0),
        ([Load(1, 1, 0), Load(1, 1, 0)], 1, 9, False, 1),
    ],
)
def test_dials(given_loads: list[Load], dialling: int, waiting: int, multiplexed: bool | None, count: int) -> None:
    found = dials(given_loads, dialling=dialling, waiting=waiting, size=4, multiplexed=multiplexed)
    assert found == count


@given(loads, st.integers(0, 9), st.integers(0, 99), st.integers(1, 8), st.sampled_from([True, False, None]))
def test_dials_never_exceed_the_size(
    given_loads: list[Load], dialling: int, waiting: int, size: int, multiplexed: bool | None
) -> None:
    count = dials(given_loads, dialling=dialling, waiting=waiting, size=size, multiplexed=multiplexed)
    assert count == 0 or len(given_loads) + dialling + count <= size


@pytest.mark.parametrize(
    ("given_loads", "dialling", "waiting", "multiplexed", "due", "count"),
    [
        ([FREE] * 4, 0, 0, True, 1, 1),  # the successor comes first: for a moment there is one more
        ([FREE] * 4, 1, 0, True, 1, 0),
        ([FREE] * 5, 0, 0, True, 1, 0),
        ([FREE] * 4, 0, 0, True, 4, 1),  # one after the other
        ([FREE], 0, 0, True, 1, 1),
        ([Load(1, 1, 0)] * 2, 0, 0, False, 2, 2),
        ([Load(1, 1, 0)] * 4, 1, 3, False, 2, 1),
    ],
)
def test_dials_for_those_to_be_replaced(
    given_loads: list[Load], dialling: int, waiting: int, multiplexed: bool, due: int, count: int
) -> None:
    found = dials(given_loads, dialling=dialling, waiting=waiting, size=4, multiplexed=multiplexed, due=due)
    assert found == count


@pytest.mark.parametrize(("resets", "at"), [(0, 0), (1, 1), (10, 8), (900, 720)])
def test_a_fifth_of_the_resets_is_left_when_the_successor_is_dialled(resets: int, at: int) -> None:
    assert Bounds(connection_resets=resets).replace_at == at


def test_ages_differ_by_a_tenth() -> None:
    bounds = Bounds(connection_age_s=3_600)
    assert [round(bounds.age_s(dice)) for dice in (0, 0.5, 1)] == [3_240, 3_600, 3_960]


def test_capacity() -> None:
    assert [capacity(4, True), capacity(4, None), capacity(4, False)] == [4, 4, 4 * HTTP_1_1_FACTOR]
