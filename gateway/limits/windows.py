"""A budget's calendar windows: from midnight to midnight where the organization is. Pure."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tenants.models import Window

log = logging.getLogger("orgate.limits")


def window_at(window: Window, timezone: str, now_s: float) -> tuple[int, int]:
    """The `window` that `now_s` is in, from and up to (not with) which Unix second. 0 and 0 without a window.

    Weeks begin on Monday (ISO 8601). A day on which clocks change has 23 or 25 hours, and begins with its first
    instant: where midnight does not exist, when the clock has jumped; where it comes twice, the first time.
    """
    if window is Window.NONE:
        return 0, 0
    zone = zone_of(timezone)
    first, last = _dates(window, datetime.fromtimestamp(now_s, zone).date())
    return _midnight(first, zone), _midnight(last, zone)


@lru_cache(maxsize=256)
def zone_of(timezone: str) -> tzinfo:
    """An IANA name. UTC for one that this machine's tz database does not know: names come and go with its
    releases, and a budget whose day begins at another hour is better than none."""
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        log.warning("the time zone %r is not known here: its budgets begin and end by UTC", timezone)
        return UTC


def _dates(window: Window, today: date) -> tuple[date, date]:
    """The first day of the window, and the first after it."""
    if window is Window.DAY:
        return today, today + timedelta(days=1)
    if window is Window.WEEK:
        monday = today - timedelta(days=today.weekday())
        return monday, monday + timedelta(days=7)
    first = today.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1)


def _midnight(day: date, zone: tzinfo) -> int:
    """Unix seconds of the day's first instant: `fold` 0 is the earlier of two, and counts from before a gap."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())
