"""The order of turns, by itself: no loop, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.upstream.lanes import LANES, STRIDE, Line, Pace, Place

Flow = str


def line_of(*waiting: tuple[int, str]) -> tuple[Line[Flow], list[Place[Flow]]]:
    """Places in order; each organization has one flow, of its own name."""
    line: Line[Flow] = Line()
    places = [Place(lane, org, org) for lane, org in waiting]
    for place in places:
        line.join(place)
    return line, places


def order(line: Line[Flow], ready: Callable[[Flow], bool] = lambda _: True) -> list[tuple[int, str]]:
    turns = []
    while (place := line.next(ready)) is not None:
        turns.append((place.lane, place.org))
    return turns


def test_lower_lanes_go_first() -> None:
    line, _ = line_of((2, "a"), (1, "a"), (0, "a"), (1, "a"), (0, "a"))
    assert order(line) == [(0, "a"), (0, "a"), (1, "a"), (1, "a"), (2, "a")]


def test_every_strideth_turn_goes_to_who_has_waited_longest_in_the_lanes_behind() -> None:
    line, _ = line_of((2, "a"), (1, "a"), *[(0, "a")] * (3 * STRIDE))
    turns = [lane for lane, _ in order(line)]
    assert turns[: 2 * STRIDE] == [*[0] * (STRIDE - 1), 2, *[0] * (STRIDE - 1), 1]
    assert turns[2 * STRIDE :] == [0] * (len(turns) - 2 * STRIDE)


def test_organizations_take_turns_inside_a_lane() -> None:
    line, _ = line_of((0, "a"), (0, "a"), (0, "a"), (0, "b"), (0, "c"), (0, "c"))
    assert [org for _, org in order(line)] == ["a", "b", "c", "a", "c", "a"]


def test_an_organization_goes_first_come_first_served_over_its_upstreams() -> None:
    line: Line[Flow] = Line()
    places = [Place(0, "a", flow) for flow in ("x", "y", "x", "y")]
    for place in places:
        line.join(place)
    assert [line.next(lambda _: True) for _ in places] == places


def test_who_cannot_be_served_keeps_its_place() -> None:
    line, _ = line_of((0, "a"), (0, "b"), (1, "c"))
    assert order(line, lambda flow: flow != "a") == [(0, "b"), (1, "c")]
    line.join(Place(0, "b", "b"))
    assert order(line) == [(0, "a"), (0, "b")]


def test_leaving_is_idempotent_and_leaves_no_hole() -> None:
    line, places = line_of((0, "a"), (0, "a"), (0, "b"))
    for _ in range(2):
        line.leave(places[0])
    assert (line.waiting, line.count(0, "a"), line.count(0, "b"), line.of_flow("a")) == (2, 1, 1, 1)
    assert line.places("a") == [places[1]]
    assert order(line) == [(0, "a"), (0, "b")]
    line.leave(places[2])
    assert (line.waiting, line.count(0, "b"), line.ahead(2)) == (0, 0, 0)


def test_ahead_counts_a_lane_and_those_before_it() -> None:
    line, _ = line_of((0, "a"), (1, "a"), (1, "b"), (2, "a"))
    assert [line.ahead(lane) for lane in range(LANES)] == [1, 3, 4]


# What must hold whatever comes: arrivals, departures, turns, in any order.

orgs = st.sampled_from("abc")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, LANES - 1), orgs),
        st.tuples(st.just("leave"), st.integers(0, 60)),
        st.tuples(st.just("turn"), st.frozensets(orgs)),
    ),
    max_size=150,
)


@given(steps)
def test_turns_follow_the_rules(script: list[tuple[object, ...]]) -> None:
    line: Line[Flow] = Line()
    waiting: list[Place[Flow]] = []  # a plain model: everybody in order of arrival
    passed = 0
    since_turn: Counter[tuple[int, str, str]] = Counter()  # turns of others since `org` began to be passed over
    for step in script:
        if step[0] == "join":
            place = Place(int(str(step[1])), str(step[2]), str(step[2]))
            line.join(place)
            waiting.append(place)
        elif step[0] == "leave":
            if waiting:
                line.leave(waiting.pop(int(str(step[1])) % len(waiting)))
        else:
            blocked = step[1]
            assert isinstance(blocked, frozenset)
            able = [place for place in waiting if place.flow not in blocked]
            turn = line.next(lambda flow, blocked=blocked: flow not in blocked)  # type: ignore[misc]  # bound now
            assert (turn is None) == (not able)  # no turn is lost while somebody can be served
            if turn is None:
                continue
            best = min(place.lane for place in able)
            behind = [place for place in able if place.lane > best]
            if turn.lane == best:
                assert passed < STRIDE - 1 or not behind  # strict, until the others are due
                passed = min(passed + 1, STRIDE - 1) if any(p.lane > best for p in waiting) else 0
            else:
                assert passed == STRIDE - 1
                passed = 0
            mine = [p for p in able if (p.lane, p.org) == (turn.lane, turn.org)]
            assert turn is mine[0]  # first come first served inside an organization
            for other in {p.org for p in able if p.lane == turn.lane} - {turn.org}:
                since_turn[turn.lane, turn.org, other] += 1
                assert since_turn[turn.lane, turn.org, other] <= 1  # nobody goes twice while another could go
            for key in [key for key in since_turn if key[0] == turn.lane and key[2] == turn.org]:
                del since_turn[key]
            waiting.remove(turn)
        for key in [k for k in since_turn if not any((p.lane, p.org) == (k[0], k[2]) for p in waiting)]:
            del since_turn[key]  # it left the line, and comes in last
        assert line.waiting == len(waiting)
        assert {(p.lane, p.org) for p in waiting if not line.count(p.lane, p.org)} == set()
        assert line.ahead(LANES - 1) == len(waiting)


@given(st.lists(st.integers(1, LANES - 1), min_size=1, max_size=12))
def test_no_lane_starves(behind: list[int]) -> None:
    """However many completions there are: whoever waits behind goes within STRIDE turns for each who came before
    it into the lanes behind, itself included."""
    line, places = line_of(*[(lane, "a") for lane in behind], *[(0, "a")] * (STRIDE * (len(behind) + 1)))
    turns = []
    while (place := line.next(lambda _: True)) is not None:
        turns.append(place)
    for number in range(len(behind)):
        assert turns.index(places[number]) < STRIDE * (number + 1)


def test_pace_without_a_turn_says_as_long_again() -> None:
    pace = Pace()
    pace.begin(100)
    assert [pace.retry_after_s(5, 100 + passed) for passed in (0, 3, 500)] == [1, 3, 30]


@pytest.mark.parametrize(
    ("every_s", "ahead", "seconds"),
    [(0.01, 9, 1), (0.5, 9, 5), (1.0, 9, 10), (2.0, 99, 30)],
)
def test_pace_tells_how_long_the_line_takes(every_s: float, ahead: int, seconds: int) -> None:
    pace, now = Pace(), 50.0
    pace.begin(now)
    for _ in range(200):
        now += every_s
        pace.turn(now)
    assert abs(pace.retry_after_s(ahead, now) - seconds) <= 1


def test_pace_keeps_what_it_measured_a_moment_ago_and_forgets_the_rest() -> None:
    pace = Pace()
    pace.begin(0)
    for number in range(20):
        pace.turn(number * 0.1)
    pace.begin(2.0)
    assert pace.retry_after_s(49, 2.0) == 5
    pace.begin(1_000)
    assert pace.retry_after_s(49, 1_001) == 1


def weighted(*waiting: tuple[str, int, int]) -> Line[Flow]:
    """(organization, its weight, how many of its requests wait)."""
    line: Line[Flow] = Line()
    for org, weight, count in waiting:
        for _ in range(count):
            line.join(Place(0, org, org, weight))
    return line


def turns(line: Line[Flow], count: int, ready: Callable[[Flow], bool] = lambda _: True) -> list[str]:
    return [place.org for _ in range(count) if (place := line.next(ready)) is not None]


def test_one_of_twice_the_weight_has_twice_the_turns_and_they_are_spread() -> None:
    assert turns(weighted(("a", 1, 20), ("b", 2, 20)), 9) == ["b", "a", "b", "b", "a", "b", "b", "a", "b"]


def test_equal_weights_are_one_after_the_other_whatever_they_are() -> None:
    assert turns(weighted(("a", 7, 3), ("b", 7, 3), ("c", 7, 3)), 9) == ["a", "b", "c"] * 3


def test_the_lightest_is_never_starved() -> None:
    found = turns(weighted(("a", 1, 5), ("b", 1000, 3_100)), 3_003)
    assert found.count("a") == 3


def test_who_waits_alone_is_served_whatever_its_weight() -> None:
    line = weighted(("a", 1, 5), ("b", 1000, 5))
    assert turns(line, 5, lambda flow: flow == "a") == ["a"] * 5
    assert turns(line, 5) == ["b"] * 5


def test_nothing_is_saved_up_by_who_does_not_wait() -> None:
    line = weighted(("a", 1, 1), ("b", 3, 9))
    turns(line, 10)
    for org, weight in (("b", 3), ("a", 1)):
        for _ in range(8):
            line.join(Place(0, org, org, weight))
    assert turns(line, 8).count("a") == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=5))
def test_turns_are_as_the_weights_are(weights: list[int]) -> None:
    total, rounds = sum(weights), 4
    line = weighted(*((str(n), weight, rounds * weight + 10) for n, weight in enumerate(weights)))
    found = Counter(turns(line, rounds * total))
    for n, weight in enumerate(weights):
        assert found[str(n)] == rounds * weight
