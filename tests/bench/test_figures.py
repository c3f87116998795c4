"""What the benchmark computes from what it measured."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.limits import LimitsCost
from tests.bench.limits import found as limits_found
from tests.bench.measure import Added, CpuRow, Results, cancel_quantile
from tests.bench.processes import core_busy_s, parse_stat, pinned, threads_cpu_s, tree_cpu_s
from tests.bench.report import print_tables, summary
from tests.bench.rig import Cancelled, join_journals, quantile
from tests.bench.stages import STAGES
from tests.bench.targets import Target
from tests.bench.where import WHAT, Where

PROMISED_KEYS = {
    "json_cpu_x",
    "sse_burst_cpu_x",
    "sse_paced_cpu_x",
    "added_p50_ms",
    "added_p99_ms",
    "cancel_p50_ms",
    "cancel_p99_ms",
    "requests_per_core",
}


def cpu_row(cpu_us: float) -> CpuRow:
    return CpuRow(cpu_us, busy=0.9, others=0, rps=1000, p50_ms=1, p99_ms=2, event_p50_ms=0, event_p99_ms=0)


def results() -> Results:
    found = Results()
    for shape, mine, theirs in (("json", 120.0, 30.0), ("sse_burst", 180.0, 36.0), ("sse_paced", 600.0, 300.0)):
        found.cpu["direct", shape] = cpu_row(math.nan)
        found.cpu["HAProxy", shape] = cpu_row(theirs)
        found.cpu["gateway", shape] = cpu_row(mine)
    found.added["gateway"] = Added(0.4, 1.1, 0.5, 1.2)
    found.added["A/A control"] = Added(0.0, 0.01, 0.0, 0.01)
    found.cancels["gateway", "half", 0] = Cancelled(sent=3, reached=2, lost=0, latencies_ms=(0.2, 0.8))
    found.cancels["gateway", "half", 3] = Cancelled(sent=2, reached=2, lost=0, latencies_ms=(0.4, 0.6))
    found.cancels["gateway", "full", 3] = Cancelled(sent=1, reached=1, lost=0, latencies_ms=(9.0,))
    return found


def test_the_last_line_is_flat_json_with_the_promised_keys() -> None:
    figures = json.loads(summary(results()))
    assert figures.keys() >= PROMISED_KEYS
    assert not [value for value in figures.values() if isinstance(value, dict | list)]
    assert (figures["json_cpu_x"], figures["sse_burst_cpu_x"], figures["sse_paced_cpu_x"]) == (4, 5, 2)
    assert figures["requests_per_core"] == 8333
    assert (figures["cancel_p50_ms"], figures["cancel_p50_saturated_ms"]) == (0.6, 9)


def test_what_was_not_measured_is_null() -> None:
    found = results()
    for key in [key for key in found.cpu if key[0] == "gateway"]:
        del found.cpu[key]
    del found.added["gateway"]
    found.cancels.clear()
    figures = json.loads(summary(found))
    assert {figures[key] for key in PROMISED_KEYS} == {None}


def test_tables_mark_rows_whose_core_was_not_full(capsys: pytest.CaptureFixture[str]) -> None:

    found = results()
    found.cpu["gateway", "json"] = cpu_row(120)._replace(busy=0.4, others=0.5)
    print_tables(found, Console(width=160))
    printed = capsys.readouterr().out
    assert "40% *" in printed
    assert "50% †" in printed


def test_journals_are_joined_by_number() -> None:
    client = "cancel 1 1000000\ncancel 2 2000000\ncancel 3 3000000\n"
    upstream = "open 1 10\nopen 2 20\nreset 2 2500000\nopen 9 1\nreset 9 2\n"
    cancelled = join_journals(client, upstream)
    assert cancelled == Cancelled(sent=3, reached=2, lost=0, latencies_ms=(0.5,))
    assert cancelled.dangling == 1
    closed = join_journals(client, upstream + "lost 1 1500000\n")
    assert (closed.lost, closed.dangling) == (1, 0)


def test_quantiles() -> None:
    assert quantile([1, 2, 3, 4], 0.5) == 3
    assert quantile([1, 2], 0.99) == 2
    assert math.isnan(quantile([], 0.5))
    assert math.isnan(cancel_quantile(Results(), "gateway", "half", 0.5))


def test_faults_of_the_load_become_errors() -> None:
    found = Results()
    target = Target("gateway", 1, (), "", Path("ca.pem"))
    clean: dict[str, float] = {"bad": 0, "err": 0, "hung": 0, "short": 0, "bad_status": 0}
    found.note(target, "json", clean)
    assert found.errors == []
    found.note(target, "json", {**clean, "bad": 2, "bad_status": 401})
    assert found.errors == ["gateway, json: {'bad': 2}, first status 401"]


def test_stat_of_a_process_with_a_malicious_name() -> None:
    fields = " ".join(["S", "7", *["0"] * 9, "1", "2", "3", "4", "20", "0"])
    assert parse_stat(f"42 (a) R 1 (x) {fields}") == (7, 10)


def test_cpu_of_a_tree_counts_children_dead_and_alive() -> None:
    """A parent that does nothing, whose child burns until it has used 0.2 s, then waits to be let go."""
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    run = f"subprocess.run([sys.executable, '-c', {burn!r}])"
    parent = f"import subprocess, sys\n{run}\nprint('burnt', flush=True)\ninput()"
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "burnt\n"
    assert tree_cpu_s([process.pid]) >= 0.2
    process.communicate("\n")
    assert tree_cpu_s([process.pid]) == 0


def test_children_start_on_the_core_they_are_pinned_to() -> None:
    allowed = os.sched_getaffinity(0)
    core = max(allowed)
    with pinned(core):
        program = "import os; print(os.sched_getaffinity(0))"
        output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == str({core})
    assert os.sched_getaffinity(0) == allowed
    assert core_busy_s(core) > 0


def test_the_stages_and_the_rest_make_up_the_worker() -> None:
    threads = {"worker, main thread": 120.0, "worker, other threads": 40.0, "other processes": 20.0}
    durability = dict.fromkeys(("audit_strict_1_us", "audit_strict_1_wait_us", "audit_strict_32_us"), 150.0)
    durability |= {"audit_strict_32_wait_us": 600.0, "audit_buffered_us": 8.5}
    where = Where({"server": 30.0, "edge": 25.0, "token": 1.5}, threads, durability)
    assert where.rest == 160 - 56.5
    found = results()
    assert not [key for key in json.loads(summary(found)) if key.startswith("stage_")]
    found.where = where
    figures = json.loads(summary(found))
    assert (figures["stage_token_us"], figures["stage_rest_us"]) == (1.5, 103.5)
    console = Console(width=120, record=True, file=io.StringIO())
    print_tables(found, console)
    printed = console.export_text()
    assert "Where a JSON request" in printed
    assert "180.0" in printed
    assert "buffered 8.5" in printed
    assert figures["audit_strict_32_wait_us"] == 600.0


def test_every_stage_says_what_is_in_it() -> None:
    assert tuple(WHAT) == ("server", "edge", *STAGES)


def test_a_trees_threads_are_told_apart() -> None:
    threads = threads_cpu_s([os.getpid()])
    assert (os.getpid(), threading.get_native_id()) in threads
    # Ticks of a hundredth of a second are what the kernel tells of a thread: not exact.
    assert 0 < sum(threads.values()) <= 1.1 * time.process_time() + 0.1


def test_the_redis_that_counts_limits_is_shown_apart() -> None:
    found = results()
    assert not [key for key in json.loads(summary(found)) if "redis" in key]
    found.cpu["gateway", "json"] = cpu_row(120)._replace(redis_us=2.5)
    figures = json.loads(summary(found))
    assert (figures["gateway_json_redis_cpu_us"], figures["gateway_json_cpu_us"]) == (2.5, 120)
    console = Console(width=160, record=True, file=io.StringIO())
    print_tables(found, console)
    assert "on the other core, µs a request: json 2.5" in console.export_text()


def limit_turns(*noise: float) -> list[dict[str, float]]:
    """Limits cost 20 and the control 2 in each turn; to one of the three in turn the machine adds its noise."""
    own = {"free": 100.0, "limited": 121.0, "control": 102.0}
    turns = []
    for n, much in enumerate(noise):
        unlucky = list(own)[n % 3]
        turns.append({**own, unlucky: own[unlucky] + much, "evalsha": 60.0 + n % 2})
    return turns


def test_what_limits_add_is_told_by_those_spells_that_the_machine_left_alone() -> None:
    cost = limits_found(limit_turns(90, 300, 40, 80, 20, 500))
    assert (cost.busy, cost.control, cost.whole, cost.evalsha) == (20.0, 2.0, 100.0, 60.0)
    assert (cost.usual, cost.times) == (20.0, 3.0)


def test_how_far_what_limits_add_may_be_off() -> None:
    def turns(*noise: float) -> list[dict[str, float]]:
        return [
            {**turn, "limited": 121 + much} for turn, much in zip(limit_turns(*[0] * 30), noise * 10, strict=True)
        ]

    still, noisy, again = (limits_found(turns(*noise)) for noise in ((0, 0, 0), (0, 10, 20), (0, 10, 20)))
    assert still.spread == 0
    assert noisy.spread == 5  # the quartile is among those of 0 or of 10, as the draw has it
    assert noisy == again


def test_what_limits_add_is_shown_beside_one_evalsha() -> None:
    found = results()
    assert "limits_busy_us" not in json.loads(summary(found))
    found.limits = LimitsCost(busy=12.5, spread=0.5, control=-1.0, whole=120.0, evalsha=75.0, usual=13.0)
    figures = json.loads(summary(found))
    assert (figures["limits_busy_us"], figures["limits_control_us"], figures["limits_evalsha_x"]) == (12.5, -1, 6)
    console = Console(width=120, record=True, file=io.StringIO())
    print_tables(found, console)
    assert "6.0" in console.export_text()
