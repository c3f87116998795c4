"""The judges of what is measured beside the runs can fail, each for its reasons."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from gateway.limits.protocol import LEASE_S, Standings
from tenants.models import LimitUnit
from tests.bench.limits import LimitsCost
from tests.limits import cost, lost, neighbour
from tests.limits.journal import ADMITTED, REFUSED, Record
from tests.limits.judge import Verdict
from tests.limits.neighbour import Latencies, Turn
from tests.limits.run import OTHERS, report, summary


def record(verdict: int, charged: int) -> Record:
    return Record(1, 2, 3, verdict, 0, 900, charged, 1, 100, charged)


def standing(unit: LimitUnit, *, used: int = 0, lent: int = 0) -> Standings:
    amount = 10_000
    return Standings("x", "", unit, amount, amount, 0, 0, 1, amount - used - lent, lent, 0, 7)


def killed(
    *, off: int = 0, tokens: int = 0, slots: int = 0, count: int = 200, after_s: float = 1, buried: bool = True
) -> Verdict:
    records = [record(ADMITTED, 300), record(REFUSED, 0), record(ADMITTED, 200)]
    left = [
        standing(LimitUnit.TOKENS, used=500 + off, lent=tokens),
        standing(LimitUnit.CONCURRENCY, lent=slots),
    ]
    return lost.judge(records, left, open_at_kill=count, lent_at_kill=50, settled_s=after_s, buried=buried)


def test_books_of_a_killed_worker_that_are_right() -> None:
    verdict = killed()
    assert verdict.faults == []
    assert verdict.figures.keys() == lost.WORDS.figures.keys()
    assert (verdict.figures["tokens_used"], verdict.figures["settled_ms"]) == (500, 1_000)
    assert killed(off=50, buried=False).faults == []  # what it was lent counts as spent


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (killed(off=1), r"+1 tokens are charged"),
        (killed(off=-1), r"-1 tokens are charged"),
        (killed(off=51, buried=False), "50 may be"),
        (killed(slots=1), "1 slots"),
        (killed(tokens=1), "1 tokens are in dead hands"),
        (killed(count=199), "only 199"),
        (killed(after_s=LEASE_S + 1), "ended after 4.0 s"),
    ],
)
def test_books_of_a_killed_worker_that_are_wrong(verdict: Verdict, words: str) -> None:
    assert any(words in fault for fault in verdict.faults), verdict.faults


COST = LimitsCost(busy=12.34, spread=1.0, control=-0.5, whole=120.0, evalsha=61.7, usual=13.0)


def test_a_cost_beyond_the_bar() -> None:
    fair = cost.judge(COST)
    assert fair.faults == []
    assert fair.figures == {
        "busy_us": 12.3,
        "spread_us": 1.0,
        "usual_us": 13.0,
        "control_us": -0.5,
        "whole_us": 120.0,
        "evalsha_us": 61.7,
        "evalsha_x": 5.0,
    }
    dear = cost.judge(replace(COST, busy=15.1))
    assert dear.faults == ["15.1 µs a request for two busy limits, 15 may be"]
    assert cost.judge(replace(COST, busy=15.1), judged=False).faults == []
    assert cost.WORDS.figures.keys() == dear.figures.keys()


def latencies(loud_ms: float, after_ms: float = 2.0, *, failed: int = 0, refused: int = 900) -> Latencies:
    turn = Turn(*([1.0] * 49 + [slow] for slow in (2.0, loud_ms, after_ms)))
    return Latencies([turn] * 3, failed, refused, 100)


def test_a_neighbour_that_is_moved() -> None:
    fair = neighbour.judge(latencies(2.1))
    assert fair.faults == []
    assert fair.figures.keys() == neighbour.WORDS.figures.keys()
    assert (fair.figures["p99_moved_pct"], fair.figures["p99_control_pct"]) == (5.0, 0.0)
    assert any("moved by 20.0 %" in fault for fault in neighbour.judge(latencies(2.4)).faults)
    # The machine itself moves by 15 %: no more can be told.
    assert neighbour.judge(latencies(2.55, after_ms=2.3)).faults == []
    assert any("not refused: nothing" in fault for fault in neighbour.judge(latencies(2.0, refused=99)).faults)
    restless = Latencies([*latencies(2.0).turns, *latencies(9.0, after_ms=9.0).turns], refused=900)
    assert any("% off: nothing was shown" in fault for fault in neighbour.judge(restless).faults)
    assert neighbour.judge(restless, p99=False).faults == []
    assert any("1 requests" in fault for fault in neighbour.judge(latencies(2.0, failed=1)).faults)


def test_everything_is_printed_and_in_the_last_line() -> None:
    others = {
        "killed": killed(),
        "killed_machine": killed(buried=False),
        "cost": cost.judge(COST),
        "neighbour": neighbour.judge(latencies(2.4)),
    }
    assert others.keys() == OTHERS.keys()
    printed = Console(width=120, record=True, file=io.StringIO())
    report({}, others, printed)
    text = printed.export_text()
    assert "✗ neighbour: the quiet" in text
    assert "every bar is met" not in text
    line = summary({}, others)
    assert (line["cpu_us_per_request"], line["killed_tokens_off"]) == (12.3, 0)
