"""The bed of a cancellation test: one upstream, one client connection, a canary stream that must not notice.

`async with lay(world) as bed:` … `await bed.verify()`, which judges all of `invariants`. Everything waits for
events; nothing sleeps.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.gateway.invariants import (
    CLIENT,
    COUNTED,
    MAX_TOKENS,
    SETTLED_S,
    Asked,
    Budget,
    judge_client,
    judge_entries,
    judge_log,
    judge_upstream,
)
from tests.integration.gateway.world import DONE, SSE_HEAD, Entry, Log, World, bind, new_request_id, sse
from tests.kit.gate import Gate
from tests.kit.gateway import Session
from tests.kit.h2client import H2Client
from tests.kit.upstream import RecordingUpstream, Request

__all__ = ["CLIENT", "Asked", "Bed", "Canary", "lay", "prepare"]


@dataclass
class Canary:
    """A stream that goes on for as long as the test: each beat must arrive at once, whole and in order."""

    asked: Asked
    request: Request
    said: bytes = b""
    beats: int = 0

    async def beat(self) -> None:
        """One numbered event, end to end. It is the connection's order too: what the upstream sent before it on
        the canary's connection has been read by the gateway when it is here."""
        self.beats += 1
        event = sse(f"beat {self.beats}")
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
    gate: Gate
    budget: Budget
    laid_at: float
    """When its budgets began, on the loop's clock, seconds."""
    connections: int | range = 1
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
        model: str = "",
        together: bool = False,
        **fields: Any,
    ) -> Asked:
        """Send one streaming completion. `together`: HEADERS, DATA and RST_STREAM in one packet."""
        client = client or self.client
        asked, headers, body = prepare(session or self.world.ada.session, model or self.model, **fields)
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

    async def seen(self) -> None:
        """Wait until the gateway has read all that this client has sent it: its answer to a request that goes
        nowhere comes after."""
        stream = self.client.request("GET", "/v1/models", list(self.world.ada.session.bearer.items()))
        assert (await stream.complete()).status == 200

    async def verify(self, *, resets: int) -> dict[str, Entry]:
        """What must hold after whatever was done: see `invariants`. `resets`: how many upstream streams.

        Returns the audit entries of all that was asked.
        """
        await self.canary.finish()
        assert self.canary.request.was_reset is None
        await self.fresh()
        await self.upstream.idle()
        judge_upstream(self.upstream, self.asked, resets=resets, connections=self.connections)
        judge_client(self.client)
        entries = await self._settled()
        judge_entries(self.asked, entries)
        await judge_log(self.world.owner)
        return entries

    async def fresh(self) -> Asked:
        """One more request on the client's connection, answered at once."""
        fresh, request = await self.next(prompt=COUNTED)
        request.respond_json({"object": "text_completion", "choices": []})
        await fresh.stream.complete()
        assert fresh.stream.status == 200, fresh.stream.body
        return fresh

    async def _settled(self) -> dict[str, Entry]:
        """Wait until the budgets are exact. The limits' owner hears of what was spent in batches, so the answer
        of the moment may lag by one; a request counted twice or never stays wrong for good."""
        now = asyncio.get_running_loop().time
        end = now() + SETTLED_S
        while True:
            entries = await self.log.of([each.request_id for each in self.asked])
            last = self.asked[-1]
            mine = [entry for entry in entries.values() if entry.get("model") == self.model]
            if not (fault := self.budget.fault(last, mine, now() - self.laid_at)):
                return entries
            assert now() < end, fault
            await self.fresh()


def prepare(session: Session, model: str, **fields: Any) -> tuple[Asked, list[tuple[str, str]], bytes]:
    """The parts of one completion request."""
    request_id = new_request_id()
    asked = {"model": model, "user": request_id, "prompt": "def fib(n):", "stream": True}
    asked["max_tokens"] = MAX_TOKENS
    body = {**asked, **fields}
    headers = [*session.bearer.items(), ("content-type", "application/json"), ("x-request-id", request_id)]
    return Asked(None, request_id), headers, json.dumps(body).encode()  # type: ignore[arg-type]  # set on sending


@asynccontextmanager
async def lay(
    world: World,
    *,
    slots: int = 2,
    door: bool = False,
    budget: Budget = Budget(),  # noqa: B008 - frozen
    alpn: tuple[str, ...] = ("h2", "http/1.1"),
    binding: Entry | None = None,
    **up: Any,
) -> AsyncIterator[Bed]:
    """`slots`: a concurrency limit on the model. The canary holds one: what is not given back is missed at
    once. `door`: stand a gate before the upstream. `budget`: of
    the model. `binding`: more fields of the upstream's binding; `up`: of the
    recording upstream."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(RecordingUpstream(tls=world.pki.server_context(alpn), **up))
        gate = await stack.enter_async_context(Gate(upstream.port))
        limits = [{"unit": "concurrency", "amount": slots, "period_s": 0}, *budget.limits()]
        laid_at = asyncio.get_running_loop().time()
        url = gate.url if door else upstream.url
        model = await asyncio.to_thread(bind, world.owner, world.pki, url, limits=limits, **(binding or {}))
        async with await world.connect() as client:
            asked, headers, body = prepare(world.ben.session, model)
            asked.stream = client.request("POST", "/v1/completions", headers, body)
            request = await (await upstream.arrived(1)).complete()
            request.respond(200, SSE_HEAD)
            canary = Canary(asked, request)
            await canary.beat()
            log = await asyncio.to_thread(Log, world.owner)
            yield Bed(world, upstream, model, client, canary, log, gate, budget, laid_at, asked=[asked])
