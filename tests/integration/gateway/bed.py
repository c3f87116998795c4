"""The bed of a cancellation test: one upstream, one client connection, a canary stream that must not notice.

`async with lay(world) as bed:` … `await bed.verify()`. Everything waits for events; nothing sleeps.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.gateway.world import DONE, SSE_HEAD, Entry, Log, World, bind, new_request_id, sse
from tests.kit.gateway import Session
from tests.kit.h2client import H2Client, H2Stream
from tests.kit.upstream import RecordingUpstream, Request

CLIENT = "cancelled_by_client"


@dataclass
class Asked:
    """One request of a test: the client's end, and the outcome its audit entry must have."""

    stream: H2Stream
    request_id: str
    outcome: str = "served"
    entry: dict[str, Any] = field(default_factory=dict)
    """What else its entry must say."""


@dataclass
class Canary:
    """A stream that goes on for as long as the test: each beat must arrive at once, whole and in order."""

    asked: Asked
    request: Request
    said: bytes = b""

    async def beat(self) -> None:
        event = sse(f"beat {len(self.said)}")
        self.said += event
        self.request.send(event)
        assert await self.asked.stream.received(len(self.said)) == self.said

    async def finish(self) -> None:
        await self.beat()
        self.request.send(DONE, end=True)
        await self.asked.stream.complete()
        assert self.asked.stream.body == self.said + DONE
        assert self.asked.stream.status == 200


@dataclass
class Bed:
    world: World
    upstream: RecordingUpstream
    model: str
    client: H2Client
    canary: Canary
    log: Log
    connections: int = 1
    """How many the upstream may have accepted in the end."""
    asked: list[Asked] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.world.gateway.public_port

    def ask(
        self,
        *,
        client: H2Client | None = None,
        session: Session | None = None,
        together: bool = False,
        **fields: Any,
    ) -> Asked:
        """Send one streaming completion. `together`: HEADERS, DATA and RST_STREAM in one packet."""
        client = client or self.client
        asked, headers, body = prepare(session or self.world.ada.session, self.model, **fields)
        send = client.request_and_reset if together else client.request
        asked.stream = send("POST", "/v1/completions", headers, body)
        self.asked.append(asked)
        return asked

    async def arrived(self) -> Request:
        """The upstream's end of the request that was asked last."""
        return await (await self.upstream.arrived(len(self.upstream.requests) or 1)).complete()

    async def next(self, **options: Any) -> tuple[Asked, Request]:
        """Ask, and wait until the upstream has the whole request."""
        number = len(self.upstream.requests) + 1
        asked = self.ask(**options)
        return asked, await (await self.upstream.arrived(number)).complete()

    async def verify(self, *, resets: int) -> dict[str, Entry]:
        """What must hold after whatever was done: see the module. `resets`: how many upstream streams."""
        await self.canary.finish()
        assert self.canary.request.was_reset is None
        fresh, request = await self.next()
        request.respond_json({"object": "text_completion", "choices": []})
        await fresh.stream.complete()
        assert fresh.stream.status == 200, fresh.stream.body
        await self.upstream.idle()
        assert self.upstream.resets == resets
        assert request.was_reset is None
        assert len(self.upstream.connections) == self.connections
        assert not self.upstream.faults, self.upstream.faults
        assert not self.client.closed
        assert self.client.goaway_code is None
        assert not self.client.faults, self.client.faults
        entries = await self.log.of([asked.request_id for asked in self.asked])
        for asked in self.asked:
            entry = entries[asked.request_id]
            assert entry["outcome"] == asked.outcome, entry
            for name, value in asked.entry.items():
                assert entry[name] == value, (name, entry)
        return entries


def prepare(session: Session, model: str, **fields: Any) -> tuple[Asked, list[tuple[str, str]], bytes]:
    """The parts of one completion request."""
    request_id = new_request_id()
    body = {"model": model, "prompt": "def fib(n):", "stream": True, "max_tokens": 16, **fields}
    headers = [*session.bearer.items(), ("content-type", "application/json"), ("x-request-id", request_id)]
    return Asked(None, request_id), headers, json.dumps(body).encode()  # type: ignore[arg-type]  # set on sending


@asynccontextmanager
async def lay(
    world: World,
    *,
    slots: int = 2,
    alpn: tuple[str, ...] = ("h2", "http/1.1"),
    binding: Entry | None = None,
    **up: Any,
) -> AsyncIterator[Bed]:
    """`slots`: a concurrency limit on the model. The canary holds one: what is not given back is missed at
    once. `binding`: more fields of the upstream's binding; `up`: of the recording upstream."""
    async with RecordingUpstream(tls=world.pki.server_context(alpn), **up) as upstream:
        limit = {"unit": "concurrency", "amount": slots, "period_s": 0}
        model = await asyncio.to_thread(
            bind, world.owner, world.pki, upstream.url, limits=[limit], **(binding or {})
        )
        async with await world.connect() as client:
            asked, headers, body = prepare(world.ben.session, model)
            asked.stream = client.request("POST", "/v1/completions", headers, body)
            request = await (await upstream.arrived(1)).complete()
            request.respond(200, SSE_HEAD)
            canary = Canary(asked, request)
            await canary.beat()
            log = await asyncio.to_thread(Log, world.owner)
            yield Bed(world, upstream, model, client, canary, log, asked=[asked])
