"""A day replayed: who would have been refused, in the order in which requests came and not in which they ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from random import Random
from typing import Any

import pytest

from gateway.errors import LimitExceededError
from gateway.exchange import Claim, Hold, Used
from gateway.limits.memory import MemoryLimits
from gateway.limits.simulation import LATE_MS, Report, Simulation
from gateway.limits.windows import window_at
from gateway.quota import Quota
from tenants.ids import OrgId
from tenants.models import Limit, LimitScope, LimitUnit, OnEnd, Price, Window

ACME = OrgId("acme")
MIDNIGHT_MS = 1_796_083_200_000  # 2026-12-01T00:00:00Z


def entry(at_s: float, *, total_s: float = 0.1, **changes: Any) -> dict[str, object]:
    return {
        "@timestamp": MIDNIGHT_MS + int(at_s * 1_000),
        "action": "completion.create",
        "actor": "mem_1",
        "model": "code",
        "client": "vim",
        "upstream": "vllm",
        "upstream_model": "coder",
        "sent": True,
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "bytes_in": 400,
        "bytes_out": 200,
        "total_us": int(total_s * 1_000_000),
        **changes,
    }


def limit(amount: int, **changes: Any) -> Limit:
    values: dict[str, Any] = {"scope": LimitScope.MEMBER, "unit": LimitUnit.REQUESTS, "period_s": 60, **changes}
    if values.get("window") or values["unit"] is LimitUnit.CONCURRENCY:
        values["period_s"] = 0
    return Limit(org=ACME, name="new", amount=amount, **values)


def replay(
    proposed: Limit,
    entries: Iterable[Mapping[str, object]],
    *,
    timezone: str = "UTC",
    teams: Mapping[str, Sequence[str]] | None = None,
) -> Report:
    simulation = Simulation(
        proposed,
        timezone=timezone,
        prices={"coder": Price(ACME, "coder", 1_000_000_000, 4_000_000_000)},
        upstreams={"code": "vllm"},
        teams=lambda member: (teams or {}).get(member, ()),
    )
    for one in entries:
        simulation.feed([one])
    return simulation.report(0, 1)


def test_requests_beyond_the_bucket_are_refused_until_it_has_refilled() -> None:
    report = replay(limit(2), [entry(0), entry(1), entry(2), entry(29), entry(31), entry(32)])
    assert (report.requests, report.refused, report.callers) == (6, 3, 1)
    (row,) = report.rows
    assert (row.member, row.model, row.requests, row.refused) == ("mem_1", "code", 6, 3)
    assert row.first_refused_ms == MIDNIGHT_MS + 2_000


def test_requests_are_judged_as_they_came_though_the_log_has_them_as_they_ended() -> None:
    early = entry(0, total_s=50, actor="mem_2")
    late = [entry(at, actor="mem_1") for at in (1, 2)]
    report = replay(limit(2, scope=LimitScope.ORG, period_s=3_600), [*late, early])
    assert [(row.member, row.first_refused_ms) for row in report.rows] == [("mem_1", MIDNIGHT_MS + 2_000)]


def test_nothing_waits_longer_than_a_late_one_may_come() -> None:
    entries = [entry(at) for at in range(0, 4 * LATE_MS // 1_000, 10)]
    simulation = Simulation(limit(1, period_s=1), timezone="UTC", prices={}, upstreams={}, teams=lambda _: ())
    simulation.feed(entries)
    assert len(simulation._arrivals) <= LATE_MS // 10_000 + 1
    assert simulation.report(0, 1).refused == 0


@pytest.mark.parametrize(
    ("proposed", "refused"),
    [
        (limit(450, unit=LimitUnit.TOKENS), 1),
        (limit(300, unit=LimitUnit.INPUT_TOKENS), 1),
        (limit(150, unit=LimitUnit.OUTPUT_TOKENS), 1),
        (limit(1_800, unit=LimitUnit.BYTES), 1),
        (limit(900_000, unit=LimitUnit.SPEND), 1),
        (limit(899_900, unit=LimitUnit.SPEND), 2),
        (limit(449, unit=LimitUnit.TOKENS, on_end=OnEnd.DENY_NEXT), 1),
        (limit(1_000, unit=LimitUnit.TOKENS, window=Window.DAY), 0),
        (limit(500, unit=LimitUnit.TOKENS, window=Window.DAY), 1),
    ],
    ids=str,
)
def test_each_unit_is_counted_as_it_was_used(proposed: Limit, refused: int) -> None:
    assert replay(proposed, [entry(at / 1_000, total_s=0.0005) for at in range(4)]).refused == refused


def test_slots_are_taken_for_as_long_as_each_request_took() -> None:
    at_once = limit(2, unit=LimitUnit.CONCURRENCY)
    report = replay(
        at_once, [entry(0, total_s=10), entry(1, total_s=10), entry(5), entry(10.5), entry(11, total_s=9)]
    )
    assert [(row.refused, row.first_refused_ms) for row in report.rows] == [(1, MIDNIGHT_MS + 5_000)]


def test_a_budget_begins_anew_at_the_organizations_midnight() -> None:
    entries = [entry(at * 3_600) for at in (-2, -1.5, -0.5, 0.5, 1)]
    day = limit(2, window=Window.DAY)
    assert replay(day, entries).refused == 1
    assert [row.first_refused_ms for row in replay(day, entries, timezone="Europe/Berlin").rows] == [
        MIDNIGHT_MS + 3_600_000
    ]


def test_what_was_never_sent_gives_everything_back() -> None:
    never = [entry(at, sent=False, prompt_tokens=0, completion_tokens=0) for at in range(5)]
    assert replay(limit(1), never).refused == 0
    assert replay(limit(1, unit=LimitUnit.TOKENS), never).refused == 0
    assert replay(limit(1, unit=LimitUnit.CONCURRENCY), [entry(0, total_s=9, sent=False), entry(1)]).refused == 1


def test_what_a_limit_refused_then_counts_as_asked_and_that_is_said() -> None:
    no: dict[str, Any] = {
        "sent": False,
        "limit": "old",
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "upstream": "",
        "total_us": 0,
    }
    report = replay(limit(1), [entry(0, **no), entry(1, **no)])
    assert (report.refused, report.refused_then) == (1, 2)
    assert any("2 requests were refused by a limit at the time" in note for note in report.notes)
    assert replay(limit(150, unit=LimitUnit.INPUT_TOKENS), [entry(0, **no), entry(1, **no)]).refused == 1
    upstream = limit(1, scope=LimitScope.UPSTREAM)
    assert replay(upstream, [entry(0, **no), entry(1, **no)]).requests == 2


@pytest.mark.parametrize(
    ("changes", "requests"),
    [
        ({"scope": LimitScope.ORG}, 3),
        ({"scope": LimitScope.MEMBER}, 3),
        ({"scope": LimitScope.MEMBER, "subject": "mem_2"}, 1),
        ({"scope": LimitScope.MODEL, "subject": "code"}, 2),
        ({"scope": LimitScope.CLIENT, "subject": "vim"}, 2),
        ({"scope": LimitScope.UPSTREAM, "subject": "other"}, 1),
        ({"scope": LimitScope.TEAM}, 2),
        ({"scope": LimitScope.TEAM, "subject": "blue"}, 1),
    ],
)
def test_only_whom_the_limit_is_about_is_judged(changes: dict[str, Any], requests: int) -> None:
    entries = [
        entry(0),
        entry(1, actor="mem_2", client="emacs"),
        entry(2, actor="mem_3", model="chat", upstream="other"),
        entry(3, action="limit.update"),
        entry(4, model=""),
    ]
    report = replay(limit(9, **changes), entries, teams={"mem_1": ["red", "blue"], "mem_2": ["red"]})
    assert report.requests == requests
    assert report.entries == 5


def test_a_member_of_two_teams_needs_a_yes_of_both() -> None:
    entries = [entry(0, actor="mem_1"), entry(1, actor="mem_2"), entry(2, actor="mem_3")]
    teams = {"mem_1": ["red"], "mem_2": ["red", "blue"], "mem_3": ["blue"]}
    report = replay(limit(1, scope=LimitScope.TEAM), entries, teams=teams)
    assert [row.member for row in report.rows] == ["mem_2"]
    assert any("Teams are as they are today" in note for note in report.notes)


def test_money_is_what_was_charged_where_the_log_says_it() -> None:
    charged = entry(0, cost_nanodollars=5)
    assert replay(limit(5, unit=LimitUnit.SPEND, period_s=86_400), [charged, charged]).refused == 1


def test_models_without_a_price_are_named() -> None:
    report = replay(limit(1, unit=LimitUnit.SPEND), [entry(0, upstream_model="free", model="mystery")])
    assert any("mystery" in note for note in report.notes)


def test_no_more_wait_and_no_more_are_told_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.limits.simulation.WAITING", 5)
    monkeypatch.setattr("gateway.limits.simulation.MAX_ROWS", 2)
    simulation = Simulation(limit(1), timezone="UTC", prices={}, upstreams={}, teams=lambda _: ())
    for at in range(40):
        simulation.feed([entry(at / 10, actor=f"mem_{at % 4}")])
        assert len(simulation._arrivals) <= 5
    report = simulation.report(0, 1)
    assert (report.refused, len(report.rows)) == (36, 2)
    assert any("Of 4 who would have been refused, the first 2 are told" in note for note in report.notes)


def test_garbage_in_an_entry_does_no_harm() -> None:
    report = replay(limit(1), [entry(0, actor=7, total_us="x", model="code"), {"action": "chat.create"}, {}])
    assert (report.entries, report.requests) == (3, 0)


@pytest.mark.parametrize(
    ("unit", "amount", "changes"),
    [
        (LimitUnit.REQUESTS, 6, {"burst": 3}),
        (LimitUnit.TOKENS, 900, {"burst": 600}),
        (LimitUnit.OUTPUT_TOKENS, 300, {"on_end": OnEnd.DENY_NEXT}),
        (LimitUnit.BYTES, 90_000, {"window": Window.DAY}),
        (LimitUnit.CONCURRENCY, 1, {}),
    ],
    ids=str,
)
async def test_it_refuses_whom_the_exact_store_would_have_refused(
    unit: LimitUnit, amount: int, changes: dict[str, Any]
) -> None:
    """A random hour of overlapping requests, held against the store that judges one by one."""
    random = Random(7)
    at, entries = 0.0, []
    for _ in range(2_000):
        at += random.expovariate(1)
        tokens = {"prompt_tokens": random.randrange(200), "completion_tokens": random.randrange(100)}
        member, total_s = f"mem_{random.randrange(5)}", random.choice([0, 0.2, 3, 20])
        entries.append(entry(at, actor=member, total_s=total_s, sent=random.random() < 0.9, **tokens))
    proposed = limit(amount, unit=unit, **changes)
    refused = await _refused(proposed, entries)
    in_the_logs_order = sorted(entries, key=_ends_us)
    assert in_the_logs_order != entries
    report = replay(proposed, in_the_logs_order)
    assert {row.member: row.refused for row in report.rows} == refused
    assert report.refused > 100
    assert report.requests - report.refused > 100


async def _refused(proposed: Limit, entries: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many of each member's requests a `LimitStore` refuses that is asked as they come."""
    now, refused = [0], dict[str, int]()
    store = MemoryLimits(lambda: now[0])
    open_: list[tuple[int, int, Hold, Used | None]] = []
    for number, one in enumerate(entries):
        at_us = one["@timestamp"] * 1_000
        while open_ and open_[0][0] <= at_us:
            now[0], _, hold, used = heappop(open_)
            if used is None:
                hold.refund()
            else:
                hold.settle(used)
        now[0] = at_us
        size = one["bytes_in"] + one["bytes_out"]
        used = Used(one["prompt_tokens"], one["completion_tokens"], size) if one["sent"] else None
        slots = proposed.unit in (LimitUnit.REQUESTS, LimitUnit.CONCURRENCY)
        cost = 1 if slots else used.of(proposed.unit) if used else 0
        try:
            held = await store.reserve([_claim(proposed, one["actor"], cost, at_us)])
        except LimitExceededError:
            refused[one["actor"]] = refused.get(one["actor"], 0) + 1
        else:
            heappush(open_, (_ends_us(one), number, held, used))
    return refused


def _claim(proposed: Limit, member: str, cost: int, at_us: int) -> Claim:
    starts_s, ends_s = window_at(proposed.window, "UTC", at_us / 1e6)
    return Claim(
        Quota(
            ACME,
            "new",
            "member",
            member,
            proposed.unit,
            proposed.amount,
            proposed.burst or proposed.amount,
            proposed.period_s,
            starts_s,
            ends_s,
            on_end=proposed.on_end,
        ),
        cost,
        min(cost, 1) if proposed.on_end is OnEnd.DENY_NEXT else -1,
    )


def _ends_us(one: Mapping[str, Any]) -> int:
    return int(one["@timestamp"]) * 1_000 + int(one["total_us"])
