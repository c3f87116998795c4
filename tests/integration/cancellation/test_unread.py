"""Streams that nobody reads: what they hold is bounded, others flow, and a cancel still reaches the model."""

from __future__ import annotations

from tests.integration.gateway.bed import CLIENT, lay
from tests.integration.gateway.test_slow_reader import memory
from tests.integration.gateway.world import SSE_HEAD, World

STREAMS = 16
KIB = 1024
MIB = 1024 * KIB
EVENT = b'data: {"choices":[{"text":"' + b"x" * 16_000 + b'"}]}\n\n'
COUNT = 256  # 4 MB a stream
TAKEN_EACH = 1_024 * KIB
"""More than the windows and buffers that belong to one stream: the transport's 128 KiB, once arrived and once
being passed on, and 400 KiB in the HTTP/2 server."""
TAKEN_ONCE = 4 * MIB
"""Sockets, TLS records and loops: once for a connection, however many streams it has."""
BEATS = 50


async def test_streams_that_are_never_read(world: World) -> None:
    async with lay(world, slots=STREAMS + 2) as bed:
        client = await world.connect()
        before = memory(world.gateway)
        both = [await bed.next(client=client) for _ in range(STREAMS)]
        client.stop_reading()
        for _, request in both:
            request.respond(200, SSE_HEAD)
            request.send(EVENT * COUNT)
        for _ in range(BEATS):
            await bed.canary.beat()  # the same upstream connection: its window is not eaten up by them
        waiting = sum(request.unsent for _, request in both)
        taken = STREAMS * COUNT * len(EVENT) - waiting
        assert taken < STREAMS * TAKEN_EACH + TAKEN_ONCE, f"{taken / MIB:.1f} MiB were taken from the model"
        assert memory(world.gateway) - before < 2 * (STREAMS * TAKEN_EACH + TAKEN_ONCE)
        for asked, _ in both:
            asked.stream.reset()
            asked.outcome, asked.entry = CLIENT, {"sent": True}
        for _, request in both:
            await request.reset()
        client.resume_reading()
        client.fin()
        await client.disconnected()
        await bed.verify(resets=STREAMS)
