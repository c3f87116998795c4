"""What the audit log's page asks of the log, from what a form says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from gateway.api.admin import web_find
from gateway.api.admin.web_find import Bar, Filter, find, read_filter, timeline
from gateway.audit.log import AuditReader
from tenants.ids import OrgId

ACME = OrgId("acme")
HOUR, DAY, WEEK = 3_600, 86_400, 604_800


class Log:
    """Entries at given hours; looks at `scan` of them in one call, as the real one looks at 20,000."""

    scan = 20
    first = 0

    def __init__(self, hours: list[int], **fields: str) -> None:
        self.items: list[dict[str, object]] = [
            {"index": n, "@timestamp": hour * HOUR * 1_000, "action": "key.write", **fields}
            for n, hour in enumerate(hours)
        ]
        self.asked: list[Mapping[str, Any]] = []

    async def range(self, org: OrgId) -> tuple[int, int]:
        return self.first, len(self.items)

    async def entries(
        self, org: OrgId, *, after: int, limit: int, **asked: Any
    ) -> tuple[list[dict[str, object]], int]:
        self.asked.append(asked)
        found: list[dict[str, object]] = []
        for entry in self.items[after : after + self.scan]:
            after += 1
            if asked["action"] in ("", entry["action"]):
                found.append(entry)
            if len(found) == limit:
                break
        return found, after


def reader(log: Log) -> AuditReader:
    return cast(AuditReader, log)


def test_a_filter_is_what_was_typed() -> None:
    given = {"since": "2026-01-31T12:00", "actor": " mem_1 ", "outcome": "served", "after": "7", "other": "x"}
    wanted = read_filter(given)
    assert wanted.faults == ()
    assert wanted.any
    assert wanted.after == 7
    asked = wanted.asked()
    assert (asked["since"], asked["until"], asked["actor"]) == (1_769_860_800_000, 0, "mem_1")
    assert wanted.query(after=9) == {
        "actor": "mem_1",
        "outcome": "served",
        "since": "2026-01-31T12:00",
        "after": 9,
    }


def test_nothing_typed_is_no_filter() -> None:
    wanted = read_filter({"since": "", "actor": "  "})
    assert wanted == Filter()
    assert not wanted.any


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("since", "yesterday"),
        ("until", "2026-13-01"),
        ("outcome", "good"),
        ("after", "-1"),
        ("after", "1e3"),
        ("after", "٣"),
        ("after", "9" * 16),
        ("after", "9" * 99),
    ],
)
def test_what_is_wrong_counts_as_empty_and_is_named(name: str, value: str) -> None:
    wanted = read_filter({name: value, "action": "key.write"})
    assert [field for field, _ in wanted.faults] == [name]
    assert wanted.action == "key.write"
    assert not getattr(wanted, name)


def test_a_text_is_cut_to_what_the_api_takes() -> None:
    assert len(read_filter({"actor": "a" * 4_000}).actor) == 128


async def test_without_a_filter_the_newest_page_is_shown() -> None:
    found = await find(reader(Log([0] * 120)), ACME, Filter())
    assert (found.start, found.next, found.size, found.more) == (70, 120, 120, False)
    assert [entry["index"] for entry in found.items] == list(range(70, 120))


async def test_with_a_filter_it_begins_at_the_beginning() -> None:
    found = await find(reader(Log([0] * 120)), ACME, Filter(action="key.write"))
    assert (found.start, found.next, found.more, len(found.items)) == (0, 50, True, 50)


async def test_a_filter_that_matches_little_stops_after_a_while_and_can_go_on() -> None:
    log = Log([0] * 300)
    found = await find(reader(log), ACME, Filter(action="no.such"))
    assert (found.start, found.next, found.more, found.items) == (0, 100, True, ())
    assert len(log.asked) == web_find.ROUNDS
    found = await find(reader(log), ACME, Filter(action="no.such", after=250))
    assert (found.next, found.more) == (300, False)


async def test_an_empty_log_has_an_empty_page() -> None:
    found = await find(reader(Log([])), ACME, Filter())
    assert (found.items, found.start, found.next, found.size, found.more) == ((), 0, 0, 0, False)


async def test_a_place_beyond_the_end_is_empty() -> None:
    found = await find(reader(Log([0] * 3)), ACME, Filter(after=2**53 - 1))
    assert (found.items, found.more) == ((), False)


async def test_what_is_past_its_retention_is_not_where_anything_begins() -> None:
    log = Log([0] * 120)
    log.first = 100
    newest = await find(reader(log), ACME, Filter())
    assert (newest.start, newest.first, len(newest.items)) == (100, 100, 20)
    assert (await find(reader(log), ACME, Filter(action="key.write"))).start == 100
    assert (await timeline(reader(log), ACME, Filter())).start == 100
    assert (await timeline(reader(log), ACME, Filter(since="1970-01-01"))).start == 100


async def test_bars_are_hours_days_or_weeks_from_monday() -> None:
    hours = await timeline(reader(Log([5, 5, 7])), ACME, Filter())
    assert (hours.unit_s, hours.bars) == (HOUR, (Bar(5 * HOUR, 2, 0), Bar(7 * HOUR, 1, 0)))
    days = await timeline(reader(Log([0, 23, 24 * 10])), ACME, Filter())
    assert (days.unit_s, days.bars) == (DAY, (Bar(0, 2, 0), Bar(10 * DAY, 1, 0)))
    weeks = await timeline(reader(Log([24 * 3, 24 * 4, 24 * 10, 24 * 11, 24 * 700])), ACME, Filter())
    assert weeks.unit_s == WEEK
    assert weeks.bars == (
        Bar(-3 * DAY, 1, 0),
        Bar(4 * DAY, 2, 0),
        Bar(11 * DAY, 1, 0),
        Bar(697 * DAY, 1, 0),
    )


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"outcome": "served"}, 0),
        ({"outcome": "cancelled_by_client"}, 0),
        ({"outcome": "refused"}, 1),
        ({"outcome": "unknown"}, 1),
        ({"action": "session.refuse"}, 1),
        ({}, 0),
    ],
)
async def test_what_was_refused_or_failed_is_counted_apart(fields: dict[str, str], wrong: int) -> None:
    found = await timeline(reader(Log([1], **fields)), ACME, Filter())
    assert found.bars == (Bar(HOUR, 1, wrong),)


async def test_a_timeline_looks_at_the_end_or_from_where_it_was_told_and_says_how_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_find, "TIMELINE_FROM_END", 30)
    monkeypatch.setattr(web_find, "TIMELINE_MAX", 60)
    log = reader(Log([0] * 200))
    assert _reach(await timeline(log, ACME, Filter())) == (170, 200, True)
    assert _reach(await timeline(log, ACME, Filter(since="1970-01-01"))) == (0, 60, False)
    assert _reach(await timeline(log, ACME, Filter(after=190))) == (190, 200, True)
    assert _reach(await timeline(reader(Log([])), ACME, Filter())) == (0, 0, True)


def _reach(found: web_find.Timeline) -> tuple[int, int, bool]:
    return found.start, found.end, found.complete
