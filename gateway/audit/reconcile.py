"""Whether a day's requests, entries, settled usage and counters say the same. Pure.

A request is of the UTC day on which it began: its receipt says when, its entry says the same (`@timestamp`), and
its worker counts it under that day, in the step in which it counts it for `orgate_requests_total`. So the two sums
of a day are of the same requests, whenever these ended, and have to be equal to the unit: for each worker by
itself.

What may differ, and is told beside it:

- a worker that was killed: what it had counted since its last report, a second before, nobody has. Its entries are
  all there, so the log has more; it may never have less.
- a request that was under way when its worker was killed has an entry with outcome `unknown`, and was never
  counted: those are left out.
- a budget of the whole organization counts by its own window. A request belongs to the window in which it was
  admitted, so what began before a boundary and ended after it may be in either: `used` lies between the two sums.
  It is not compared where the limit was set, changed or reset within the window, or a worker was killed in it, nor
  where several gateways count it together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from gateway.audit.daily import DAY_MS, Glance, glances
from tenants.auditdays import Tally
from tenants.budgets import BudgetUse
from tenants.models import LimitUnit

UNKNOWN: Final = "unknown"
SLACK_MS: Final = 10_000
"""Of what a budget is asked for every two seconds until its window ends: what ends this late in it may not have
been written down."""

TEXT_MAX: Final = 20
"""Workers and budgets that are told one by one."""


class Figures(Struct, frozen=True):
    """Sums over requests. `nanodollars` by the price tables of their moments."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    nanodollars: int = 0

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.nanodollars + other.nanodollars,
        )

    def least(self, other: Figures) -> bool:
        """Whether none of these is more than in `other`."""
        return (
            self.requests <= other.requests
            and self.prompt_tokens <= other.prompt_tokens
            and self.completion_tokens <= other.completion_tokens
            and self.nanodollars <= other.nanodollars
        )

    def beyond(self, other: Figures) -> Figures:
        """These less `other`."""
        return self + Figures(-other.requests, -other.prompt_tokens, -other.completion_tokens, -other.nanodollars)


class WorkerState(StrEnum):
    """`LOST`: it has gone without a last report."""

    ALIVE = "alive"
    ENDED = "ended"
    LOST = "lost"


class WorkerFigures(Struct, frozen=True):
    """Of one boot of a worker on one day. `last_report_at`: Unix seconds, 0: none came."""

    boot: str
    state: WorkerState
    entries: Figures
    counted: Figures
    last_report_at: int = 0

    @property
    def agrees(self) -> bool:
        if self.state is WorkerState.LOST:
            return self.counted.least(self.entries)
        return self.entries == self.counted


class BudgetFigures(Struct, frozen=True):
    """One budget whose window ended on the day: what is kept of it, and what the log says it must lie between.
    `remark`: why it is not compared, '' when it is. Times in Unix seconds."""

    limit: str
    unit: LimitUnit
    starts_at: int
    ends_at: int
    used: int
    least: int
    most: int
    remark: str = ""

    @property
    def agrees(self) -> bool:
        return bool(self.remark) or self.least <= self.used <= self.most


class Reconciliation(Struct, frozen=True):
    """A day of one organization, counted twice and more. `entries`: those of requests in its log, without the
    `unknown` ones; `counted`: by its workers; `unreported`: of the entries those that lost workers had not
    reported. `judged`: the day is over, so that they have to agree; `differences`: figures that do not."""

    org: str
    day: str
    judged: bool
    ok: bool
    entries: Figures
    counted: Figures
    unreported: Figures
    unknown: int
    differences: int
    workers: tuple[WorkerFigures, ...]
    budgets: tuple[BudgetFigures, ...]
    faults: tuple[str, ...]
    remarks: tuple[str, ...]


class DaySums:
    """What the log says of one day, by the worker's boot that served."""

    def __init__(self, day: int) -> None:
        self.unknown = 0
        self._day = day
        self._boots: dict[str, list[int]] = {}

    def feed(self, lines: bytes) -> None:
        for entry in glances(lines):
            if entry.day != self._day:
                continue
            if entry.outcome == UNKNOWN:
                self.unknown += 1
            elif entry.spool is not None:
                self._add(str(entry.spool[0]), entry)

    def _add(self, boot: str, entry: Glance) -> None:
        sums = self._boots.setdefault(boot, [0, 0, 0, 0])
        sums[0] += 1
        sums[1] += entry.prompt_tokens
        sums[2] += entry.completion_tokens
        sums[3] += entry.cost_nanodollars

    def boots(self) -> dict[str, Figures]:
        return {boot: Figures(*sums) for boot, sums in self._boots.items()}


class WindowSums:
    """What the log says of one budget's window: at least, and at most."""

    def __init__(self, use: BudgetUse) -> None:
        self.use = use
        self.least = self.most = 0
        self.touched = ""
        self._begin, self._end = use.starts_s * 1000, use.ends_s * 1000

    def feed(self, lines: bytes) -> None:
        for entry in glances(lines):
            ended = entry.at + entry.total_us // 1000
            if entry.spool is None:
                if (
                    entry.action.startswith("limit.")
                    and entry.action != "limit.threshold"
                    and entry.target == self.use.limit
                    and self._begin <= entry.at < self._end
                ):
                    self.touched = entry.action
            elif entry.sent and ended >= self._begin and entry.at < self._end:
                units = _units(self.use.unit, entry)
                self.most += units
                if entry.at >= self._begin and ended < self._end - SLACK_MS:
                    self.least += units


def _units(unit: LimitUnit, entry: Glance) -> int:
    match unit:
        case LimitUnit.REQUESTS:
            return 1
        case LimitUnit.TOKENS:
            return entry.prompt_tokens + entry.completion_tokens
        case LimitUnit.INPUT_TOKENS:
            return entry.prompt_tokens
        case LimitUnit.OUTPUT_TOKENS:
            return entry.completion_tokens
        case LimitUnit.SPEND:
            return entry.cost_nanodollars
        case _:
            return 0


def compared(unit: LimitUnit) -> bool:
    """Bytes are counted with what the log does not say of them (what the upstream sent and the client did not
    take), slots are given back."""
    return unit not in (LimitUnit.BYTES, LimitUnit.CONCURRENCY)


def workers(
    entries: Mapping[str, Figures], tallies: Iterable[Tally], alive: Collection[str]
) -> tuple[WorkerFigures, ...]:
    """Side by side, by boot."""
    known = {tally.boot: tally for tally in tallies}
    found = []
    for boot in sorted({*entries, *known}):
        tally = known.get(boot)
        counted = Figures()
        state = WorkerState.ALIVE if boot in alive else WorkerState.LOST
        if tally is not None:
            counted = Figures(tally.requests, tally.prompt_tokens, tally.completion_tokens, tally.nanodollars)
            state = WorkerState.ENDED if tally.ended else state
        found.append(
            WorkerFigures(boot, state, entries.get(boot, Figures()), counted, 0 if tally is None else tally.at)
        )
    return tuple(found)


def budget(sums: WindowSums, *, lost: bool, shared: bool = False) -> BudgetFigures:
    """`lost`: a worker was killed within the window; `shared`: other gateways draw from it too."""
    use = sums.use
    remark = ""
    if not compared(use.unit):
        remark = f"{use.unit.value} are not in entries"
    elif shared:
        remark = "it is counted in Redis, for other gateways too perhaps, whose requests are in their logs"
    elif sums.touched:
        remark = f"the limit was changed within the window ({sums.touched})"
    elif lost:
        remark = "a worker was killed within the window: what it had been lent counts as used"
    return BudgetFigures(use.limit, use.unit, use.starts_s, use.ends_s, use.used, sums.least, sums.most, remark)


def judge(
    org: str,
    day: str,
    found: tuple[WorkerFigures, ...],
    budgets: tuple[BudgetFigures, ...],
    *,
    unknown: int,
    over: bool,
) -> Reconciliation:
    """Say what differs, in words. `over`: the day is."""
    entries, counted, unreported = Figures(), Figures(), Figures()
    faults, remarks = [], []
    differences = 0
    for one in found:
        entries += one.entries
        counted += one.counted
        if not one.agrees:
            differences += _distance(one)
            faults.append(_words(one))
        elif one.state is WorkerState.LOST and one.entries != one.counted:
            more = one.entries.beyond(one.counted)
            unreported += more
            remarks.append(f"worker {one.boot[:8]} was lost: {more.requests} requests that it had not reported")
    for use in budgets:
        if not use.agrees:
            differences += 1
            faults.append(
                f"the budget '{use.limit}' has {use.used} {use.unit.value} used in its window, "
                f"the log says {_span(use)}"
            )
        elif use.remark:
            remarks.append(f"the budget '{use.limit}' is not compared: {use.remark}")
    if unknown:
        remarks.append(f"{unknown} requests were under way when their worker was killed: outcome 'unknown'")
    if not over:
        remarks.append("the day is not over: nothing is judged")
        differences, faults = 0, []
    return Reconciliation(
        org=org,
        day=day,
        judged=over,
        ok=not differences,
        entries=entries,
        counted=counted,
        unreported=unreported,
        unknown=unknown,
        differences=differences,
        workers=found,
        budgets=budgets,
        faults=_bounded(faults),
        remarks=_bounded(remarks),
    )


def _distance(one: WorkerFigures) -> int:
    """How many requests differ; 1 when only their figures do."""
    return abs(one.entries.requests - one.counted.requests) or 1


def _words(one: WorkerFigures) -> str:
    who = f"worker {one.boot[:8]} ({one.state.value})"
    less = one.counted.requests - one.entries.requests
    if less > 0:
        return f"{who} counted {one.counted.requests} requests, the log has {one.entries.requests}: {less} missing"
    if less < 0:
        return (
            f"{who} counted {one.counted.requests} requests, the log has {one.entries.requests}: {-less} too many"
        )
    names = ("prompt_tokens", "completion_tokens", "nanodollars")
    differing = [
        f"{name} {getattr(one.entries, name)} in the log, {getattr(one.counted, name)} counted"
        for name in names
        if getattr(one.entries, name) != getattr(one.counted, name)
    ]
    return f"{who}: {'; '.join(differing)}"


def _span(use: BudgetFigures) -> str:
    return f"{use.least}" if use.least == use.most else f"{use.least} to {use.most}"


def _bounded(texts: list[str]) -> tuple[str, ...]:
    if len(texts) <= TEXT_MAX:
        return tuple(texts)
    return (*texts[:TEXT_MAX], f"and {len(texts) - TEXT_MAX} more")


def day_bounds_s(day: int) -> tuple[int, int]:
    """From and up to which Unix second a day goes."""
    return day * DAY_MS // 1000, (day + 1) * DAY_MS // 1000
