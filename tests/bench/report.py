"""Tables for people, one line of JSON for programs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from tests.bench.limits import LimitsCost
from tests.bench.measure import SHAPES, Results, cancel_quantile
from tests.bench.rig import JSON, PACED, quantile
from tests.bench.where import WHAT, Where

BUSY_ENOUGH = 0.75
QUIET_ENOUGH = 0.10
BASELINE = "HAProxy"
TARGET = "gateway"
RATIO_KEYS = {"json": "json_cpu_x", "sse_burst": "sse_burst_cpu_x", "sse_paced": "sse_paced_cpu_x"}


def print_tables(results: Results, console: Console) -> None:
    console.print(_cpu_table(results))
    if results.where is not None:
        console.print(_where_table(results.where))
    if results.limits is not None:
        console.print(_limits_table(results.limits))
    console.print(_latency_table(results))
    console.print(_cancel_table(results))
    for error in results.errors:
        console.print(f"[red]error:[/red] {error}")


def summary(results: Results) -> str:
    """The last line: flat JSON. A figure that was not measured is null."""
    figures: dict[str, float | int] = {key: _ratio(results, shape) for shape, key in RATIO_KEYS.items()}
    added = results.added.get(TARGET)
    control = results.added["A/A control"]
    figures |= {
        "added_p50_ms": added.p50_ms if added else math.nan,
        "added_p99_ms": added.p99_ms if added else math.nan,
        "added_first_byte_p50_ms": added.first_byte_p50_ms if added else math.nan,
        "added_first_byte_p99_ms": added.first_byte_p99_ms if added else math.nan,
        "control_p50_ms": control.p50_ms,
        "control_p99_ms": control.p99_ms,
    }
    for load, suffix in (("half", ""), ("full", "_saturated")):
        for name, part in (("p50", 0.5), ("p99", 0.99)):
            figures[f"cancel_{name}{suffix}_ms"] = cancel_quantile(results, TARGET, load, part)
    cancels = [row for (name, _, _), row in results.cancels.items() if name == TARGET]
    figures["cancels"] = sum(row.sent for row in cancels)
    figures["cancels_dangling"] = sum(row.dangling for row in cancels)
    figures["cancels_connection_closed"] = sum(row.lost for row in cancels)
    cpu = results.cpu.get((TARGET, JSON.name))
    figures["requests_per_core"] = round(1e6 / cpu.cpu_us) if cpu else math.nan
    for (name, shape), row in results.cpu.items():
        if not math.isnan(row.cpu_us):
            figures[f"{name.lower()}_{shape}_cpu_us"] = row.cpu_us
            figures[f"{name.lower()}_{shape}_busy"] = row.busy
        if not math.isnan(row.redis_us):
            figures[f"{name.lower()}_{shape}_redis_cpu_us"] = row.redis_us
    if results.where is not None:
        figures |= {f"stage_{stage}_us": cost for stage, cost in results.where.stages.items()}
        figures["stage_rest_us"] = results.where.rest
        figures |= results.where.durability
    if results.limits is not None:
        figures |= {f"limits_{name}_us": cost for name, cost in asdict(results.limits).items()}
        figures["limits_evalsha_x"] = results.limits.times
    figures["errors"] = len(results.errors)
    return json.dumps({key: _plain(value) for key, value in figures.items()})


def _ratio(results: Results, shape: str) -> float:
    mine, theirs = results.cpu.get((TARGET, shape)), results.cpu.get((BASELINE, shape))
    return mine.cpu_us / theirs.cpu_us if mine and theirs and theirs.cpu_us else math.nan


def _plain(value: float) -> float | int | None:
    if isinstance(value, int):
        return value
    return None if math.isnan(value) else round(value, 3)


def _cpu_table(results: Results) -> Table:
    table = Table(
        title="CPU per request, whole process tree on one core (median of the rounds)", title_justify="left"
    )
    table.add_column("load")
    table.add_column("through")
    for heading in (
        "µs a request",
        "× HAProxy",
        "core busy",
        "by others",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "token p99 ms",
    ):
        table.add_column(heading, justify="right")
    notes: set[str] = set()
    for shape in SHAPES:
        base = results.cpu.get((BASELINE, shape.name))
        for (name, measured), row in results.cpu.items():
            if measured != shape.name:
                continue
            # A paced load is not meant to fill the core.
            idle = shape is not PACED and row.busy < BUSY_ENOUGH
            if idle:
                notes.add(f"* below {BUSY_ENOUGH:.0%}: the target was not what limited the requests a second")
            if row.others > QUIET_ENOUGH:
                notes.add(f"† above {QUIET_ENOUGH:.0%}: the machine was not quiet, latencies are too high")
            table.add_row(
                shape.name,
                name,
                _number(row.cpu_us, 1),
                _number(row.cpu_us / base.cpu_us if base and base.cpu_us else math.nan, 2),
                _number(row.busy * 100, 0, "%") + (" *" if idle else ""),
                _number(row.others * 100, 0, "%") + (" †" if row.others > QUIET_ENOUGH else ""),
                _number(row.rps, 0),
                _number(row.p50_ms, 2),
                _number(row.p99_ms, 2),
                _number(row.event_p99_ms, 2) if shape is PACED else "",
            )
        table.add_section()
    redis = [
        f"{shape} {row.redis_us:.1f}" for (_, shape), row in results.cpu.items() if not math.isnan(row.redis_us)
    ]
    if redis:
        notes.add(f"Redis, which counts the gateway's limits on the other core, µs a request: {', '.join(redis)}")
    table.caption = "\n".join(sorted(notes))
    table.caption_justify = "left"
    return table


def _where_table(where: Where) -> Table:
    table = Table(title="Where a JSON request's CPU goes, µs (each stage measured alone)", title_justify="left")
    table.add_column("stage")
    table.add_column("µs", justify="right")
    table.add_column("what is in it")
    for stage, cost in where.stages.items():
        table.add_row(stage, _number(cost, 1), WHAT[stage])
    table.add_section()
    table.add_row("sum", _number(sum(where.stages.values()), 1), "")
    table.add_row("rest", _number(where.rest, 1), "the worker beyond its stages: the bus, many requests at a time")
    table.add_section()
    for name, cost in where.threads.items():
        table.add_row(name, _number(cost, 1), "")
    table.add_row(
        "whole gateway", _number(sum(where.threads.values()), 1), "in the run that this was held against"
    )
    costs = where.durability
    if costs:
        table.caption = (
            f"Intent and receipt on the request's path: buffered {costs['audit_buffered_us']:.1f}. Strict, one"
            f" at a time: {costs['audit_strict_1_us']:.0f} and a wait of {costs['audit_strict_1_wait_us']:.0f};"
            f" 32 at a time: {costs['audit_strict_32_us']:.0f} and {costs['audit_strict_32_wait_us']:.0f}."
        )
        table.caption_justify = "left"
    return table


def _limits_table(cost: LimitsCost) -> Table:
    table = Table(title="What two limits add to a JSON request's CPU in the gateway, µs", title_justify="left")
    headings = (
        "half used, in Redis",
        "±",
        "nothing added (control)",
        "whole request",
        "one EVALSHA",
        "times as much",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    figures = (cost.busy, cost.spread, cost.control, cost.whole, cost.evalsha, cost.times)
    table.add_row(*(_number(figure, 1) for figure in figures))
    return table


def _latency_table(results: Results) -> Table:
    table = Table(title="Added latency, one request at a time (ms beyond direct)", title_justify="left")
    table.add_column("through")
    for heading in ("p50", "p99", "first byte p50", "first byte p99"):
        table.add_column(heading, justify="right")
    for name, row in results.added.items():
        table.add_row(name, *(_number(value, 3) for value in row))
    return table


def _cancel_table(results: Results) -> Table:
    table = Table(title="Client's reset → upstream's reset", title_justify="left")
    for heading in ("load", "cancelled", "through"):
        table.add_column(heading)
    for heading in ("p50 ms", "p99 ms", "sent", "reached upstream", "reset there", "connection closed"):
        table.add_column(heading, justify="right")
    for (name, load, after), row in results.cancels.items():
        table.add_row(
            "≤ 50 %" if load == "half" else "saturated",
            f"after {after} events" if after else "before headers",
            name,
            _number(quantile(row.latencies_ms, 0.5), 3),
            _number(quantile(row.latencies_ms, 0.99), 3),
            str(row.sent),
            str(row.reached),
            str(len(row.latencies_ms)),
            str(row.lost),
        )
    return table


def _number(value: float, digits: int, unit: str = "") -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}{unit}"
