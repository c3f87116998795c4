"""Everything around one pipeline, each part changeable by a test. Named fakes, each with the real one's rules."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import httpx

from gateway.api.data.openai import decoder
from gateway.dpop import Presented
from gateway.errors import (
    GatewayError,
    UnauthenticatedError,
)
from gateway.exchange import Claim, Credential, Headers, Intent, Principal, Receipt, Used
from gateway.inflight import Abort, InFlight
from gateway.limits.tokens import Tokens
from gateway.pipeline import Pipeline
from gateway.secret import Secret
from gateway.upstream.auth.grant import Grant
from gateway.upstream.auth.shapes import Client
from gateway.upstream.auth.tokens import ClientTokens
from gateway.upstream.errors import RefusedError
from gateway.upstream.relay import Relay
from gateway.upstream.stream import Outgoing, Stream
from gateway.upstream.transport import UpstreamAnswer
from policies.facts import Action, Role
from policies.lanes import Lane
from policies.rules import Effect
from tenants.ids import OrgId
from tenants.models import LimitUnit, ModelAlias, Org, OrgRule, Upstream
from tenants.snapshot import Snapshot, TenantRecord

ACME = OrgId("acme")
KEY = b"sk-upstream-secret"
PROMPT = 5
"""Tokens."""
RULE = OrgRule(ACME, "all", Effect.ALLOW, (Role.MEMBER,), tuple(Action), ("*",))
RECORD = TenantRecord(
    org=Org(ACME, "Acme"),
    upstreams=(Upstream(ACME, "up", "https://model.test", key_version=3),),
    models=(ModelAlias(ACME, "code", "up", "real-code"), ModelAlias(ACME, "lost", "gone", "x")),
    rules=(RULE,),
)
BODY = b'{"model":"code","prompt":"def f(","stream":true}'
PLAIN = b'{"model":"code","prompt":"def f("}'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\ndata: [DONE]\n\n'


class FakeClock:
    def __init__(self) -> None:
        self.us = 0

    def now(self) -> float:
        return 1_000.0

    def monotonic_us(self) -> int:
        self.us += 10
        return self.us


class FakeHold:
    def __init__(self) -> None:
        self.ends: list[int | None] = []

    metered = False
    tight = False

    def headers(self) -> Headers:
        return [
            (b"x-ratelimit-limit-requests", b"10"),
            (b"x-ratelimit-remaining-requests", b"9"),
            (b"x-ratelimit-reset-requests", b"6000ms"),
        ]

    def spending(self, used: Used) -> Claim | None:
        return None

    def settle(self, used: Used) -> None:
        self.ends.append(used.of(LimitUnit.TOKENS))

    def refund(self) -> None:
        self.ends.append(None)


class FakeStream:
    """An answer body that a test feeds, in place of the transport's `Stream`; notes when it was closed."""

    def __init__(self, *pieces: bytes | BaseException | asyncio.Event) -> None:
        self.pieces = list(pieces)
        self.closed = False

    async def read(self) -> bytes:
        while self.pieces:
            piece = self.pieces.pop(0)
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            elif isinstance(piece, BaseException):
                raise piece
            else:
                return piece
        return b""

    def cancel(self) -> None:
        self.closed = True


def upstream_answer(
    status: int, stream: FakeStream, content_type: str = "text/event-stream", **headers: str
) -> UpstreamAnswer:
    fields = {"content-type": content_type, **headers}
    return UpstreamAnswer(status, [(k.encode(), v.encode()) for k, v in fields.items()], cast("Stream", stream))


class FakeTransport:
    """The real transport's `outgoing` and `open`, and httpx's request to look at in the middle."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kept: dict[Any, Any] = {}

    def outgoing(
        self,
        method: bytes,
        path: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        *,
        ends: float = math.inf,
        lane: int = 0,
        weight: int = 1,
        block: bytes = b"",
    ) -> Outgoing:
        return Outgoing(method, path, headers, body, math.inf, math.inf, ends, lane, (), block, weight)

    async def open(
        self,
        outgoing: Outgoing,
        sent: Callable[[], None] | None = None,
        refused: Callable[[], None] | None = None,
    ) -> UpstreamAnswer:
        world = self.world
        request = httpx.Request(
            outgoing.method.decode(),
            "https://model.test" + outgoing.path.decode(),
            headers=list(outgoing.headers),
            content=outgoing.body,
        )
        world.requests.append(request)
        world.outgoing.append(outgoing)
        assert world.respond is not None, "this test should not reach the upstream"
        if world.sends and sent is not None:
            sent()
        try:
            return await world.respond(request)
        except RefusedError:
            if refused is not None:
                refused()
            raise


class World:
    """Everything around one pipeline, each part changeable by a test."""

    def __init__(self) -> None:
        self.snapshot = Snapshot(1, [RECORD])
        self.accepting = True
        self.hold = FakeHold()
        self.claims: Sequence[Claim] = ()
        self.receipts: list[Receipt] = []
        self.admitted = 0
        self.intents: dict[int, Intent] = {}
        self.secured: list[Intent] = []
        self.receipts_error: GatewayError | None = None
        self.secure_error: GatewayError | None = None
        self.secure_gate: asyncio.Event | None = None
        self.observed: list[Receipt] = []
        self.respond: Callable[[httpx.Request], Awaitable[UpstreamAnswer]] | None = None
        self.requests: list[httpx.Request] = []
        self.outgoing: list[Outgoing] = []
        self.transport = FakeTransport(self)
        self.sends = True
        self.limit_error: GatewayError | None = None
        self.limit_gate: asyncio.Event | None = None
        self.in_flight = InFlight()
        self.granted: Grant | None = None
        self.key = KEY
        self.refused_keys: list[tuple[OrgId, str, int]] = []
        self.outdone_keys: list[tuple[OrgId, str, int]] = []
        self.other_key: Credential | None = None
        self.pipeline = Pipeline(
            world=self,
            authn=self,
            limits=self,
            keys=self,
            relay=Relay(self, ClientTokens(self.grant, lambda: 0.0), lambda: 1_000.0),
            receipts=self,
            in_flight=self.in_flight,
            observe=self.observed.append,
            clock=FakeClock(),
            max_in_flight=2,
            tokens=Tokens(self.count),
        )

    def count(self, text: str) -> int:
        """The tokenizer: every prompt is as long."""
        return PROMPT

    async def grant(self, upstream: Upstream, client: Client) -> Grant:
        """What token endpoints answer."""
        assert self.granted is not None, "this test has no token endpoint"
        return self.granted

    def authenticate(
        self, authorization: bytes | None, host: str, snapshot: Snapshot, presented: Presented | None = None
    ) -> Principal:
        if authorization is None:
            raise UnauthenticatedError("no token")
        return Principal(ACME, "mem_1", frozenset({Role.MEMBER}), "editor", "jti", "aud", 0, 9_999_999_999)

    def take(self, claims: tuple[Claim, ...]) -> FakeHold | None:
        return None

    async def reserve(self, claims: Sequence[Claim]) -> FakeHold:
        self.claims = claims
        if self.limit_gate is not None:
            await self.limit_gate.wait()
        if self.limit_error is not None:
            raise self.limit_error
        return self.hold

    def peek(self, org: OrgId, upstream: str, key_version: int) -> Credential | None:
        return None

    async def lease(self, org: OrgId, upstream: str, key_version: int) -> Credential:
        return Credential(key_version, Secret(self.key))

    def refused(self, org: OrgId, upstream: str, version: int) -> None:
        self.refused_keys.append((org, upstream, version))

    def outdone(self, org: OrgId, upstream: str, version: int) -> None:
        self.outdone_keys.append((org, upstream, version))

    async def other(self, org: OrgId, upstream: str, version: int, key_version: int) -> Credential | None:
        return self.other_key

    def admit(self, intent: Intent) -> int:
        if self.receipts_error is not None:
            raise self.receipts_error
        self.admitted += 1
        self.intents[self.admitted] = intent
        return self.admitted

    async def secure(self, number: int, intent: Intent) -> None:
        self.secured.append(intent)
        if self.secure_gate is not None:
            await self.secure_gate.wait()
        if self.secure_error is not None:
            raise self.secure_error

    def append(self, receipt: Receipt, number: int) -> None:
        del self.intents[number]
        self.receipts.append(receipt)

    def for_upstream(self, upstream: Upstream) -> FakeTransport:
        return self.transport

    def answers(
        self, status: int, stream: FakeStream, content_type: str = "text/event-stream", **headers: str
    ) -> FakeStream:
        async def respond(request: httpx.Request) -> UpstreamAnswer:
            return upstream_answer(status, stream, content_type, **headers)

        self.respond = respond
        return stream

    def raises(self, error: Exception) -> None:
        async def respond(request: httpx.Request) -> UpstreamAnswer:
            raise error

        self.respond = respond


class FakeInbound:
    request_id = "req_test0001"
    trace_id = ""
    host = "localhost"
    peer = ("127.0.0.1", "50000")
    peer = ("127.0.0.1", "1")
    client_version = "editor/1.0"
    document: bytes | None = None
    presented: Presented | None = None
    lane: Lane = Lane.COMPLETION
    arrived = 0.0
    ends = math.inf
    fault: GatewayError | None = None

    def __init__(self, body: bytes = BODY, authorization: bytes | None = b"Bearer t") -> None:
        self._body = body
        self.authorization = authorization
        self.aborted: Abort | None = None
        self.task: asyncio.Task[None] | None = None

    async def body(self) -> bytes:
        return self._body

    def check(self) -> None:
        if self.fault is not None:
            raise self.fault

    def left_s(self) -> float:
        return self.ends - asyncio.get_running_loop().time()

    def end_within(self, seconds: float) -> None:
        """Notes it; a test calls `abort` itself."""
        self.ends = min(self.ends, self.arrived + seconds)

    def abort(self, reason: Abort) -> None:
        self.aborted = reason
        assert self.task is not None
        self.task.cancel()


class FakeAnswer:
    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.done = False
        self.first = asyncio.Event()

    async def start(self, status: int, headers: Headers) -> None:
        assert self.status == 0
        self.status, self.headers = status, dict(headers)

    async def send(self, data: bytes) -> None:
        assert self.status
        self.body += data
        self.first.set()

    async def finish(self, data: bytes) -> None:
        assert not self.done
        self.body += data
        self.done = True


async def run(world: World, inbound: FakeInbound | None = None) -> FakeAnswer:
    answer = FakeAnswer()
    await world.pipeline.complete(Action.COMPLETE, inbound or FakeInbound(), decoder(Action.COMPLETE), answer)
    return answer


def settled(world: World) -> Receipt:
    """The one receipt; checks what holds for every outcome."""
    assert world.in_flight.count == 0
    assert world.intents == {}
    assert len(world.observed) == 1
    assert len(world.receipts) == world.admitted == 1
    return world.receipts[0]
