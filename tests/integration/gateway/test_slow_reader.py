"""A client that stops reading: the model is held back, memory stays bounded, nobody beside it waits."""

from __future__ import annotations

from pathlib import Path

from tests.integration.gateway.bed import CLIENT, lay
from tests.integration.gateway.world import SSE_HEAD, World, family
from tests.kit.gateway import RunningGateway

MIB = 1024 * 1024
EVENT = b'data: {"choices":[{"text":"' + b"x" * 16_000 + b'"}]}\n\n'
COUNT = 1_000  # 16 MB
HELD = 4 * MIB
"""More than all windows and buffers between the model and the client together."""


def memory(gateway: RunningGateway) -> int:
    """Resident bytes of all processes together."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in family(gateway)]
    return sum(pages) * 4_096


async def test_a_client_that_stops_reading_holds_back_its_own_stream_alone(world: World) -> None:
    async with lay(world) as bed:
        client = await world.connect()
        before = memory(world.gateway)
        asked, request = await bed.next(client=client)
        client.stop_reading()
        request.respond(200, SSE_HEAD)
        request.send(EVENT * COUNT)
        await asked.stream.received(60_000)  # all that its window takes
        for _ in range(50):
            await bed.canary.beat()  # the same upstream connection: its window is not eaten up
        stuck = request.unsent
        assert stuck > len(EVENT) * COUNT - HELD
        assert memory(world.gateway) - before < 2 * HELD
        client.resume_reading()
        await asked.stream.received(2 * HELD)
        asked.stream.reset()
        await request.reset()
        asked.outcome = CLIENT
        client.fin()
        await client.disconnected()
        await bed.verify(resets=1)


async def test_a_client_that_stops_reading_and_leaves(world: World) -> None:
    async with lay(world) as bed:
        client = await world.connect()
        asked, request = await bed.next(client=client)
        client.stop_reading()
        request.respond(200, SSE_HEAD)
        request.send(EVENT * COUNT)
        await asked.stream.received(60_000)
        for _ in range(20):
            await bed.canary.beat()
        client.rst()
        await request.reset()
        asked.outcome = CLIENT
        await client.disconnected()
        await bed.verify(resets=1)


async def test_a_client_that_reads_late_gets_all_of_it(world: World) -> None:
    async with lay(world) as bed:
        client = await world.connect()
        asked, request = await bed.next(client=client)
        client.stop_reading()
        request.respond(200, SSE_HEAD)
        request.send(EVENT * COUNT, end=True)
        await asked.stream.received(60_000)
        for _ in range(20):
            await bed.canary.beat()
        assert not request.ended
        client.resume_reading()
        await asked.stream.complete()
        assert asked.stream.body == EVENT * COUNT
        client.fin()
        await client.disconnected()
        await bed.verify(resets=0)
