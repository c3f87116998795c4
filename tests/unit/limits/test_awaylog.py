"""What is away is said once, and that it is back, whatever alternates."""

from __future__ import annotations

import logging

import pytest

from gateway.limits.awaylog import QUIET_S, AwayLog


class Place:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.log = AwayLog(
            logging.getLogger("orgate.limits"), "it is gone: %s", "it is back", lambda: self.seconds
        )


@pytest.fixture
def place(caplog: pytest.LogCaptureFixture) -> Place:
    caplog.set_level(logging.INFO, "orgate.limits")
    return Place()


def test_causes_that_alternate_are_one_outage(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    for turn in range(200):
        place.log.failed(("late", "no connection", "later")[turn % 3])
        place.seconds += 1
    place.log.worked()
    place.log.worked()
    assert caplog.messages == ["it is gone: late", "it is back, after 200.0 s, for 3 different causes"]


def test_one_cause_is_said_with_the_first_line(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.log.failed("late")
    place.seconds += 1.5
    place.log.failed("late")
    assert place.log.away
    place.log.worked()
    assert caplog.messages == ["it is gone: late", "it is back, after 1.5 s"]


def test_what_comes_and_goes_is_two_lines_in_a_while(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        place.log.failed("late")
        place.seconds += 0.1
        place.log.worked()
        place.seconds += 0.1
    assert caplog.messages == ["it is gone: late", "it is back, after 0.1 s"]
    place.seconds += QUIET_S
    place.log.failed("refused")
    assert caplog.messages[2:] == ["it is gone: refused (and 99 times for a moment before)"]


def test_what_is_still_away_after_a_while_is_said_though_it_had_just_been_back(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.log.failed("late")
    place.log.worked()
    place.log.failed("refused")
    assert len(caplog.messages) == 2
    place.seconds += QUIET_S
    place.log.failed("refused")
    place.log.failed("late")
    assert caplog.messages[2:] == ["it is gone: refused"]
    place.log.worked()
    assert caplog.messages[3:] == [f"it is back, after {QUIET_S} s, for 2 different causes"]


def test_more_of_it_is_worth_a_line_a_while_later(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """One organization has no user there; later the whole server dies."""
    place.log.failed("no such user", more=True)
    place.log.failed("lost", more=True)
    assert caplog.messages == ["it is gone: no such user"]
    place.seconds += QUIET_S
    place.log.failed("no such user")
    place.log.failed("lost", more=True)
    assert caplog.messages[1:] == ["it is gone: lost"]
