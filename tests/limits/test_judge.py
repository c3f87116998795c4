"""The judge finds each thing that could be wrong with a run, and nothing in one that is exact."""

from __future__ import annotations

import random

import pytest
from msgspec import structs

from tenants.models import LimitUnit
from tests.limits.journal import ADMITTED, PENDING, REFUNDED, REFUSED, UNAVAILABLE, Record
from tests.limits.judge import SLACK_US, Verdict, judge, replay_admitted, replay_exact
from tests.limits.plan import SECOND_US, Bound, Plan

REQUESTS = Bound("r", "org", LimitUnit.REQUESTS, 100, 100)
TOKENS = Bound("t", "org", LimitUnit.TOKENS, 1_000, 1_000)
MEMBER = Bound("m", "member", LimitUnit.REQUESTS, 10, 10, subjects=3)
EACH_US = 5_000
"""Between arrivals: 200 a second."""


def plan(count: int, *bounds: Bound) -> Plan:
    return Plan("test", count, SECOND_US // EACH_US, bounds, outage_at=0)


def record(called: int, verdict: int, *, cost: int = 1, used: int = 1, **more: int) -> Record:
    admitted = verdict == ADMITTED
    plain = Record(
        called=called,
        answered=called + 1_000,
        ended=called + 1_000 if admitted else 0,
        verdict=verdict,
        who=0,
        cost=cost,
        charged=used if admitted else 0,
        sent=int(admitted),
        lasts_us=1_000,
        would_use=used,
    )
    return plain._replace(**more)


def exactly(count: int, *, over: float = 0.0, refuse: float = 0.0, free: int = 0) -> list[Record]:
    """What an exact store would have done with `count` requests; `over`: the part of its refusals that were
    admitted all the same, `refuse`: of those it admitted that were refused. The first `free` are exact."""
    random_ = random.Random(1)
    level, found = 100.0, []
    for number in range(count):
        level = min(100.0, level + 0.5)
        exact = admit = level >= 1
        if number >= free and random_.random() < (refuse if admit else over):
            admit = not admit
        level -= exact and admit
        found.append(record(1 + number * EACH_US, ADMITTED if admit else REFUSED))
    return found


def judged(records: list[Record], *bounds: Bound, count: int = 0) -> Verdict:
    return judge(plan(count or len(records), *(bounds or (REQUESTS,))), records, store_died=False)


def test_an_exact_run() -> None:
    verdict = judged(exactly(4_000))
    assert verdict.faults == []
    figures = verdict.figures
    assert figures["requests"] == 4_000
    assert figures["admitted"] == figures["model_admits"] == 2_099
    assert figures["admitted_over_pct"] == figures["wrongly_refused_pct"] == figures["shortfall_pct"] == 0
    assert figures["seconds"] == 20.0


def test_too_many_are_admitted() -> None:
    verdict = judged(exactly(4_000, over=0.05))
    assert any("more was admitted" in fault for fault in verdict.faults)
    assert 3 < verdict.figures["admitted_over_pct"] < 6
    assert verdict.figures["worst_moment_pct"] > 50


def test_some_are_refused_though_there_is_room() -> None:
    """Of the bucket that fills up meanwhile; after that there is room again for those who come next."""
    verdict = judged(exactly(4_000, refuse=0.3))
    assert any("though there was room" in fault for fault in verdict.faults)


def test_a_refusal_that_room_was_left_for_once_counts_once() -> None:
    """One unit lies idle all the time: one request could have had it, not each that was refused meanwhile."""
    records = exactly(4_000)
    records[50] = record(records[50].called, REFUSED)
    really = replay_admitted(plan(4_000, REQUESTS), records)
    assert really.wrong == 1


def test_a_refusal_whose_room_went_before_its_answer_is_right() -> None:
    one = Bound("r", "org", LimitUnit.REQUESTS, 1, 1)
    slow = record(1, REFUSED, answered=900)
    other = record(2, ADMITTED)  # before the answer to the first
    assert replay_admitted(plan(2, one), [slow, other]).wrong == 0
    assert replay_admitted(plan(2, one), [slow._replace(answered=1), other]).wrong == 1


def test_a_refusal_may_rest_on_what_was_so_a_moment_ago() -> None:
    """The bucket was empty until shortly before: a worker that was told so then says it again."""
    one = Bound("r", "org", LimitUnit.REQUESTS, 100, 1)  # there is another every 10 ms
    first = record(1, ADMITTED)
    soon, late = record(10_101, REFUSED), record(10_002 + SLACK_US, REFUSED)
    assert replay_admitted(plan(2, one), [first, soon]).wrong == 0
    assert replay_admitted(plan(2, one), [first, soon], slack_us=0).wrong == 1
    assert replay_admitted(plan(2, one), [first, late]).wrong == 1


def test_two_who_could_have_had_the_same_unit_are_one_wrong_refusal() -> None:
    one = Bound("r", "org", LimitUnit.REQUESTS, 1, 1)
    assert replay_admitted(plan(2, one), [record(1, REFUSED), record(2, REFUSED)]).wrong == 1


def test_what_comes_back_is_room() -> None:
    """A reservation of everything, settled on half: from then on there is room for the other half."""
    big = record(1, ADMITTED, cost=1_000, used=500, ended=SECOND_US // 10)
    early = record(2, REFUSED, cost=400, used=400)
    late = record(SECOND_US // 10 + SLACK_US, REFUSED, cost=400, used=400)
    assert replay_admitted(plan(2, TOKENS), [big, early]).wrong == 0
    assert replay_admitted(plan(2, TOKENS), [big, late]).wrong == 1


def test_what_was_used_beyond_its_reservation_is_charged() -> None:
    records = [record(1, ADMITTED, cost=500, used=1_500)]
    really = replay_admitted(plan(1, TOKENS), records)
    assert (really.charged, round(really.over_pct)) == (1_500, 50)


def test_a_refund_gives_the_request_itself_back() -> None:
    refunded = record(1, ADMITTED, used=0, sent=0, would_use=REFUNDED)
    assert replay_admitted(plan(1, REQUESTS), [refunded]).charged == 0
    assert replay_exact(plan(1, REQUESTS), [refunded]) == [True]


def test_each_bucket_is_judged_for_itself() -> None:
    """One member of three takes all that the organization may have."""
    records = [record(1 + number, ADMITTED) for number in range(60)]
    verdict = judged(records, REQUESTS, MEMBER)
    assert verdict.figures["admitted_over_pct"] > 400
    spread = [each._replace(who=number % 3) for number, each in enumerate(records[:30])]
    assert judged(spread, REQUESTS, MEMBER).figures["admitted_over_pct"] == 0


def test_a_refusal_is_right_when_one_bucket_of_several_has_no_room() -> None:
    records = [record(1 + number, ADMITTED) for number in range(10)]
    refused = record(20, REFUSED)
    assert replay_admitted(plan(11, REQUESTS, MEMBER), [*records, refused]).wrong == 0
    assert replay_admitted(plan(11, REQUESTS, MEMBER), [*records, refused._replace(who=1)]).wrong == 1


def test_a_budget_is_over_at_its_end() -> None:
    budget = Bound("b", "org", LimitUnit.TOKENS, 100, 100, budget=True)
    records = [record(1 + number * SECOND_US, ADMITTED) for number in range(110)]
    assert judged(records, budget).figures["admitted_over_pct"] == 10


def test_a_store_that_cannot_be_asked_has_refused() -> None:
    records = exactly(4_000)
    records[:30] = [each._replace(verdict=UNAVAILABLE, ended=0) for each in records[:30]]
    verdict = judged(records)
    assert verdict.figures["unavailable"] == 30
    assert verdict.figures["wrongly_refused"] == 30
    assert any("though there was room" in fault for fault in verdict.faults)


def test_a_run_without_its_middle_or_its_end_proves_nothing() -> None:
    records = exactly(4_000)
    lacking = judged(records[:-1], count=4_000)
    assert any("3999 of 4000" in fault for fault in lacking.faults)
    records[7] = records[7]._replace(verdict=PENDING, ended=0)
    assert any("no answer" in fault for fault in judged(records).faults)
    outage = structs.replace(plan(4_000, REQUESTS), outage_at=0.5)
    assert any("to be killed" in fault for fault in judge(outage, exactly(4_000), store_died=False).faults)
    assert judge(outage, exactly(4_000), store_died=True).faults == []
    assert judged([record(1, ADMITTED)]).faults == ["the limits were never reached: nothing was shown"]
    assert judge(outage, [], store_died=True).faults == ["nobody asked for anything"]


@pytest.mark.parametrize("seed", range(5))
def test_what_the_model_itself_admits_has_no_fault(seed: int) -> None:
    """Reservations that last, cancels and refunds: the run of an exact store is found exact."""
    asked = Plan(
        "model", 3_000, 1_000, (TOKENS_ALOT, EVERYBODY), seed=seed, cancelled=0.45, lasting=True, people=7
    )
    arrivals = sorted(arrival for worker in range(asked.workers) for arrival in asked.arrivals(worker))
    records = [
        record(
            1 + a.at_us,
            REFUSED,
            who=a.who,
            cost=a.cost,
            lasts_us=a.lasts_us,
            would_use=a.used if a.sent else REFUNDED,
        )
        for a in arrivals
    ]
    run = [
        admitted(each) if yes else each for each, yes in zip(records, replay_exact(asked, records), strict=True)
    ]
    verdict = judge(structs.replace(asked, outage_at=0), run, store_died=False)
    assert verdict.faults == []
    assert verdict.figures["wrongly_refused"] == 0
    assert verdict.figures["shortfall_pct"] == 0


def admitted(asked: Record) -> Record:
    return asked._replace(
        verdict=ADMITTED,
        answered=asked.called,
        ended=asked.called + asked.lasts_us,
        charged=max(asked.would_use, 0),
        sent=int(asked.would_use != REFUNDED),
    )


TOKENS_ALOT = Bound("t", "org", LimitUnit.TOKENS, 200_000, 200_000)
EVERYBODY = Bound("m", "member", LimitUnit.REQUESTS, 80, 80, subjects=7)
