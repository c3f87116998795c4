"""The runs in miniature, and that programs which count limits as others do are found out by them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from tenants.models import LimitUnit
from tests.kit.redis import redis_server
from tests.limits.journal import ADMITTED, PENDING, REFUSED, Journal, answered, read
from tests.limits.plan import Bound, Plan
from tests.limits.plans import plans
from tests.limits.run import WORDS, measure, report, summary
from tests.limits.subjects import REDIS, REPLICAS, SPLIT

QUIET = Console(quiet=True)
RATE = 1_500


def tiny(name: str, limit: int, *, outage_at: float = 0.0) -> Plan:
    bounds = (Bound("r", "org", LimitUnit.REQUESTS, limit, limit // 4),)
    return Plan(name, 3_000, RATE, bounds, workers=3, seed=3, outage_at=outage_at, outage_s=0.3)


def test_redis_killed_in_the_middle() -> None:
    """What is proven is proven by the full size; this is the way there, on a machine that does other things."""
    plan = tiny("requests", RATE // 2, outage_at=0.5)
    with redis_server() as store:
        verdict = measure(plan, REDIS, store, QUIET)
    assert not [fault for fault in verdict.faults if "%" not in fault]
    figures = verdict.figures
    assert figures.keys() == WORDS.keys()
    assert figures["requests"] == 3_000
    assert figures["pending"] == figures["unavailable"] == 0
    assert figures["admitted_over_pct"] < 10
    assert figures["shortfall_pct"] < 10
    printed = Console(record=True, quiet=True, width=120)
    report({"requests": verdict}, {}, printed)
    line = json.loads(json.dumps(summary({"requests": verdict}, {})))
    assert line["requests"] == 3_000
    assert line["wrongly_refused_pct"] == line["requests_wrongly_refused_pct"]


def test_a_limit_for_each_replica_is_found_out() -> None:
    verdict = measure(tiny("replicas", RATE // 2), REPLICAS, None, QUIET)
    assert verdict.figures["admitted_over_pct"] > 20
    assert any("more was admitted" in fault for fault in verdict.faults)


def test_a_limit_split_evenly_is_found_out() -> None:
    """A little more comes than may pass, but not to every worker."""
    verdict = measure(tiny("split", RATE * 5 // 6), SPLIT, None, QUIET)
    assert verdict.figures["admitted_over_pct"] < 1
    assert any("though there was room" in fault for fault in verdict.faults)
    assert any("less was admitted" in fault for fault in verdict.faults)


def test_a_journal_is_there_although_nobody_closed_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, 4)
    for number in range(3):
        journal.called(number, 10 + number, who=7, cost=5, lasts_us=100, would_use=4)
    journal.answered(0, 20, ADMITTED)
    journal.spending(0, 2)
    journal.answered(1, 21, REFUSED)
    found = list(read(path))
    assert [(r.called, r.verdict, r.charged, r.sent) for r in found] == [
        (10, ADMITTED, 2, 1),
        (11, REFUSED, 0, 0),
        (12, PENDING, 0, 0),
    ]
    assert answered(path) == 2
    journal.ended(0, 30, 4, sent=True)
    assert next(read(path))[2:] == (30, ADMITTED, 7, 5, 4, 1, 100, 4)
    journal.close()


@pytest.mark.parametrize("small", [True, False])
def test_every_plan_offers_twice_its_limits(small: bool) -> None:
    for plan in plans(small=small, seed=1):
        assert sum(plan.count(worker) for worker in range(plan.workers)) == plan.requests
        bound = plan.bounds[0]
        arrivals = [a for _, a in zip(range(4_000), plan.arrivals(0), strict=False)]
        units = sum(bound.charged(a.used, sent=a.sent) for a in arrivals) / len(arrivals) * plan.requests
        allowed = bound.amount * (1 if bound.budget else plan.seconds)
        assert 1.5 < units / allowed < 2.1


def test_arrivals_are_the_same_again_and_another_seed_is_other_arrivals() -> None:
    first, again, other = (plans(small=True, seed=seed)[1] for seed in (1, 1, 2))
    assert list(first.arrivals(3)) == list(again.arrivals(3)) != list(other.arrivals(3))
