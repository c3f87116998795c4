"""The program: builds the rig, starts the targets, measures, prints.

    python -m tests.bench [--without-gateway] [--limits embedded]

`SIZE=small` in the environment makes it end in a minute. Exits 1 on errors (something failed, a request went
wrong), never because a figure is poor.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import httpx
from rich.console import Console

from tests.bench.limits import measure_limits
from tests.bench.measure import FULL, SMALL, Bench, Results
from tests.bench.processes import choose_cores
from tests.bench.report import print_tables, summary
from tests.bench.rig import RigError, running
from tests.bench.targets import MissingPackageError, direct_target, gateway_target, haproxy_target
from tests.bench.where import measure_where
from tests.kit.certs import make_pki


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--without-gateway", action="store_true", help="measure the rig: direct and HAProxy only")
    parser.add_argument(
        "--limits",
        choices=("redis", "embedded"),
        default="redis",
        help="where the gateway counts limits: a Redis on the rig's core, whose CPU is shown apart, or itself",
    )
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    progress = Console(stderr=True)
    try:
        results = _measure(progress, with_gateway=not options.without_gateway, limits=options.limits)
    except (RigError, MissingPackageError, RuntimeError, OSError, AssertionError, httpx.HTTPError) as problem:
        progress.print(f"[red]the benchmark cannot run:[/red] {problem}", highlight=False)
        return 1
    print_tables(results, console)
    sys.stdout.write(summary(results) + "\n")
    return 1 if results.errors else 0


def _measure(progress: Console, *, with_gateway: bool, limits: str) -> Results:
    size = SMALL if os.environ.get("SIZE") == "small" else FULL
    cores = choose_cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orgate-bench-")))
        pki = make_pki(folder / "tls")
        rig = stack.enter_context(running(folder, pki, cores))
        targets = [
            direct_target(rig.upstream_port, pki),
            stack.enter_context(haproxy_target(folder / "haproxy", rig.upstream_port, pki, cores)),
        ]
        if with_gateway:
            opened = gateway_target(folder / "gateway", rig.upstream_port, pki, cores, limits=limits)
            targets.append(stack.enter_context(opened))
        # The load's few milliseconds of Python belong to the rig's core too.
        os.sched_setaffinity(0, {cores.rig})

        def say(what: str) -> None:
            progress.print(f"· {what}", highlight=False)

        results = Bench(rig, targets, size, say).all()
        if with_gateway:
            say("where the microseconds go")
            results.where = measure_where(rig, targets[-1], folder, pki, size.seconds)
            if limits == "redis":
                say(f"what limits cost, {size.limit_rounds} turns")
                results.limits = measure_limits(
                    rig, folder / "limits", pki, rounds=size.limit_rounds, seconds=size.limit_seconds
                )
        return results
