"""Cancelled before it got anywhere: in the line for a stream, during a dial, between an attempt and the next."""

from __future__ import annotations

import asyncio

from tests.integration.gateway.bed import CLIENT, lay
from tests.integration.gateway.world import SSE_HEAD, World, bind, sse
from tests.kit.gate import Gate

NOTHING_SENT = {"sent": False, "status": 499, "prompt_tokens": 0, "completion_tokens": 0}
WORD = sse("word")


async def test_in_the_line_for_a_full_upstream(world: World) -> None:
    """Two streams are all the upstream takes, and both are taken: what is cancelled in the line never gets
    there, and the line goes on without it."""
    async with lay(world, slots=8, max_concurrent_streams=2) as bed:
        second, beside = await bed.next()
        beside.respond(200, SSE_HEAD)
        line = [bed.ask() for _ in range(5)]
        await bed.seen()
        for cancelled in (line[0], line[2], line[4]):
            cancelled.stream.reset()
            cancelled.outcome, cancelled.entry = CLIENT, NOTHING_SENT
        await bed.seen()
        await bed.canary.beat()
        assert len(bed.upstream.requests) == 2
        beside.send(WORD, end=True)
        await second.stream.complete()
        assert second.stream.body == WORD
        for number, waiting in ((3, line[1]), (4, line[3])):
            request = await (await bed.upstream.arrived(number)).complete()
            assert waiting.request_id.encode() in request.body  # first come, first served
            request.respond_json({"object": "text_completion", "choices": []})
            assert await waiting.stream.head() == 200
            await waiting.stream.complete()
        await bed.verify(resets=0)


async def test_during_a_dial(world: World) -> None:
    """The upstream accepts TCP and no more. One who waits for that dial gives up; the dial goes on for the other,
    and there is no second one."""
    async with lay(world, slots=4) as bed, Gate(bed.upstream.port) as gate:
        gate.shut()
        model = await asyncio.to_thread(bind, world.owner, world.pki, gate.url)
        cancelled, innocent = bed.ask(model=model), bed.ask(model=model)
        await gate.accepted(1)
        await bed.seen()
        cancelled.stream.reset()
        cancelled.outcome, cancelled.entry = CLIENT, NOTHING_SENT
        await bed.log.of([cancelled.request_id])  # it is over and settled while the handshake still stalls
        gate.open()
        request = await (await bed.upstream.arrived(2)).complete()
        assert innocent.request_id.encode() in request.body
        request.respond_json({"object": "text_completion", "choices": []})
        await innocent.stream.complete()
        assert innocent.stream.status == 200
        assert gate.count == 1
        bed.connections = 2  # the canary's, and this binding's own
        await bed.verify(resets=0)


async def test_during_a_dial_that_nobody_else_waits_for(world: World) -> None:
    """The connection that comes of it serves the next one."""
    async with lay(world, slots=4) as bed, Gate(bed.upstream.port) as gate:
        gate.shut()
        model = await asyncio.to_thread(bind, world.owner, world.pki, gate.url)
        cancelled = [bed.ask(model=model) for _ in range(3)]
        await gate.accepted(1)
        await bed.seen()
        for asked in cancelled:
            asked.stream.reset()
            asked.outcome, asked.entry = CLIENT, NOTHING_SENT
        await bed.log.of([asked.request_id for asked in cancelled])
        gate.open()
        await bed.upstream.connected(2)
        assert len(bed.upstream.requests) == 1
        after = bed.ask(model=model)
        request = await (await bed.upstream.arrived(2)).complete()
        assert after.request_id.encode() in request.body
        request.respond_json({"object": "text_completion", "choices": []})
        await after.stream.complete()
        assert gate.count == 1
        bed.connections = 2
        await bed.verify(resets=0)


async def test_during_a_retry_that_is_under_way(world: World) -> None:
    """REFUSED_STREAM: not processed, so it is sent again; the second attempt is the one that is reset."""
    async with lay(world, slots=3) as bed:
        asked, first = await bed.next()
        first.refuse()
        second = await (await bed.upstream.arrived(3)).complete()
        assert asked.request_id.encode() in second.body
        asked.stream.reset()
        await second.reset()
        asked.outcome, asked.entry = CLIENT, {"sent": True, "status": 499}
        await bed.verify(resets=1)


async def test_during_a_retry_that_waits_in_line(world: World) -> None:
    """Refused because the upstream has become full: cancelled before its second attempt, it has cost nothing."""
    async with lay(world, slots=3) as bed:
        asked, first = await bed.next()
        first.connection.update_settings(max_concurrent_streams=1)
        first.refuse()
        await bed.canary.beat()  # the gateway has read both
        asked.stream.reset()
        await bed.seen()
        asked.outcome, asked.entry = CLIENT, NOTHING_SENT
        await bed.canary.beat()
        assert len(bed.upstream.requests) == 2
        await bed.verify(resets=0)
        assert asked.request_id.encode() not in b"".join(bytes(each.body) for each in bed.upstream.requests[2:])
