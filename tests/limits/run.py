"""The program: makes the runs, judges each, prints the figures.

    python -m tests.limits [--seed N] [--only NAME]

`SIZE=small` in the environment makes it end in about a minute. Exits 1 when what it proves doesn't hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.bench.rig import RigError
from tests.kit.redis import RedisServer, redis_server
from tests.limits import cost, lost, neighbour
from tests.limits.judge import Verdict, judge
from tests.limits.plan import Plan
from tests.limits.plans import plans
from tests.limits.race import RunError, race
from tests.limits.subjects import REDIS

SEED = 20_26

WORDS = {
    "requests": "made, by all workers",
    "admitted": "of these",
    "model_admits": "an exact store would have admitted so many of the same arrivals",
    "admitted_over_pct": "more than limit × time + burst",
    "worst_moment_pct": "of the burst: the most by which any stretch was over",
    "wrongly_refused": "refused although there was room from 25 ms before the call to the answer",
    "wrongly_refused_pct": "of those that an exact store would have admitted",
    "out_of_turn_pct": "the same without the 25 ms: somebody who came a moment later had it",
    "shortfall_pct": "fewer units than an exact store would have admitted",
    "unavailable": "answered that the store cannot be asked",
    "pending": "never answered",
    "seconds": "from the first call to the last",
    "worker_cpu_us": "CPU a request of the workers, making and writing it down included",
}

BARRED = ("admitted_over_pct", "wrongly_refused_pct", "shortfall_pct")
"""Of these the last line has the worst of all runs."""

Say = Callable[[str], None]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.limits", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=SEED, help="of arrivals, uses and cancels")
    parser.add_argument("--only", default="", help="what has this in its name")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    screen = Console(stderr=True)
    small = os.environ.get("SIZE") == "small"
    runs: dict[str, Verdict] = {}
    others: dict[str, Verdict] = {}
    try:
        for plan in plans(small=small, seed=given.seed):
            if given.only in plan.name:
                with redis_server() as store:
                    runs[plan.name] = measure(plan, REDIS, store, screen)
                _tell(plan.name, runs[plan.name], screen)
        for name, made in rest(screen, small=small):
            if given.only in name:
                others[name] = made()
                _tell(name, others[name], screen)
    except (RunError, RigError, RuntimeError, OSError, AssertionError, httpx.HTTPError) as problem:
        screen.print(f"[red]the runs ended early:[/red] {problem}", highlight=False)
        return 1
    report(runs, others, console)
    sys.stdout.write(json.dumps(summary(runs, others)) + "\n")
    return 1 if any(verdict.faults for verdict in (runs | others).values()) else 0


def measure(plan: Plan, subject: str, store: RedisServer | None, screen: Console) -> Verdict:
    """One run and its judgement. Raises `RunError`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orgate-limits-")))
        bar = stack.enter_context(_bar(screen))
        task = bar.add_task(plan.name, total=plan.requests)
        outcome = asyncio.run(
            race(plan, subject, store, folder, lambda answered: bar.update(task, completed=answered))
        )
        verdict = judge(plan, outcome.records, store_died=outcome.store_died)
    verdict.figures["worker_cpu_us"] = round(outcome.cpu_s / plan.requests * 1e6, 1)
    return verdict


def rest(screen: Console, *, small: bool) -> Iterator[tuple[str, Callable[[], Verdict]]]:
    """What is measured beside the runs, by name. Raises `RunError` and `RigError`."""

    def say(what: str) -> None:
        screen.print(f"· {what}", highlight=False)

    def killed(*, buried: bool) -> Verdict:
        say("a worker is killed" + ("" if buried else ", and nobody settles for it"))
        with redis_server() as store:
            return asyncio.run(lost.kill_one(store, buried=buried, progress=lambda _: None))

    def costs() -> Verdict:
        say("what limits cost")
        return cost.measure(cost.SMALL if small else cost.FULL, say)

    yield "killed", lambda: killed(buried=True)
    if not small:
        yield "killed_machine", lambda: killed(buried=False)
    yield "cost", costs
    yield "neighbour", lambda: neighbour.measure(neighbour.SMALL if small else neighbour.FULL, say)


def summary(runs: dict[str, Verdict], others: dict[str, Verdict]) -> dict[str, float | int]:
    """The last line: of each figure that has a bar the worst of all runs, then everything."""
    line: dict[str, float | int] = {}
    if runs:
        line["requests"] = int(sum(v.figures["requests"] for v in runs.values()))
        for name in BARRED:
            line[name] = max(verdict.figures[name] for verdict in runs.values())
    if "cost" in others:
        line["cpu_us_per_request"] = others["cost"].figures["busy_us"]
    for name, verdict in (runs | others).items():
        line |= {f"{name}_{figure}": value for figure, value in verdict.figures.items()}
    return line


def report(runs: dict[str, Verdict], others: dict[str, Verdict], console: Console) -> None:
    """The figures of the runs as a table, a column for each, everything else below; then what is wrong."""
    if runs:
        table = Table("figure", *runs, "what it is", title="Limits on Redis, killed and restarted in the middle")
        for figure, meaning in WORDS.items():
            table.add_row(figure, *(f"{verdict.figures[figure]:,}" for verdict in runs.values()), meaning)
        console.print(table)
    for name, verdict in others.items():
        words = OTHERS[name]
        table = Table("figure", "", "what it is", title=words.title)
        for figure, meaning in words.figures.items():
            table.add_row(figure, f"{verdict.figures[figure]:,}", meaning)
        console.print(table)
    for name, verdict in (runs | others).items():
        for fault in verdict.faults:
            console.print(f"[red]✗[/red] {name}: {fault}", highlight=False)
    if not any(verdict.faults for verdict in (runs | others).values()):
        console.print("[green]✓[/green] every bar is met", highlight=False)


OTHERS = {
    "killed": lost.WORDS,
    "killed_machine": lost.WORDS_OF_MACHINE,
    "cost": cost.WORDS,
    "neighbour": neighbour.WORDS,
}


def _tell(name: str, verdict: Verdict, screen: Console) -> None:
    """At once how it went: the whole takes minutes."""
    screen.print(f"  {name}: {'; '.join(verdict.faults) or 'every bar is met'}", highlight=False)


def _bar(screen: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=screen
    )
