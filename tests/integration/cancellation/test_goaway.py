"""The upstream closes a connection in order (RFC 9113 section 6.8) while streams on it are cancelled."""

from __future__ import annotations

from tests.integration.gateway.bed import CLIENT, lay
from tests.integration.gateway.world import SSE_HEAD, World, sse

WORD = sse("word")


async def test_goaway_that_lets_streams_finish(world: World) -> None:
    """Those in flight go on where they are; the one that is cancelled is reset there; new ones go elsewhere."""
    async with lay(world, slots=4) as bed:
        asked, request = await bed.next()
        innocent, beside = await bed.next()
        for each in (request, beside):
            each.respond(200, SSE_HEAD)
        await asked.stream.head()
        beside.connection.goaway()
        await bed.canary.beat()
        asked.stream.reset()
        assert (await request.reset()).code == 8, "CANCEL"
        asked.outcome, asked.entry = CLIENT, {"sent": True}
        beside.send(WORD, end=True)
        await innocent.stream.complete()
        assert innocent.stream.body == WORD
        bed.connections = 2
        await bed.verify(resets=1)
        await bed.upstream.until(lambda: beside.connection.closed, "the drained connection to be closed")


async def test_goaway_that_refuses_what_is_then_cancelled_in_its_retry(world: World) -> None:
    """Streams above the last one named have not been processed: both are sent again, and one is reset there."""
    async with lay(world, slots=4) as bed:
        asked, first = await bed.next()
        innocent, _ = await bed.next()
        first.connection.goaway(last_stream_id=bed.canary.request.stream_id)
        again = [await (await bed.upstream.arrived(number)).complete() for number in (4, 5)]
        assert {request.connection.number for request in again} == {2}
        mine = next(request for request in again if request.json()["user"] == asked.request_id)
        other = next(request for request in again if request.json()["user"] == innocent.request_id)
        asked.stream.reset()
        await mine.reset()
        asked.outcome, asked.entry = CLIENT, {"sent": True}
        other.respond(200, SSE_HEAD)
        other.send(WORD, end=True)
        await innocent.stream.complete()
        assert innocent.stream.body == WORD
        bed.connections = 2
        await bed.verify(resets=1)


async def test_goaway_that_refuses_what_is_cancelled_before_its_retry(world: World) -> None:
    """The new connection's handshake stalls meanwhile: the one that gives up was never processed, and is free."""
    async with lay(world, slots=4, door=True) as bed:
        asked, first = await bed.next()
        innocent, _ = await bed.next()
        bed.gate.shut()
        first.connection.goaway(last_stream_id=bed.canary.request.stream_id)
        await bed.gate.accepted(2)
        asked.stream.reset()
        await bed.seen()
        asked.outcome = CLIENT
        asked.entry = {"sent": False, "status": 499}
        await bed.log.of([asked.request_id])
        bed.gate.open()
        again = await (await bed.upstream.arrived(4)).complete()
        assert again.json()["user"] == innocent.request_id
        again.respond(200, SSE_HEAD)
        again.send(WORD, end=True)
        await innocent.stream.complete()
        assert innocent.stream.body == WORD
        bed.connections = 2
        await bed.verify(resets=0)
