"""What hostile clients cost the others: `python -m tests.bench.abuse` (five minutes; `SIZE=small`: one).

A gateway as a user would start it, on core 0. On core 1 the model, one person whose completions are timed, and the
attacker, in a process of its own with less priority. Quiet and attacked spells take turns, so that what else the
machine does falls on both. The control is an attacker that burns its time and sends nothing: what a row differs
from the controls by is the attack's. Prints a table, then one line of JSON. Exits 1 when an innocent request
failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.processes import choose_cores, pinned, tree_cpu_s
from tests.integration.gateway.bed import prepare
from tests.integration.gateway.test_slow_reader import memory
from tests.integration.gateway.world import World, bind, connect, family, populate
from tests.kit.attacks import EVERY, HOLDS, RESETS, Attack, Target, many_requests
from tests.kit.certs import make_pki
from tests.kit.gateway import RunningGateway
from tests.kit.upstream import RecordingUpstream, Request

SMALL = os.environ.get("SIZE") == "small"
ROUNDS = 1 if SMALL else 3
SPELL_S = 1.0
SHARE = 1_000_000
HELD = 500
CONNECTIONS = 4
PACE_S = 0.002


async def control(_: Target) -> None:
    """An attacker's process that is busy with itself."""
    end = time.monotonic() + SPELL_S
    while time.monotonic() < end:
        sum(range(1_000))


@dataclass
class Row:
    """Latencies in ms of whole completions, a list a round. `cpu`: the gateway's while attacked, in cores."""

    attack: str
    quiet: list[list[float]] = field(default_factory=list)
    attacked: list[list[float]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    growth_mb: float = 0.0
    failed: int = 0

    def cells(self) -> list[str]:
        before, after = _percentiles(self.quiet), _percentiles(self.attacked)
        return [
            self.attack,
            *(f"{value:.2f}" for value in (*before, *after)),
            f"{statistics.mean(self.cpu) * 100:.0f} %",
            f"{self.growth_mb:.1f}",
            str(self.failed),
        ]


def _percentiles(rounds: Sequence[Sequence[float]]) -> tuple[float, float]:
    """p50 and p99: the median over the rounds of each: one bad second of the machine is not a finding."""
    p50s = [statistics.median(times) for times in rounds]
    p99s = [sorted(times)[min(len(times) - 1, int(len(times) * 0.99))] for times in rounds]
    return statistics.median(p50s), statistics.median(p99s)


async def spell(world: World, model: str, row: Row, into: list[list[float]]) -> None:
    """One person, one request after the other, for `SPELL_S`."""
    times: list[float] = []
    into.append(times)
    async with await connect(world.gateway) as client:
        end = time.monotonic() + SPELL_S
        while time.monotonic() < end:
            _, headers, body = prepare(world.ben.session, model, stream=False)
            began = time.perf_counter()
            stream = await client.request("POST", "/v1/completions", headers, body).finished()
            times.append((time.perf_counter() - began) * 1e3)
            row.failed += stream.status != 200
            await asyncio.sleep(PACE_S)


async def attacker(world: World, attack: Attack, *, signed: bool) -> asyncio.subprocess.Process:
    """Begun and attacking when this returns."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.abuse",
        "--attack",
        attack.__name__,
        "--port",
        str(world.gateway.public_port),
        "--ca",
        str(world.gateway.ca),
        "--bearer",
        json.dumps(world.ada.session.bearer if signed else {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def measure(world: World, model: str, attack: Attack, *, signed: bool) -> Row:
    row = Row(attack.__name__.replace("_", " ") + (", a member" if signed else ""))
    processes = family(world.gateway)
    for _ in range(ROUNDS):
        await spell(world, model, row, row.quiet)
        process = await attacker(world, attack, signed=signed)
        try:
            before, began, size = tree_cpu_s(processes[:1]), time.monotonic(), memory(world.gateway)
            await spell(world, model, row, row.attacked)
            row.cpu.append((tree_cpu_s(processes[:1]) - before) / (time.monotonic() - began))
            row.growth_mb = max(row.growth_mb, (memory(world.gateway) - size) / 2**20)
        finally:
            process.kill()
            await process.wait()
    assert family(world.gateway) == processes, "a process of the gateway ended"
    return row


SIGNED = (many_requests, *RESETS, next(a for a in EVERY if a.__name__ == "slow_bodies"))
"""What reaches further for a member than for a stranger is measured for both."""

ROWS = [
    (control, False),
    *(
        (attack, signed)
        for attack in (many_requests, *EVERY)
        for signed in (False, True)[: 1 + (attack in SIGNED)]
    ),
    (control, False),
]

HEADING = """\
| attack | quiet p50 ms | p99 | attacked p50 | p99 | gateway's CPU | memory + MB | failed |
|---|---|---|---|---|---|---|---|"""


def answer(request: Request) -> None:
    request.respond_json({"object": "text_completion", "choices": []})


async def run(folder: Path, only: str) -> int:
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.rig})
    pki = make_pki(folder / "pki")
    gateway = await asyncio.to_thread(RunningGateway, folder / "home")
    with pinned(cores.target):
        await asyncio.to_thread(gateway.start)
    rows: list[Row] = []
    try:
        world = await asyncio.to_thread(populate, gateway, pki)
        async with RecordingUpstream(tls=pki.server_context(), script=answer) as upstream:
            model = await asyncio.to_thread(bind, world.owner, pki, upstream.url)
            await spell(world, model, Row("warm-up"), [])
            print(HEADING, flush=True)
            for attack, signed in ROWS:
                if only and attack is not control and only not in attack.__name__:
                    continue
                rows.append(await measure(world, model, attack, signed=signed))
                print("| " + " | ".join(rows[-1].cells()) + " |", flush=True)
            await upstream.idle()
    finally:
        await asyncio.to_thread(gateway.stop)
        gateway.http.close()
    failed = sum(row.failed for row in rows)
    moved = {row.attack: round(_percentiles(row.attacked)[1] / _percentiles(row.quiet)[1], 2) for row in rows}
    print(
        json.dumps(
            {
                "requests": sum(len(times) for r in rows for times in (*r.quiet, *r.attacked)),
                "failed": failed,
                **moved,
            }
        )
    )
    return 1 if failed else 0


async def hold_on(attack: Attack, target: Target) -> None:
    """Attack until killed, on several connections at once; those that hold hold all of theirs."""
    print("attacking", flush=True)
    while True:
        await asyncio.gather(*(attack(target) for _ in range(1 if attack in HOLDS else CONNECTIONS)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attack", help="be the attacker (the program starts itself with this)")
    parser.add_argument("--only", help="attacks whose names hold this")
    parser.add_argument("--port", type=int)
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--bearer", type=json.loads, default={})
    given = parser.parse_args()
    if not given.attack:
        with tempfile.TemporaryDirectory() as folder:
            return asyncio.run(run(Path(folder), given.only or ""))
    os.nice(10)
    attack = next(a for a in (control, many_requests, *EVERY) if a.__name__ == given.attack)
    share = HELD if attack in HOLDS else SHARE
    asyncio.run(hold_on(attack, Target(given.port, given.ca, share=share, bearer=given.bearer)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
