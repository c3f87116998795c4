"""The program: makes the runs, judges each, prints the figures.

    python -m tests.limits [--seed N]

`SIZE=small` in the environment makes it end in a minute. Exits 1 when what it proves doesn't hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.kit.redis import RedisServer, redis_server
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.limits", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=SEED, help="of arrivals, uses and cancels")
    parser.add_argument("--only", default="", help="runs whose names hold this")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    chosen = [p for p in plans(small=os.environ.get("SIZE") == "small", seed=given.seed) if given.only in p.name]
    verdicts: dict[str, Verdict] = {}
    try:
        for plan in chosen:
            with redis_server() as store:
                verdicts[plan.name] = measure(plan, REDIS, store, Console(stderr=True))
    except (RunError, OSError) as problem:
        Console(stderr=True).print(f"[red]the runs ended early:[/red] {problem}", highlight=False)
        return 1
    report(verdicts, console)
    sys.stdout.write(json.dumps(summary(verdicts)) + "\n")
    return 1 if any(verdict.faults for verdict in verdicts.values()) else 0


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


def summary(verdicts: dict[str, Verdict]) -> dict[str, float | int]:
    """The last line: of each figure that has a bar the worst of all runs, then those of each run."""
    line: dict[str, float | int] = {"requests": int(sum(v.figures["requests"] for v in verdicts.values()))}
    for name in ("admitted_over_pct", "wrongly_refused_pct"):
        line[name] = max(verdict.figures[name] for verdict in verdicts.values())
    for plan, verdict in verdicts.items():
        line |= {f"{plan}_{name}": value for name, value in verdict.figures.items()}
    return line


def report(verdicts: dict[str, Verdict], console: Console) -> None:
    """The figures as a table, a column for each run; then what is wrong."""
    table = Table("figure", *verdicts, "what it is", title="Limits")
    for name, words in WORDS.items():
        table.add_row(name, *(f"{verdict.figures[name]:,}" for verdict in verdicts.values()), words)
    console.print(table)
    for name, verdict in verdicts.items():
        for fault in verdict.faults:
            console.print(f"[red]✗[/red] {name}: {fault}", highlight=False)


def _bar(screen: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=screen
    )
