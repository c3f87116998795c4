"""Many cancels on one connection: what a day of typing does to it. No count of them wears either side out.

The thresholds are real peers': a connection that died after 257 resets (a server's count of resets in its
life), after about 1,000 (nghttp2's burst of resets, a client's count of late frames), and well beyond both.
"""

from __future__ import annotations

import pytest

from tests.integration.gateway.bed import CLIENT, Asked, Bed, lay
from tests.integration.gateway.invariants import Budget
from tests.integration.gateway.world import SSE_HEAD, World, sse
from tests.kit.upstream import Request

AT_ONCE = 16
"""Streams that are reset together, all of them at the upstream by then: Granian's own limit (20 resets in a
flight) is on streams it has not looked at yet."""
LEAST_RESETS_A_CONNECTION = 250
"""A gateway may replace an upstream connection before its peer's limits bite; not more often than this."""
LARGE = Budget(tokens=400_000)
WORD = sse("word")


@pytest.mark.slow
@pytest.mark.parametrize("count", [257, 1_100, 3_000])
async def test_cancels_on_one_connection(world: World, count: int) -> None:
    async with lay(world, slots=AT_ONCE + 1, budget=LARGE) as bed:
        bed.connections = range(1, 2 + count // LEAST_RESETS_A_CONNECTION)
        await cancel(bed, count)
        await bed.verify(resets=count)


@pytest.mark.slow
async def test_an_upstream_that_has_enough_of_resets(world: World) -> None:
    """It sends GOAWAY after every 300 and takes no more streams: the next connection is there; nobody notices."""
    rounds, each = 3, 300
    async with lay(world, slots=AT_ONCE + 1, budget=LARGE) as bed:
        for _ in range(rounds):
            await cancel(bed, each)
            for connection in bed.upstream.connections:
                if not connection.closed:
                    connection.goaway(code=0xB)  # ENHANCE_YOUR_CALM, RFC 9113 section 7
            await bed.canary.beat()
        # The canary stays on the first until it has finished; the fresh request needs one more.
        bed.connections = range(rounds + 1, rounds + 2 + rounds * each // LEAST_RESETS_A_CONNECTION)
        await bed.verify(resets=rounds * each)


async def cancel(bed: Bed, count: int) -> None:
    """`count` requests, cancelled in turn before the head, after it, in mid-stream; the canary beats between."""
    done = 0
    while done < count:
        together = min(AT_ONCE, count - done)
        first = len(bed.upstream.requests)
        asked = {each.request_id: each for each in (bed.ask() for _ in range(together))}
        requests = [
            await (await bed.upstream.arrived(first + number)).complete() for number in range(1, together + 1)
        ]
        for number, request in enumerate(requests):
            await begin(asked[request.json()["user"]], request, number % 3)
        for each in asked.values():
            each.stream.reset()
            each.outcome = CLIENT
        for request in requests:
            assert (await request.reset()).code == 8, "CANCEL"
        await bed.canary.beat()
        done += together


async def begin(asked: Asked, request: Request, moment: int) -> None:
    """Answer as far as `moment` says: 0 nothing, 1 the head, 2 an event."""
    asked.entry = {"sent": True, "completion_tokens": int(moment == 2)}
    if moment:
        request.respond(200, SSE_HEAD)
    if moment == 1:
        await asked.stream.head()
    elif moment == 2:
        request.send(WORD)
        await asked.stream.received(len(WORD))
