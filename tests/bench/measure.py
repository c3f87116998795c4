"""The measurements: targets take turns in every round, and each figure is the median over the rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from tests.bench.limits import LimitsCost
from tests.bench.processes import core_busy_s, tree_cpu_s
from tests.bench.rig import (
    BURST,
    JSON,
    PACED,
    SEQUENTIAL,
    SEQUENTIAL_STREAM,
    Cancelled,
    Figures,
    Rig,
    Shape,
    quantile,
)
from tests.bench.targets import Target
from tests.bench.where import Where

SHAPES = (JSON, BURST, PACED)
HALF_LOAD = 0.4
"""Of the JSON requests a second the target reached: with the cancels beside them still at most half its load."""


class Size(NamedTuple):
    """How long everything takes. `requests`: of one sequential round."""

    rounds: int
    seconds: float
    latency_rounds: int
    requests: int
    cancel_seconds: float
    cancel_rate: float
    limit_rounds: int = 80
    limit_seconds: float = 0.3


FULL = Size(rounds=3, seconds=3, latency_rounds=9, requests=500, cancel_seconds=4, cancel_rate=100)
SMALL = Size(
    rounds=3,
    seconds=0.5,
    latency_rounds=7,
    requests=50,
    cancel_seconds=0.8,
    cancel_rate=100,
    limit_rounds=5,
    limit_seconds=0.2,
)


class CpuRow(NamedTuple):
    """`cpu_us` per request of the whole tree and `busy`, its share of its core: NaN without a tree.

    `others`: the share of that core that went to anything else, which the target had to wait for. `redis_us`: CPU
    per request of the Redis that counts the target's limits, on the other core and not in `cpu_us`; NaN without.
    """

    cpu_us: float
    busy: float
    others: float
    rps: float
    p50_ms: float
    p99_ms: float
    event_p50_ms: float
    event_p99_ms: float
    redis_us: float = float("nan")


class Added(NamedTuple):
    """Milliseconds beyond the direct requests of the same round."""

    p50_ms: float
    p99_ms: float
    first_byte_p50_ms: float
    first_byte_p99_ms: float


@dataclass
class Results:
    """By target's name; `cancels` also by load (`half`, `full`) and by events before the cancel."""

    cpu: dict[tuple[str, str], CpuRow] = field(default_factory=dict)
    added: dict[str, Added] = field(default_factory=dict)
    cancels: dict[tuple[str, str, int], Cancelled] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    where: Where | None = None
    limits: LimitsCost | None = None

    def note(self, target: Target, what: str, figures: Figures) -> None:
        """Remembers what should not have happened in one run of the load."""
        wrong = {key: figures[key] for key in ("bad", "err", "hung", "short") if figures[key]}
        if wrong:
            status = f", first status {figures['bad_status']:.0f}" if figures["bad"] else ""
            self.errors.append(f"{target.name}, {what}: {wrong}{status}")


class Bench:
    """Measures `targets`, the direct one first. `say` is told what comes next."""

    def __init__(self, rig: Rig, targets: Sequence[Target], size: Size, say: Callable[[str], None]) -> None:
        self._rig = rig
        self._targets = targets
        self._size = size
        self._say = say
        self.results = Results()

    def all(self) -> Results:
        self._warm_up()
        self._measure_cpu()
        self._measure_latency()
        self._measure_cancels()
        return self.results

    def _warm_up(self) -> None:
        self._say("warming up")
        for target in self._targets:
            for shape in SHAPES:
                self.results.note(target, f"warm-up {shape.name}", self._rig.run(target, shape, seconds=0.3))

    def _measure_cpu(self) -> None:
        rows: dict[tuple[str, str], list[CpuRow]] = {}
        for turn in range(self._size.rounds):
            for shape in SHAPES:
                self._say(f"CPU per request, {shape.name}, round {turn + 1} of {self._size.rounds}")
                for target in self._targets:
                    rows.setdefault((target.name, shape.name), []).append(self._cpu_row(target, shape))
        for key, found in rows.items():
            self.results.cpu[key] = CpuRow(*(median(column) for column in zip(*found, strict=True)))

    def _cpu_row(self, target: Target, shape: Shape) -> CpuRow:
        core = self._rig.cores.target
        before, core_before = tree_cpu_s(target.pids), core_busy_s(core)
        redis_before = tree_cpu_s([target.redis])
        figures = self._rig.run(target, shape, seconds=self._size.seconds)
        used = tree_cpu_s(target.pids) - before if target.pids else float("nan")
        others = core_busy_s(core) - core_before - used
        self.results.note(target, shape.name, figures)
        return CpuRow(
            cpu_us=used / max(figures["ok"], 1) * 1e6,
            busy=used / figures["seconds"],
            others=max(others / figures["seconds"], 0.0) if target.pids else others,
            rps=figures["rps"],
            p50_ms=figures["p50"],
            p99_ms=figures["p99"],
            event_p50_ms=figures["event_p50"],
            event_p99_ms=figures["event_p99"],
            redis_us=(tree_cpu_s([target.redis]) - redis_before) / max(figures["ok"], 1) * 1e6
            if target.redis
            else float("nan"),
        )

    def _measure_latency(self) -> None:
        """The direct target goes first and last in each round: their difference is the A/A control."""
        self._say(f"added latency, {self._size.latency_rounds} rounds")
        direct, *others = self._targets
        added: dict[str, list[Added]] = {}
        for _ in range(self._size.latency_rounds):
            base = self._sequential(direct)
            for target in others:
                added.setdefault(target.name, []).append(_minus(self._sequential(target), base))
            added.setdefault("A/A control", []).append(_minus(self._sequential(direct), base))
        for name, found in added.items():
            self.results.added[name] = Added(*(median(column) for column in zip(*found, strict=True)))

    def _sequential(self, target: Target) -> Added:
        whole = self._rig.run(target, SEQUENTIAL, seconds=10, count=self._size.requests)
        stream = self._rig.run(target, SEQUENTIAL_STREAM, seconds=10, count=self._size.requests)
        self.results.note(target, "sequential", whole)
        self.results.note(target, "sequential streams", stream)
        return Added(whole["p50"], whole["p99"], stream["first_byte_p50"], stream["first_byte_p99"])

    def _measure_cancels(self) -> None:
        for load in ("half", "full"):
            for after in (0, 3):
                self._say(f"cancelling after {after} events, load: {load}")
                for target in self._targets:
                    self._cancel(target, load, after)

    def _cancel(self, target: Target, load: str, after: int) -> None:
        reached = self.results.cpu[target.name, JSON.name].rps
        cancelled, figures = self._rig.cancel(
            target,
            after_events=after,
            seconds=self._size.cancel_seconds,
            rate=self._size.cancel_rate,
            background_rate=reached * HALF_LOAD if load == "half" else 0,
        )
        self.results.cancels[target.name, load, after] = cancelled
        what = f"cancelling after {after} events at {load} load"
        for part in figures:
            self.results.note(target, what, part)
        if cancelled.dangling:
            self.results.errors.append(
                f"{target.name}, {what}: {cancelled.dangling} of {cancelled.reached} never reset upstream"
            )
        if not cancelled.reached:
            self.results.errors.append(f"{target.name}, {what}: no cancelled request reached the upstream")


def cancel_quantile(results: Results, target: str, load: str, part: float) -> float:
    """Over all points at which streams were cancelled, in ms."""
    found = [row for (name, at, _), row in results.cancels.items() if (name, at) == (target, load)]
    return quantile(sorted(latency for row in found for latency in row.latencies_ms), part)


def _minus(left: Added, right: Added) -> Added:
    return Added(*(a - b for a, b in zip(left, right, strict=True)))
