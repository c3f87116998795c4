"""What tests of stopping share: a gateway with one model, streams through it, and questions to its `/readyz`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.integration.gateway.bed import Asked, prepare
from tests.integration.gateway.world import DONE, SSE_HEAD, Entry, connect, family, sse, stored
from tests.kit.gateway import RunningGateway, Session
from tests.kit.h2client import H2Client
from tests.kit.upstream import RecordingUpstream, Request

AWAY_S = 0.25
"""How long everything takes to or from the port of `far_from`: half a round trip around the world and back."""


@dataclass
class Open:
    """A stream in flight: the client's end and the model's."""

    asked: Asked
    request: Request
    said: bytes = b""

    async def say(self, word: str) -> None:
        event = sse(word)
        self.said += event
        self.request.send(event)
        assert await self.asked.stream.received(len(self.said)) == self.said

    async def finish(self) -> None:
        self.request.send(DONE, end=True)
        await self.asked.stream.complete()
        assert self.asked.stream.body == self.said + DONE


@dataclass
class Stopping:
    gateway: RunningGateway
    owner: Session
    upstream: RecordingUpstream
    model: str
    processes: list[int] = field(default_factory=list)

    async def connect(self) -> H2Client:
        return await connect(self.gateway)

    async def open(self, client: H2Client, word: str = "before") -> Open:
        asked, headers, body = prepare(self.owner, self.model)
        number = len(self.upstream.requests) + 1
        asked.stream = client.request("POST", "/v1/completions", headers, body)
        request = await (await self.upstream.arrived(number)).complete()
        request.respond(200, SSE_HEAD)
        opened = Open(asked, request)
        await opened.say(word)
        return opened

    def signal(self, number: signal.Signals) -> None:
        assert self.gateway.process is not None
        self.processes = family(self.gateway)
        self.gateway.process.send_signal(number)

    async def stopped(self) -> None:
        """The gateway ends by itself, in order, and leaves no process and no receipt behind."""
        assert self.gateway.process is not None
        assert await asyncio.to_thread(self.gateway.process.wait, 60) == 0, self.log()
        assert not [pid for pid in self.processes if Path(f"/proc/{pid}").exists()]
        assert not list((self.gateway.home / "audit/spool").iterdir())
        assert "in time and is killed" not in self.log()

    def log(self) -> str:
        return self.gateway.log.read_text()

    def entries(self, asked: Asked) -> list[Entry]:
        """Of one request, as they lie on disk once the gateway is down."""
        return [e for e in stored(self.gateway.home, "acme") if e.get("request_id") == asked.request_id]

    def readyz(self) -> httpx.Response:
        return self.gateway.http.get(self.gateway.url + "/readyz", headers={"connection": "close"})

    async def answered(self, client: H2Client) -> int:
        """The status of one listing on `client`."""
        stream = client.request("GET", "/v1/models", list(self.owner.bearer.items()))
        return (await stream.complete()).status


class _Wire(asyncio.Protocol):
    """One end of a relay: what comes in goes out at `other`, `AWAY_S` later."""

    def __init__(self) -> None:
        self.other: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._later(lambda transport: transport.write(data))

    def connection_lost(self, error: Exception | None) -> None:
        self._later(lambda transport: transport.close())

    def _later(self, what: Callable[[asyncio.Transport], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(AWAY_S, self.other.add_done_callback, lambda other: what(other.result()))


@asynccontextmanager
async def far_from(port: int) -> AsyncIterator[int]:
    """A port that leads to `port` over a network where everything takes its time."""
    loop = asyncio.get_running_loop()
    ways: set[asyncio.Task[None]] = set()

    async def lead_on(near: _Wire) -> None:
        transport, far = await loop.create_connection(_Wire, "127.0.0.1", port)
        near.other.set_result(transport)
        far.other.set_result(near.transport)

    class Near(_Wire):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            way = asyncio.create_task(lead_on(self))
            ways.add(way)

    server = await loop.create_server(Near, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*ways)
