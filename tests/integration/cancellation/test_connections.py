"""The client's connection ends, or HTTP/1.1 has no streams to reset: what was on it is cancelled, nothing else."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from tests.integration.gateway.bed import CLIENT, Asked, Bed, lay, prepare
from tests.integration.gateway.world import SSE_HEAD, World, sse

STREAMS = 20
WORD = sse("word")


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_the_clients_connection_ends_with_twenty_streams_open(world: World, how: str) -> None:
    """Before their head, after it and in mid-stream, in turn."""
    async with lay(world, slots=STREAMS + 2) as bed:
        client = await world.connect()
        all_of_them = [await bed.next(client=client) for _ in range(STREAMS)]
        for number, (asked, request) in enumerate(all_of_them):
            if number % 3:
                request.respond(200, SSE_HEAD)
                await asked.stream.head()
            if number % 3 == 2:
                request.send(WORD)
                await asked.stream.received(len(WORD))
        getattr(client, how)()
        for number, (asked, request) in enumerate(all_of_them):
            await request.reset()
            asked.outcome = CLIENT
            asked.entry = {"sent": True, "completion_tokens": int(number % 3 == 2)}
        await client.disconnected()
        await bed.verify(resets=STREAMS)


class Http1Client:
    """One HTTP/1.1 connection to the gateway, which carries one completion."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, bed: Bed) -> Http1Client:
        context = ssl.create_default_context(cafile=str(bed.world.gateway.ca))
        context.set_alpn_protocols(["http/1.1"])
        return cls(*await asyncio.open_connection("127.0.0.1", bed.port, ssl=context))

    def ask(self, bed: Bed) -> Asked:
        asked, headers, body = prepare(bed.world.ada.session, bed.model)
        bed.asked.append(asked)
        lines = [f"{name}: {value}\r\n" for name, value in (*headers, ("content-length", str(len(body))))]
        self.writer.write(
            f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n{''.join(lines)}\r\n".encode() + body
        )
        return asked

    async def received(self, event: bytes) -> None:
        assert (await self.reader.readline()).startswith(b"HTTP/1.1 200")
        await self.reader.readuntil(event)

    def cut(self) -> None:
        self.writer.transport.abort()


@pytest.mark.parametrize("upstream", ["h2", "http/1.1"])
@pytest.mark.parametrize("when", ["before the head", "in the middle"])
async def test_an_http1_client_closes_its_connection(world: World, when: str, upstream: str) -> None:
    async with lay(world, alpn=(upstream,), binding={"connections": 4 if upstream == "http/1.1" else 1}) as bed:
        client = await Http1Client.connect(bed)
        asked = client.ask(bed)
        request = await (await bed.upstream.arrived(2)).complete()
        if when == "in the middle":
            request.respond(200, SSE_HEAD)
            request.send(WORD)
            await client.received(WORD)
        client.cut()
        await request.reset()
        asked.outcome, asked.entry = CLIENT, {"sent": True}
        if upstream == "http/1.1":
            await only_this_one_closed(bed, request.connection.number)
        await bed.verify(resets=1)


@pytest.mark.parametrize("when", ["before the head", "in the middle"])
async def test_an_http1_upstream_loses_exactly_that_connection(world: World, when: str) -> None:
    """HTTP/1.1 has no reset. Three requests under way, each on a connection of its own; one is cancelled."""
    async with lay(world, slots=4, alpn=("http/1.1",), binding={"connections": 4}) as bed:
        innocent, beside = await bed.next()
        asked, request = await bed.next()
        beside.respond(200, SSE_HEAD)
        if when == "in the middle":
            request.respond(200, SSE_HEAD)
            request.send(WORD)
            await asked.stream.received(len(WORD))
        asked.stream.reset()
        await request.reset()
        asked.outcome, asked.entry = CLIENT, {"sent": True}
        await only_this_one_closed(bed, request.connection.number)
        beside.send(WORD, end=True)
        await innocent.stream.complete()
        assert innocent.stream.body == WORD
        await bed.verify(resets=1)


async def only_this_one_closed(bed: Bed, number: int) -> None:
    """Of the upstream's connections, and the fresh request of the end takes one that is there."""
    accepted = bed.upstream.connections
    await bed.upstream.until(lambda: accepted[number - 1].closed, "the connection to close")
    await bed.canary.beat()
    assert [each.number for each in accepted if each.closed] == [number]
    bed.connections = len(accepted)
