"""The program: starts a gateway, lets the storm rage, judges what is left.

    python -m tests.soak [--seed N]

`SIZE=small` in the environment makes it end in a minute. Exits 1 when what it proves doesn't hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.bench.processes import Cores, choose_cores, pinned
from tests.bench.rig import Rig, RigError, running
from tests.integration.gateway.bed import prepare
from tests.integration.gateway.invariants import COUNTED, SETTLED_S, judge_log
from tests.integration.gateway.world import Entry, connect
from tests.kit.certs import make_pki
from tests.kit.gateway import RunningGateway
from tests.soak import storm
from tests.soak.http1 import Http1Clients
from tests.soak.judge import Verdict, judge
from tests.soak.storm import FULL, HTTP1_IDS, SMALL, Size, read_upstream
from tests.soak.world import BUDGET, CONNECTIONS, Tenant, anonymous_mb, populate, worker

SEED = 20_26
HTTP1_CLIENTS = 4
PATIENCE_S = 30.0

WORDS = {
    "requests": "that came to an end, the streams beside them and HTTP/1.1 included",
    "cancelled": "given up by their client before the end",
    "reset_or_done": "of these: reset upstream, ended there already, or never sent there",
    "dangling": "left open upstream",
    "spurious": "reset or lost upstream, and nobody had cancelled them",
    "innocent_failures": "not cancelled, and yet not answered whole: a status, a gap, a reset",
    "new_connections": "beyond those that are configured upstream, and lost by a client",
    "rss_growth_mb": "the worker's own memory, from warm-up to end",
    "reached_upstream": "requests that the upstream got",
    "reset_upstream": "of these: reset by the gateway",
    "cancelled_before_sent": "given up before anything went upstream; they cost nothing",
    "unheard": "HTTP/1.1, closed before the server had looked: nobody's request, and no entry",
    "entries_missing_or_twice": "requests without exactly one audit entry",
    "seconds": "that the storm took",
    "requests_per_s": "through one worker",
}


@dataclass
class Memory:
    """The worker's memory as the soak goes on. `growth`: from its first third, the warm-up, to the end."""

    pid: int
    total: int
    warm: list[float] = field(default_factory=list)

    def sample(self, finished: int) -> None:
        if self.total * 0.3 <= finished <= self.total * 0.4 or not self.warm:
            self.warm.append(anonymous_mb(self.pid))

    def growth(self) -> float:
        return anonymous_mb(self.pid) - median(self.warm[1:] or self.warm)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=SEED, help="of the moments at which requests are cancelled")
    seed = parser.parse_args().seed
    console = Console(width=None if sys.stdout.isatty() else 120)
    size = SMALL if os.environ.get("SIZE") == "small" else FULL
    console.print(f"seed {seed}, {size.requests + size.http1:,} requests, {size.innocents} streams beside them")
    try:
        verdict = soak(size, seed, Console(stderr=True))
    except (RigError, RuntimeError, OSError, AssertionError) as problem:
        Console(stderr=True).print(f"[red]the soak ended early:[/red] {problem}", highlight=False)
        return 1
    report(verdict, console)
    sys.stdout.write(json.dumps(verdict.figures) + "\n")
    return 1 if verdict.faults else 0


def soak(size: Size, seed: int, screen: Console) -> Verdict:
    """One soak from an empty machine. Raises `RigError` when the rig can't be built, AssertionError for what a
    log, a budget or a metric says that can't be."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orgate-soak-")))
        pki = make_pki(folder / "tls")
        cores = _cores()
        program = storm.build(folder / "bin")
        rig = stack.enter_context(running(folder, pki, cores))
        gateway = RunningGateway(folder / "gateway", settings={"ORGATE_SERVER__REQUEST_TIMEOUT_S": "3600"})
        stack.callback(gateway.http.close)
        stack.callback(gateway.stop)
        with pinned(cores.target):
            gateway.start()
        tenants = populate(gateway, pki, f"https://127.0.0.1:{rig.upstream_port}")
        bar = stack.enter_context(_bar(screen))
        task = bar.add_task("requests", total=size.requests)
        return asyncio.run(
            _soak(size, seed, program, rig, gateway, tenants, lambda count: bar.update(task, completed=count))
        )


async def _soak(
    size: Size,
    seed: int,
    program: Path,
    rig: Rig,
    gateway: RunningGateway,
    tenants: list[Tenant],
    show: Callable[[int], None],
) -> Verdict:
    people = [person for tenant in tenants for person in tenant.people]
    memory = Memory(worker(gateway), size.requests)

    def progress(finished: int) -> None:
        memory.sample(finished)
        show(finished)

    memory.sample(0)
    numbers = iter(range(HTTP1_IDS, HTTP1_IDS + size.http1))
    http1 = Http1Clients(gateway.public_port, gateway.ca, people, numbers, seed)
    started = time.monotonic()
    beside = asyncio.ensure_future(http1.run(HTTP1_CLIENTS))
    try:
        totals, done = await storm.run(
            program,
            rig.folder,
            rig.cores,
            size,
            seed,
            port=gateway.public_port,
            ca=gateway.ca,
            principals=people,
            progress=progress,
        )
        await beside
    finally:
        beside.cancel()
    seconds = time.monotonic() - started
    done |= http1.done
    await _nothing_open(rig.upstream_journal)
    growth = memory.growth()
    entries = [entry for tenant in tenants for entry in await _closing_balance(gateway, tenant)]
    upstream = read_upstream(rig.upstream_journal.read_text())
    extra = max(upstream.connections - CONNECTIONS * len(tenants), 0) + totals["reconnects"]
    verdict = judge(
        done,
        upstream,
        entries,
        asked=size.requests + size.http1 + size.innocents,
        share=size.share,
        new_connections=extra,
        growth_mb=growth,
        seconds=seconds,
    )
    if totals["hung"] or not totals["settled"]:
        verdict.faults.append(f"{totals['hung']} requests came to no end; {totals['complaint']}")
    return verdict


async def _nothing_open(journal: Path) -> None:
    """Wait until the upstream has heard of every end; what is open after that is dangling, and judged so."""
    end = time.monotonic() + PATIENCE_S
    while read_upstream(journal.read_text()).dangling and time.monotonic() < end:
        await asyncio.sleep(0.2)


async def _closing_balance(gateway: RunningGateway, tenant: Tenant) -> list[Entry]:
    """The storm's entries in the organization's log, which verifies and agrees with the metrics; and what is left
    of its budget is what they say, within what the time has refilled."""
    end = time.monotonic() + SETTLED_S
    async with await connect(gateway) as client:
        while True:
            fresh, headers, body = prepare(tenant.owner, tenant.model, prompt=COUNTED)
            fresh.stream = client.request("POST", "/v1/completions", headers, body)
            await fresh.stream.complete()
            assert fresh.stream.status == 200, fresh.stream.body
            entries = await judge_log(tenant.owner)
            while not any(entry["request_id"] == fresh.request_id for entry in entries):
                assert time.monotonic() < end, f"{tenant.owner.org}: the last request has no entry"
                entries = await judge_log(tenant.owner)
            fault = BUDGET.fault(fresh, entries, time.monotonic() - tenant.laid_at)
            if not fault:
                return [entry for entry in entries if entry["request_id"].startswith("soak-")]
            assert time.monotonic() < end, f"{tenant.owner.org}: {fault}"


def report(verdict: Verdict, console: Console) -> None:
    """The figures as a table, each with what it stands for; then what is wrong."""
    table = Table("figure", "", "what it is", title="Soak")
    for name, words in WORDS.items():
        table.add_row(name, f"{verdict.figures[name]:,}", words)
    console.print(table)
    for fault in verdict.faults:
        console.print(f"[red]✗[/red] {fault}", highlight=False)
    if not verdict.faults:
        console.print(
            "[green]✓[/green] nobody but the cancelled noticed anything; every log verifies", highlight=False
        )


def _bar(screen: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=screen
    )


def _cores() -> Cores:
    """One for the gateway and one for the rig; the same where there is only one."""
    try:
        return choose_cores()
    except RuntimeError:
        only = min(os.sched_getaffinity(0))
        return Cores(only, only)
