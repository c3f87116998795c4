"""What limits cost inside the gateway: the same load with two busy limits and with none, turn by turn.

With limits half of either is used: requests and tokens of the member are counted, reserved, shown and settled, and
the worker and Redis say to each other what they must. The baseline of the same run is the client of a gateway that
asks Redis once a request: one EVALSHA, on the same core, as busy as the gateway.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import redis.asyncio
import uvloop

from tests.bench.processes import pinned, tree_cpu_s
from tests.bench.rig import JSON, Rig
from tests.bench.targets import Target

if TYPE_CHECKING:
    from tests.kit.gateway import Session

BASELINE = Path(__file__).parents[1] / "limits" / "token_bucket.lua"
CONNECTIONS = 16
ASKED = 20_000
LARGE = 10**12
TOKENS = 800
"""More than a request of the load may use: so that of tokens too no more than half is used."""

PARTS = ("requests", "tokens")


@dataclass(frozen=True)
class LimitsCost:
    """Microseconds of CPU a request. `busy`: the median of what two busy limits add; `control`: of what nothing
    added, in the same turns (how far `busy` may be off); `evalsha`: of the baseline."""

    busy: float
    control: float
    evalsha: float


def measure_limits(
    rig: Rig, gateway: Target, owner: Session, store: str, *, rate: float, rounds: int, seconds: float
) -> LimitsCost:
    """`rate`: requests a second that the gateway has reached. `owner` has the limits `PARTS`, and has them again
    when this ends."""
    busy, control = [], []
    for _ in range(rounds):
        _drop(owner)
        first, second = (_spell(rig, gateway, seconds) for _ in range(2))
        _set(owner, rate)
        with_limits = [_spell(rig, gateway, seconds) for _ in range(2)]
        busy.append(sum(with_limits) / 2 - (first + second) / 2)
        control.append(second - first)
    with pinned(rig.cores.target):
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.limits", store], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise RuntimeError(f"one EVALSHA cannot be measured:\n{done.stderr}")
    return LimitsCost(median(busy), median(control), json.loads(done.stdout))


def _spell(rig: Rig, gateway: Target, seconds: float) -> float:
    rig.run(gateway, JSON, seconds=seconds / 4)  # what has just changed is known and warm
    before = tree_cpu_s(gateway.pids)
    figures = rig.run(gateway, JSON, seconds=seconds)
    if figures["bad"]:
        raise RuntimeError(f"the gateway answers {figures['bad_status']:.0f} while limits are measured")
    return (tree_cpu_s(gateway.pids) - before) / max(figures["ok"], 1) * 1e6


def _drop(owner: Session) -> None:
    for name in PARTS:
        path = f"/admin/v1/orgs/{owner.org}/limits/{name}"
        etag = owner.admin("GET", path).headers["etag"]
        owner.admin("DELETE", path, headers={"if-match": etag})


def _set(owner: Session, rate: float) -> None:
    for name, each in zip(PARTS, (1, TOKENS), strict=True):
        amount = int(2 * rate * each)
        owner.create("limits", name=name, scope="member", unit=name, amount=amount, period_s=1)


async def evalsha(store: str) -> float:
    """CPU microseconds of the client for one call, 16 at a time without a pause."""
    script = BASELINE.read_text()
    pool = redis.asyncio.BlockingConnectionPool.from_url(f"redis://{store}", max_connections=CONNECTIONS)
    async with redis.asyncio.Redis.from_pool(pool) as client:
        sha = await client.script_load(script)
        left = ASKED

        async def ask() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await client.evalsha(sha, 2, "{bench}requests", "{bench}tokens", LARGE, 1, LARGE, 400)

        before = time.process_time()
        await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))
        return (time.process_time() - before) / ASKED * 1e6


if __name__ == "__main__":
    sys.stdout.write(json.dumps(uvloop.run(evalsha(sys.argv[1]))))
