"""What a message to Redis costs: `python -m tests.bench.redis_cost`. CPU of the client and of the server, µs.

Beside the library, the same client sends an ECHO of the same size (what any round trip costs) and EVALSHA of a
one-bucket script as many gateways have it, once a request. Figures of one quiet core each; of a busy machine they
say nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from gateway.limits.protocol import Part, SliceAsk, Wish
from gateway.limits.redis_open import open_slices
from gateway.limits.redis_wire import Login, Wire, connect
from gateway.limits_settings import LimitsSettings
from tenants.ids import OrgId
from tenants.models import LimitUnit
from tests.kit.redis import HOST, RedisServer, redis_server

ROUNDS = 5_000
LARGE = 10**12
BUCKET = """
local now = redis.call('TIME')
local found = redis.call('HMGET', KEYS[1], 'level', 'at')
local at = now[1] * 1000000 + now[2]
local came = (at - (tonumber(found[2]) or at)) * ARGV[2]
local level = math.min(tonumber(ARGV[1]), (tonumber(found[1]) or ARGV[1]) + came)
if level < 1 then return 0 end
redis.call('HSET', KEYS[1], 'level', level - 1, 'at', at)
redis.call('PEXPIRE', KEYS[1], 60000)
return 1
"""


async def measured(name: str, server: RedisServer, one: Callable[[], Awaitable[object]], command: str) -> None:
    with server.client() as client:
        client.config_resetstat()
        before = time.process_time()
        for _ in range(ROUNDS):
            await one()
        here = (time.process_time() - before) / ROUNDS * 1e6
        there = client.info("commandstats")[f"cmdstat_{command}"]["usec_per_call"]
    print(f"{name:34} {here:7.1f} {there:7.1f}")


async def ask(parts: int, server: RedisServer) -> None:
    slices = open_slices(LimitsSettings(store="redis", addresses=(server.address,), timeout_ms=5_000), Path())
    await slices.warm()
    named = tuple(
        Part(f"limit-{n}", "", LimitUnit.TOKENS, LARGE, LARGE, 60, spent=1, want=64) for n in range(parts)
    )
    wishes = (tuple(Wish(place, 1, 1) for place in range(parts)),)
    session = epoch = ""
    seq = 0

    async def one() -> None:
        nonlocal session, epoch, seq
        seq += 1
        message = SliceAsk(OrgId(f"bench{parts}"), "w1", session, epoch, seq, 1, named, wishes)
        answer = await slices.ask(message)
        session, epoch = answer.session, answer.epoch

    await measured(f"message about {parts} buckets", server, one, "fcall")
    await slices.aclose()


async def main() -> None:
    print(f"{'':34} {'client':>7} {'server':>7}")
    with redis_server() as server:
        wire: Wire
        wire, _ = await connect((HOST, server.port), Login(), timeout_s=5, connect_timeout_s=5)
        await measured("ECHO of 200 bytes", server, lambda: wire.call("ECHO", b"x" * 200), "echo")
        sha = await wire.call("SCRIPT", "LOAD", BUCKET)
        await measured(
            "EVALSHA of one bucket", server, lambda: wire.call("EVALSHA", sha, 1, "bucket", LARGE, 1), "evalsha"
        )
        wire.close()
        for parts in (1, 3, 6):
            await ask(parts, server)


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main())
