"""What tests of stopping share: a gateway with one model, streams through it, and questions to its `/readyz`."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.integration.gateway.bed import Asked, prepare
from tests.integration.gateway.world import DONE, SSE_HEAD, Entry, connect, family, sse, stored
from tests.kit.gateway import RunningGateway, Session
from tests.kit.h2client import H2Client
from tests.kit.upstream import RecordingUpstream, Request


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
