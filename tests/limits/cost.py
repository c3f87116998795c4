"""What limits cost a worker: CPU microseconds a request, beside one EVALSHA a request in the same run.

    python -m tests.limits.cost <what, JSON>

One process, on a core of its own, asks at a steady rate and counts its own CPU time; the store is elsewhere. The
same arrivals without any limits are the control, which is subtracted from every row: what remains is the whole
path of limits, from a permitted call to its claims, the reservation, the headers and the settlement, and what the
worker and its store say to each other meanwhile. Prints one line of JSON: row → microseconds.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from statistics import median

import msgspec
import redis.asyncio
import uvloop
from msgspec import Raw, Struct

from gateway.errors import LimitExceededError
from gateway.exchange import Call, Permit, Principal, Usage, Used
from gateway.limits.claims import limits_for
from gateway.limits.protocol import REBUILD_S
from gateway.limits.store import LimitStore
from gateway.limits.tokens import Tokens
from gateway.process import settle_heap
from policies.facts import Action, Role
from tenants.models import Limit, LimitScope, LimitUnit, ModelAlias, Org
from tenants.snapshot import Tenant, TenantRecord
from tests.bench.processes import choose_cores, pinned
from tests.kit.redis import redis_server
from tests.limits.judge import Verdict, Words
from tests.limits.plan import ORG, Plan
from tests.limits.subjects import REDIS, limits_of

RATE = 4_000
"""Requests a second."""

TURN_S = 0.001

PROMPT = "def merge_sorted(left: list[int], right: list[int]) -> list[int]:\n" * 17

WARM_S = REBUILD_S + 1.0
"""A store that begins lends nothing at first: workers may have to say what they hold."""

CONNECTIONS = 16

BASELINE = (Path(__file__).parent / "token_bucket.lua").read_text()


BUSY_US = 15.0
"""The bar."""

WORDS = Words(
    "What limits cost a worker, in µs of CPU a request",
    {
        "busy_us": "two limits of which half is used: claims, reservation, headers, settlement, messages",
        "twice_us": "twice as many requests as may pass",
        "evalsha_us": "the script alone of a gateway that asks Redis for each request",
        "evalsha_x": "times as much as at a busy bucket",
        "control_us": "the load itself, already taken off",
    },
)


class Spells(Struct, frozen=True):
    """`seconds` of one; each row has `rounds` of them, in turns."""

    seconds: float
    rounds: int


FULL = Spells(seconds=3.0, rounds=7)
SMALL = Spells(seconds=0.5, rounds=2)


class What(Struct, frozen=True):
    """`subject`, `store`: see `subjects`."""

    subject: str
    store: str
    spells: Spells


Ask = Callable[[], Awaitable[None]]


def permit(requests: int, tokens: int) -> Permit:
    """A completion as a gateway's worker has it before stage 5, under limits of so much a second."""
    limits = (
        Limit(ORG, "requests", LimitScope.ORG, LimitUnit.REQUESTS, requests, period_s=1),
        Limit(ORG, "tokens", LimitScope.MEMBER, LimitUnit.TOKENS, tokens, period_s=1),
    )
    return Permit(
        principal=Principal(ORG, "mem_1", frozenset({Role.MEMBER}), "orgate-editor", "jti", "aud", 0, 1),
        tenant=Tenant(TenantRecord(Org(ORG, "Acme"), limits=limits)),
        call=Call(
            task=Action.COMPLETE,
            model="code",
            stream=True,
            include_usage=False,
            max_tokens=64,
            size=1_200,
            fields={"prompt": Raw(msgspec.json.encode(PROMPT))},
        ),
        alias=ModelAlias(ORG, "code", "up", "real-model"),
        rule="all",
    )


@asynccontextmanager
async def nothing(_: What) -> AsyncIterator[Ask]:
    async def ask() -> None:
        pass

    yield ask


@asynccontextmanager
async def busy(what: What) -> AsyncIterator[Ask]:
    """Half of either limit is used."""
    async with limits_of(what.subject, "cost", PLAN, what.store) as limits:
        yield asking(limits, permit(2 * RATE, 2 * RATE * TOKENS))


@asynccontextmanager
async def twice(what: What) -> AsyncIterator[Ask]:
    """Half of the requests are refused."""
    async with limits_of(what.subject, "cost", PLAN, what.store) as limits:
        yield asking(limits, permit(RATE // 2, 2 * RATE * TOKENS))


@asynccontextmanager
async def evalsha(what: What) -> AsyncIterator[Ask]:
    """What a gateway pays that asks Redis each time: one call of a script for both limits, and nothing else."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(f"redis://{what.store}", max_connections=CONNECTIONS)
    async with redis.asyncio.Redis.from_pool(pool) as client:
        script = await client.script_load(BASELINE)

        async def ask() -> None:
            await client.evalsha(
                script, 2, "{acme}requests", "{acme}tokens", 2 * RATE, 1, 2 * RATE * TOKENS, TOKENS
            )

        yield ask


ROWS: dict[str, Callable[[What], AbstractAsyncContextManager[Ask]]] = {
    "control": nothing,
    "busy": busy,
    "twice": twice,
    "evalsha": evalsha,
}

TOKENS = 400
"""Reserved by each request, more or less."""

PLAN = Plan("cost", 0, RATE, (), workers=1)


def asking(limits: LimitStore, asked: Permit) -> Ask:
    """As the pipeline does it for a short stream: told once of what it uses as it goes."""
    tokens = Tokens()
    usage = Usage(prompt_tokens=300, completion_tokens=20, counted=False)

    async def ask() -> None:
        try:
            callers = limits_for(asked, None, time.time)
            claims = callers.claims(asked, None, tokens)
            callers.named(claims)
            hold = limits.take(claims)
            if hold is None:
                hold = await limits.reserve(claims)
        except LimitExceededError:
            return
        hold.headers()
        if hold.metered:
            hold.spending(Used(input_tokens=300, output_tokens=5, bytes=500))
        tokens.learn(asked, usage, 20)
        hold.settle(Used(input_tokens=300, output_tokens=20, bytes=2_000))

    return ask


async def spell(ask: Ask, seconds: float) -> float:
    """CPU microseconds of this process for each request of a steady stream, a task for each as in a server."""
    random_ = random.Random(1)
    tasks: set[asyncio.Task[None]] = set()
    at = begun = time.monotonic()
    count = 0
    cpu = time.process_time()
    while at < begun + seconds:
        while at <= time.monotonic():
            task = asyncio.ensure_future(ask())
            tasks.add(task)
            count += 1
            at += random_.expovariate(RATE)
        await asyncio.sleep(TURN_S)
        for task in [task for task in tasks if task.done()]:
            task.result()
            tasks.remove(task)
    await asyncio.gather(*tasks)
    return (time.process_time() - cpu) / count * 1e6


async def measure(what: What) -> dict[str, float]:
    settle_heap()  # as a worker does: else the collector goes over every module now and then
    found: dict[str, list[float]] = {row: [] for row in ROWS}
    for _ in range(what.spells.rounds):
        for row, subject in ROWS.items():
            async with subject(what) as ask:
                await spell(ask, WARM_S)  # connected, lent, and at its end where it comes to one
                found[row].append(await spell(ask, what.spells.seconds))
    control = median(found.pop("control"))
    return {"control": control, **{row: median(cpu) - control for row, cpu in found.items()}}


def measure_apart(spells: Spells) -> Verdict:
    """In a process on a core of its own, the store on the other. Raises `RuntimeError` with what went wrong."""
    cores = choose_cores()
    with pinned(cores.rig):
        opened = redis_server()
        with opened as store:
            what = msgspec.json.encode(What(REDIS, store.address, spells)).decode()
            with pinned(cores.target):
                command = [sys.executable, "-m", "tests.limits.cost", what]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the cost cannot be measured:\n{done.stderr}")
    return judge(json.loads(done.stdout))


def judge(cost_us: dict[str, float]) -> Verdict:
    busy = cost_us["busy"]
    verdict = Verdict({f"{row}_us": round(us, 1) for row, us in cost_us.items()})
    verdict.figures["evalsha_x"] = round(cost_us["evalsha"] / max(busy, 0.1), 1)
    if busy > BUSY_US:
        verdict.faults.append(f"{busy:.1f} µs a request at a busy bucket, {BUSY_US:.0f} may be")
    return verdict


def main() -> int:
    found = uvloop.run(measure(msgspec.json.decode(sys.argv[1], type=What)))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
