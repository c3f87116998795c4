"""From what the workers wrote down to figures, and to what they prove. Pure.

Every run is replayed twice through exact single-process buckets (`model`), the requests of all workers merged in
the order in which they were made:

1. *charged with what the run really admitted*: at the call all that was reserved; what came back, when it did.
   **Admitted over**: of each bucket, the units charged in all beyond its limit × time (from the first call to the
   last answer) and its burst, in percent of that. The worst moment is shown beside it: the most by which any
   stretch of the run was over, in percent of the burst.
   **Wrongly refused**: requests that were refused although all of their buckets had room all the time from
   `SLACK_US` before the call to the answer. (Where one had none for a moment, an exact store asked in that moment
   would have refused as well; and a worker that has been told no may say so again for so long.) A refusal that was
   found wrong holds on to its room, until somebody who comes later is admitted with it: what one request could
   have had is not counted for every one that was refused meanwhile. An answer that says the store cannot be asked
   is a refusal.
   **Out of turn**: the same without `SLACK_US`. Somebody who came a few milliseconds later was admitted instead.
2. *deciding itself*, whom it admits: how many that are is what wrongly refused is a percentage of. The units of
   which the run admitted fewer than that are its **shortfall**.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from tests.limits.journal import ADMITTED, PENDING, REFUNDED, UNAVAILABLE, Record
from tests.limits.model import Exact, Watched
from tests.limits.plan import SECOND_US, Bound, Plan

SLACK_US = 25_000

FOREVER = 2**62


@dataclass
class Verdict:
    """`figures` as they are printed, `faults` in words: what was to be proven and isn't so."""

    figures: dict[str, float | int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


class Words(NamedTuple):
    """What a table says of figures."""

    title: str
    figures: dict[str, str]


@dataclass(frozen=True)
class Really:
    """The first replay. `over_pct` and `worst_pct` (of the burst) are the worst bucket's; `charged`: units of the
    plan's first limit."""

    over_pct: float
    worst_pct: float
    wrong: int
    charged: int


def judge(plan: Plan, records: Iterable[Record], *, store_died: bool) -> Verdict:
    """`store_died`: whether the plan's outage has happened."""
    arrived = sorted(records)
    if not arrived:
        return Verdict(faults=["nobody asked for anything"])
    really = replay_admitted(plan, arrived)
    out_of_turn = replay_admitted(plan, arrived, slack_us=0).wrong
    would_admit = [record for record, yes in zip(arrived, replay_exact(plan, arrived), strict=True) if yes]
    admitted = len(would_admit)
    first = plan.bounds[0]
    units = sum(first.charged(max(r.would_use, 0), sent=r.would_use != REFUNDED) for r in would_admit)
    counts = [sum(record.verdict == verdict for record in arrived) for verdict in range(4)]
    wrong_pct = 100 * really.wrong / max(admitted, 1)
    short_pct = 100 * max(units - really.charged, 0) / max(units, 1)
    verdict = Verdict(
        {
            "requests": len(arrived),
            "admitted": counts[ADMITTED],
            "model_admits": admitted,
            "admitted_over_pct": round(really.over_pct, 3),
            "worst_moment_pct": round(really.worst_pct, 3),
            "wrongly_refused": really.wrong,
            "wrongly_refused_pct": round(wrong_pct, 3),
            "out_of_turn_pct": round(100 * out_of_turn / max(admitted, 1), 3),
            "shortfall_pct": round(short_pct, 3),
            "unavailable": counts[UNAVAILABLE],
            "pending": counts[PENDING],
            "seconds": round((arrived[-1].called - arrived[0].called) / SECOND_US, 1),
        }
    )
    claims = [
        (len(arrived) == plan.requests, f"{len(arrived)} of {plan.requests} requests were made"),
        (not counts[PENDING], f"{counts[PENDING]} requests had no answer"),
        (store_died or not plan.outage_at, "the store was to be killed in the middle, and was not"),
        (really.over_pct <= plan.bar_pct, f"{really.over_pct:.2f} % more was admitted than limit + burst"),
        (wrong_pct <= plan.bar_pct, f"{wrong_pct:.2f} % were refused though there was room"),
        (short_pct <= plan.bar_pct, f"{short_pct:.2f} % less was admitted than there was room for"),
        (admitted < len(arrived), "the limits were never reached: nothing was shown"),
    ]
    verdict.faults = [fault for holds, fault in claims if not holds]
    return verdict


_Bucket = TypeVar("_Bucket", bound=Exact)


class _Buckets(Generic[_Bucket]):
    """Those of a plan, and which of them a request draws from."""

    def __init__(self, plan: Plan, make: Callable[[Bound], _Bucket]) -> None:
        self.bounds = plan.bounds
        self.of = [[make(bound) for _ in range(bound.subjects)] for bound in plan.bounds]

    def __iter__(self) -> Iterator[tuple[Bound, _Bucket]]:
        for bound, found in zip(self.bounds, self.of, strict=True):
            for each in found:
                yield bound, each

    def drawn(self, record: Record) -> list[tuple[_Bucket, int]]:
        """With how many units of each are reserved, all as of the request's call."""
        found = []
        for bound, buckets in zip(self.bounds, self.of, strict=True):
            each = buckets[record.who % bound.subjects]
            each.refill(record.called)
            found.append((each, bound.reserved(record.cost)))
        return found

    def settle(self, record: Record, now_us: int, used: int, *, sent: bool) -> None:
        for bound, buckets in zip(self.bounds, self.of, strict=True):
            each = buckets[record.who % bound.subjects]
            each.refill(now_us)
            each.give(bound.reserved(record.cost) - bound.charged(used, sent=sent))


class _Suspect(NamedTuple):
    """A refusal for which there has been room so far; until its answer it may turn out to be right."""

    until_us: int
    number: int
    drawn: Sequence[tuple[Watched, int]]

    @property
    def has_room(self) -> bool:
        return all(bucket.has(units) for bucket, units in self.drawn)


class _Court:
    """Who was refused wrongly: for whom there was room whenever it is looked."""

    def __init__(self) -> None:
        self._suspects: list[_Suspect] = []  # a heap: `number` is unique, so that `drawn` is never compared
        self.wrong = 0

    def accuse(self, suspect: _Suspect, since_us: int) -> None:
        if all(bucket.had(units, since_us) for bucket, units in suspect.drawn):
            heapq.heappush(self._suspects, suspect)

    def look_again(self) -> None:
        """Room has been taken: let go whose request it is no longer enough for."""
        if self._suspects:
            self._suspects = [each for each in self._suspects if each.has_room]
            heapq.heapify(self._suspects)

    def convict(self, now_us: int) -> None:
        while self._suspects and self._suspects[0].until_us <= now_us:
            suspect = heapq.heappop(self._suspects)
            self.wrong += 1
            for bucket, units in suspect.drawn:
                bucket.wrong(units)
            self.look_again()


def replay_admitted(plan: Plan, arrived: Sequence[Record], *, slack_us: int = SLACK_US) -> Really:
    """`arrived` in order of `called`."""
    buckets = _Buckets(plan, lambda bound: Watched(bound, arrived[0].called, slack_us))
    ends: list[tuple[int, int]] = []
    court = _Court()
    for number, record in enumerate(arrived):
        _settle_until(record.called, arrived, buckets, ends, court)
        drawn = buckets.drawn(record)
        if record.verdict == ADMITTED:
            for bucket, units in drawn:
                bucket.take(units)
            court.look_again()
            if record.ended:
                heapq.heappush(ends, (max(record.ended, record.called), number))
        elif record.verdict != PENDING:
            suspect = _Suspect(max(record.answered, record.called), number, drawn)
            court.accuse(suspect, record.called - slack_us)
    _settle_until(FOREVER, arrived, buckets, ends, court)
    span_us = max(record.answered for record in arrived) - arrived[0].called
    over = worst = 0.0
    for bound, bucket in buckets:
        allowed = bound.burst + bucket.rate * span_us / bucket.tick
        over = max(over, 100 * (bucket.charged - allowed) / allowed)
        worst = max(worst, 100 * bucket.worst / bound.burst)
    first = sum(bucket.charged for bound, bucket in buckets if bound is plan.bounds[0])
    return Really(over, worst, court.wrong, first)


def _settle_until(
    now_us: int,
    arrived: Sequence[Record],
    buckets: _Buckets[Watched],
    ends: list[tuple[int, int]],
    court: _Court,
) -> None:
    """Everything that ended, came back or was answered up to then, in its order."""
    while ends and ends[0][0] <= now_us:
        at_us, number = heapq.heappop(ends)
        court.convict(at_us)
        ended = arrived[number]
        buckets.settle(ended, at_us, ended.charged, sent=bool(ended.sent))
        court.look_again()  # a use beyond what was reserved takes room
    court.convict(now_us)


def replay_exact(plan: Plan, arrived: Sequence[Record]) -> list[bool]:
    """Whom of them an exact store would have admitted. What it admits lasts and uses as planned."""
    buckets = _Buckets(plan, lambda bound: Exact(bound, arrived[0].called))
    ends: list[tuple[int, int]] = []
    admitted = []
    for number, record in enumerate(arrived):
        while ends and ends[0][0] <= record.called:
            at_us, ended = heapq.heappop(ends)
            use = arrived[ended].would_use
            buckets.settle(arrived[ended], at_us, max(use, 0), sent=use != REFUNDED)
        drawn = buckets.drawn(record)
        admitted.append(all(bucket.has(needed) for bucket, needed in drawn))
        if admitted[-1]:
            for bucket, needed in drawn:
                bucket.take(needed)
            heapq.heappush(ends, (record.called + record.lasts_us, number))
    return admitted
