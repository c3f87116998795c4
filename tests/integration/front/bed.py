"""A model behind gateway and front, and what people do through both."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.integration.gateway.bed import Asked, prepare
from tests.integration.gateway.world import SSE_HEAD, Log, World, bind, sse
from tests.kit.front import Front
from tests.kit.h2client import H2Client
from tests.kit.upstream import RecordingUpstream, Request


@dataclass
class Through:
    """`ask` sends a streaming completion through the front; the upstream's end is `arrived`."""

    world: World
    front: Front
    upstream: RecordingUpstream
    model: str
    log: Log

    def ask(self, client: H2Client, *, together: bool = False) -> Asked:
        asked, headers, body = prepare(self.world.ada.session, self.model)
        send = client.request_and_reset if together else client.request
        asked.stream = send("POST", "/v1/completions", headers, body)
        return asked

    async def next(self, client: H2Client) -> tuple[Asked, Request]:
        number = len(self.upstream.requests) + 1
        asked = self.ask(client)
        return asked, await (await self.upstream.arrived(number)).complete()

    async def begun(self, client: H2Client) -> tuple[Asked, Request]:
        """A stream of which one event has come."""
        asked, request = await self.next(client)
        request.respond(200, SSE_HEAD)
        request.send(sse("first"))
        await asked.stream.received(len(sse("first")))
        return asked, request

    async def outcome(self, asked: Asked) -> str:
        entries = await self.log.of([asked.request_id])
        found: str = entries[asked.request_id]["outcome"]
        return found


@asynccontextmanager
async def lay(world: World, front: Front) -> AsyncIterator[Through]:
    async with RecordingUpstream(tls=world.pki.server_context()) as upstream:
        model = await asyncio.to_thread(bind, world.owner, world.pki, upstream.url)
        log = await asyncio.to_thread(Log, world.owner)
        yield Through(world, front, upstream, model, log)
        await upstream.idle()
        assert not upstream.faults


class Http1Stream:
    """One completion over HTTP/1.1, by hand: a client that can close at any moment and see each byte come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def ask(cls, through: Through) -> Http1Stream:
        context = ssl.create_default_context(cafile=str(through.world.gateway.ca))
        context.set_alpn_protocols(["http/1.1"])
        reader, writer = await asyncio.open_connection("127.0.0.1", through.front.port, ssl=context)
        body = json.dumps({"model": through.model, "prompt": "def fib(n):", "stream": True}).encode()
        head = [
            "POST /v1/completions HTTP/1.1",
            f"host: 127.0.0.1:{through.front.port}",
            f"authorization: {through.world.ada.session.bearer['authorization']}",
            "content-type: application/json",
            f"content-length: {len(body)}",
        ]
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        return cls(reader, writer)

    async def until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(60):
            return await self.reader.readuntil(mark)

    async def close(self) -> None:
        self.writer.transport.abort()
        self.writer.close()
        with_end = asyncio.gather(self.writer.wait_closed(), return_exceptions=True)
        await with_end
