from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.windows import window_at, zone_of
from tenants.models import Window

BERLIN = "Europe/Berlin"
HOUR = 3600


def at(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


@pytest.mark.parametrize(
    ("window", "first", "after"),
    [
        (Window.DAY, "2026-11-21", "2026-11-22"),
        (Window.WEEK, "2026-11-16", "2026-11-23"),
        (Window.MONTH, "2026-11-01", "2026-12-01"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", BERLIN, "Asia/Kathmandu", "Pacific/Kiritimati"])
def test_a_window_is_from_midnight_to_midnight_there(window: Window, first: str, after: str, zone: str) -> None:
    both = at(first, zone), at(after, zone)
    assert window_at(window, zone, at("2026-11-21T00:00:00", zone)) == both
    assert window_at(window, zone, at("2026-11-21T23:59:59", zone) + 0.999) == both


def test_without_a_window_there_is_none() -> None:
    assert window_at(Window.NONE, BERLIN, 1.0) == (0, 0)


def test_the_same_instant_is_another_day_elsewhere() -> None:
    now = at("2026-11-21T23:30:00")
    assert window_at(Window.DAY, "UTC", now)[0] == at("2026-11-21")
    assert window_at(Window.DAY, BERLIN, now)[0] == at("2026-11-22", BERLIN)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (BERLIN, "2026-03-29T12:00", 23),
        (BERLIN, "2026-10-25T12:00", 25),
        (BERLIN, "2026-10-26T12:00", 24),
        ("Australia/Lord_Howe", "2026-04-05T12:00", 24.5),
        ("Africa/Cairo", "2026-04-24T12:00", 23),  # clocks jump at midnight: the day begins at one
        ("America/Havana", "2026-11-01T12:00", 25),  # and here midnight comes twice
    ],
)
def test_a_day_on_which_clocks_change_is_as_long_as_it_is(zone: str, day: str, hours: float) -> None:
    starts, ends = window_at(Window.DAY, zone, at(day, zone))
    assert ends - starts == hours * HOUR
    assert window_at(Window.DAY, zone, starts) == (starts, ends)
    assert window_at(Window.DAY, zone, starts - 1)[1] == starts
    assert window_at(Window.DAY, zone, ends)[0] == ends


def test_december_ends_with_the_year() -> None:
    assert window_at(Window.MONTH, "UTC", at("2026-12-31T23:59:59")) == (at("2026-12-01"), at("2027-01-01"))
    assert window_at(Window.WEEK, "UTC", at("2027-01-01")) == (at("2026-12-28"), at("2027-01-04"))


@given(
    st.integers(0, 4 * 10**9),
    st.sampled_from([Window.DAY, Window.WEEK, Window.MONTH]),
    st.sampled_from([BERLIN, "America/New_York", "Africa/Cairo", "America/Havana", "Asia/Tokyo", "Pacific/Apia"]),
)
def test_every_instant_is_in_the_one_window_that_it_names(now: int, window: Window, zone: str) -> None:
    starts, ends = window_at(window, zone, now)
    assert starts <= now < ends
    assert window_at(window, zone, ends)[0] == ends
    assert window_at(window, zone, ends - 1) == (starts, ends)


def test_a_zone_that_is_not_known_here_is_utc() -> None:
    assert zone_of("Mars/Olympus") is UTC
    assert zone_of("../etc/passwd") is UTC
    assert window_at(Window.DAY, "Mars/Olympus", at("2026-11-21T12:00"))[0] == at("2026-11-21")
