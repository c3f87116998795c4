"""What limits cost inside the gateway: the same load with two busy limits and with none, turn by turn.

One gateway has three organizations. One has a limit on requests and one on tokens, of either of which half is
used: claims are made, reserved, shown and settled, and the worker and Redis say to each other what they must. The
second has no limits, and what the first costs more is what limits cost. The third has none either: what it seems
to cost more is how far this may be off. Spells are short and take turns, so that each meets the same machine.

What else runs on the machine and its host only adds to a spell: caches, the core's other half, stolen time. It
differs from one spell to the next by ten times what is looked for. So first quartiles are compared, what three
quarters of an organization's spells are dearer than; what the medians say is told too.

The baseline of the same turns is the client of a gateway that asks Redis once a request: one EVALSHA, on the same
core, as busy as the gateway.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import redis.asyncio
import uvloop

from tests.bench.processes import pinned, tree_cpu_ns
from tests.bench.rig import JSON, Rig
from tests.bench.targets import Target, wait_served
from tests.kit.certs import Pki

BASELINE = Path(__file__).parents[1] / "limits" / "token_bucket.lua"
CONNECTIONS = 16
LARGE = 10**12

TOKENS = 800
"""More than a request of the load may use: so that of tokens too no more than half is used."""

WARM_S = 3.0
"""A store that begins lends nothing at first: workers may have to say what they hold."""

SETTLE_S = 0.1
"""Before each spell: whatever belongs to the one before is cold, and what belongs to this one warm."""

LIMITED, FREE, CONTROL = "limited", "free", "control"

RESAMPLED = 1_000
"""Times that as many turns are drawn again from those there were, to see how far a figure may be off."""


@dataclass(frozen=True)
class LimitsCost:
    """Microseconds of CPU a request, by the first quartiles. `busy`: what two busy limits add; `spread`: with 95 %
    it is not farther off than this; `control`: what nothing added, in the same turns; `whole`: what a request that
    no limit applies to costs; `evalsha`: of the baseline. `usual`: as `busy`, by the medians."""

    busy: float
    spread: float
    control: float
    whole: float
    evalsha: float
    usual: float

    @property
    def times(self) -> float:
        """What one EVALSHA costs more."""
        return self.evalsha / max(self.busy, 0.1)


def measure_limits(
    rig: Rig, folder: Path, pki: Pki, *, rounds: int, seconds: float, done: Callable[[int], None] = lambda _: None
) -> LimitsCost:
    """In `rounds` turns, with spells of `seconds`; `done` is told of each. Raises `RuntimeError`."""
    from tests.kit.redis import redis_server

    with ExitStack() as stack:
        with pinned(rig.cores.rig):
            store = stack.enter_context(redis_server())
        targets = stack.enter_context(three_organizations(folder, rig, pki, store.address))
        ask = stack.enter_context(_evalsha(rig.cores.target, store.address))
        allowed = os.sched_getaffinity(0)
        stack.callback(os.sched_setaffinity, 0, allowed)
        os.sched_setaffinity(0, {rig.cores.rig})  # what starts the load must not stand in the gateway's way
        for target in targets.values():
            rig.run(target, JSON, seconds=WARM_S)
        turns = []
        for turn in range(rounds):
            # Who goes first changes: a machine that becomes slower is not somebody's cost.
            order = list(targets) if turn % 2 else list(reversed(targets))
            spells = {name: _spell(rig, targets[name], seconds) for name in order}
            turns.append(spells | {"evalsha": ask(seconds / 2)})
            done(turn + 1)
        return found(turns)


Turns = Sequence[Mapping[str, float]]
"""µs a request by organization, and of the baseline."""


def found(turns: Turns) -> LimitsCost:
    again = random.Random(RESAMPLED)  # the same turns say the same
    drawn = sorted(_added(again.choices(turns, k=len(turns)), _quartile) for _ in range(RESAMPLED))
    return LimitsCost(
        busy=_added(turns, _quartile),
        spread=(drawn[-RESAMPLED // 40 - 1] - drawn[RESAMPLED // 40]) / 2,
        control=_quartile(turns, CONTROL) - _quartile(turns, FREE),
        whole=_quartile(turns, FREE),
        evalsha=_quartile(turns, "evalsha"),
        usual=_added(turns, _median),
    )


def _added(turns: Turns, figure: Callable[[Turns, str], float]) -> float:
    return figure(turns, LIMITED) - (figure(turns, FREE) + figure(turns, CONTROL)) / 2


def _quartile(turns: Turns, whose: str) -> float:
    return quantiles([turn[whose] for turn in turns], n=4, method="inclusive")[0]


def _median(turns: Turns, whose: str) -> float:
    return median(turn[whose] for turn in turns)


@contextmanager
def three_organizations(folder: Path, rig: Rig, pki: Pki, store: str) -> Iterator[dict[str, Target]]:
    """On one gateway with one worker, by name."""
    from tests.integration.gateway.world import invite
    from tests.kit.gateway import RunningGateway

    settings = {
        "ORGATE_UPSTREAMS__ALLOW_NETWORKS": "127.0.0.0/8",
        "ORGATE_LIMITS__STORE": "redis",
        "ORGATE_LIMITS__ADDRESSES": store,
    }
    gateway = RunningGateway(folder, workers=1, settings=settings)
    with ExitStack() as stack:
        stack.callback(gateway.http.close)
        stack.callback(gateway.stop)
        with pinned(rig.cores.target):
            gateway.start()
        operator = gateway.operator()
        if gateway.process is None:
            raise RuntimeError("the gateway ended")
        pids = (gateway.process.pid,)
        base_url = f"https://127.0.0.1:{rig.upstream_port}"
        targets: dict[str, Target] = {}
        for org in (FREE, LIMITED, CONTROL):
            operator.admin("POST", "/admin/v1/orgs", json={"id": org, "name": org})
            owner = invite(gateway, operator, org, "owner", "owner").session
            owner.create("upstreams", name="rig", base_url=base_url, protocol="h2", ca_pem=pki.ca_pem)
            owner.admin("PUT", f"/admin/v1/orgs/{org}/upstreams/rig/key", json={"key": "sk-bench-upstream"})
            owner.create("models", name="bench", upstream="rig", model="bench")
            owner.create("rules", name="all", effect="allow", roles=["owner"], actions=["chat"], models=["*"])
            target = Target(org, gateway.public_port, pids, owner.access_token, gateway.ca)
            wait_served(gateway, target.token)
            if org == LIMITED:
                reached = rig.run(targets[FREE], JSON, seconds=1.0)["rps"]
                for unit, each in (("requests", 1), ("tokens", TOKENS)):
                    amount = int(2 * reached * each)
                    owner.create("limits", name=unit, scope="member", unit=unit, amount=amount, period_s=1)
            targets[org] = target
        yield targets


def _spell(rig: Rig, target: Target, seconds: float) -> float:
    rig.run(target, JSON, seconds=SETTLE_S)
    before = tree_cpu_ns(target.pids)
    figures = rig.run(target, JSON, seconds=seconds)
    if figures["bad"]:
        raise RuntimeError(f"the gateway answers {figures['bad_status']:.0f} while limits are measured")
    return (tree_cpu_ns(target.pids) - before) / max(figures["ok"], 1) / 1e3


@contextmanager
def _evalsha(core: int, store: str) -> Iterator[Callable[[float], float]]:
    """Asked for a spell of so many seconds, it says what one cost."""
    command = [sys.executable, "-m", "tests.bench.limits", store]
    with (
        pinned(core),
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client,
    ):
        if client.stdin is None or client.stdout is None:
            raise RuntimeError("pipes were asked for")
        commands, answers = client.stdin, client.stdout

        def ask(seconds: float) -> float:
            print(seconds, file=commands, flush=True)
            line = answers.readline()
            if not line:
                raise RuntimeError("one EVALSHA cannot be measured: its client ended")
            return float(json.loads(line))

        yield ask
        commands.close()


async def evalsha(store: str) -> None:
    """For each line with a number of seconds: CPU microseconds of this process for one call, 16 at a time without
    a pause."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(f"redis://{store}", max_connections=CONNECTIONS)
    async with redis.asyncio.Redis.from_pool(pool) as client:
        sha: Final = await client.script_load(BASELINE.read_text())
        while line := await asyncio.to_thread(sys.stdin.readline):
            ends = time.monotonic() + float(line)
            count = 0

            async def ask(ends: float = ends) -> None:
                nonlocal count
                while time.monotonic() < ends:
                    count += 1
                    await client.evalsha(sha, 2, "{bench}requests", "{bench}tokens", LARGE, 1, LARGE, 400)

            before = time.process_time()
            await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))
            sys.stdout.write(json.dumps((time.process_time() - before) / count * 1e6) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(evalsha(sys.argv[1]))
