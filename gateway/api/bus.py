"""The bus over HTTP: the hub's stream and the posts that come up. Served on the Unix socket (0600) only.

Nobody is authenticated here: whoever may open the socket is the user the gateway runs as.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar
from urllib.parse import parse_qs

import msgspec
from litestar import MediaType, Response, asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from gateway.api.failure import bare
from gateway.bus.client import BusClient
from gateway.bus.hub import Hub
from gateway.bus.messages import (
    ACK,
    KEY_USES,
    METRICS,
    PROMPT_KEY,
    REFUSED,
    SLICES,
    SPOOL,
    STREAM,
    AckUp,
    KeyUsesUp,
    MetricsUp,
    PromptKey,
    PromptKeyAsk,
    RefusedUp,
    SpoolAck,
    SpoolUp,
)
from gateway.errors import GatewayError, UnavailableError
from gateway.limits.protocol import SliceAnswer, SliceAsk
from gateway.limits.store import SliceStore
from gateway.secret import Secret
from tenants.ids import OrgId

log = logging.getLogger("orgate.bus")

MAX_POST_BYTES = 64 * 1024 * 1024
"""A spool after a long silence is the largest thing that comes up."""

_OPT = {"tenancy": "none"}
T = TypeVar("T", bound=Struct)


class SliceOwner(Protocol):
    """Owns the buckets: `gateway.limits.accounts.LimitOwner`."""

    def answer(self, ask: SliceAsk) -> SliceAnswer: ...
    def left(self, worker: str) -> None: ...


def slices_over(bus: BusClient) -> SliceStore:
    """The store of `gateway.limits.slices.SlicedLimits`, over `bus`: the owner in the control process."""
    return _OverBus(bus)


class _OverBus:
    def __init__(self, bus: BusClient) -> None:
        self._bus = bus

    async def ask(self, message: SliceAsk) -> SliceAnswer:
        return await self._bus.ask_slices(message, SliceAnswer)


def bus_routes(
    hub: Hub,
    owner: SliceOwner,
    spool_sink: Callable[[SpoolUp], Awaitable[int]],
    metrics_sink: Callable[[MetricsUp], None],
    refused_sink: Callable[[RefusedUp], None] = lambda _: None,
    *,
    uses_sink: Callable[[KeyUsesUp], Awaitable[None]] | None = None,
    prompt_key: Callable[[OrgId], Awaitable[Secret]] | None = None,
) -> list[ASGIRouteHandler]:
    """The handlers of the bus. `spool_sink` answers the last `seq` whose entry is durable; `refused_sink` takes
    note of a key that was refused, and does what follows from it later; `uses_sink` writes down when personal
    tokens were used; `prompt_key` gives what hashes an organization's prompts.

    A worker whose stream ends has left: `owner` is told.
    """
    hub.on_leave(owner.left)

    async def ack(message: AckUp) -> None:
        hub.ack(message.worker, message.version)

    async def spool(message: SpoolUp) -> SpoolAck:
        return SpoolAck(await spool_sink(message))

    async def slices(message: SliceAsk) -> SliceAnswer:
        return owner.answer(message)

    async def metrics(message: MetricsUp) -> None:
        metrics_sink(message)

    async def refused(message: RefusedUp) -> None:
        refused_sink(message)

    async def uses(message: KeyUsesUp) -> None:
        if uses_sink is not None:
            await uses_sink(message)

    async def key_of(message: PromptKeyAsk) -> PromptKey:
        if prompt_key is None:
            raise UnavailableError("nobody here keeps keys of prompts")
        return PromptKey((await prompt_key(message.org)).reveal())

    return [
        _stream(hub),
        _post(ACK, AckUp, ack),
        _post(SPOOL, SpoolUp, spool),
        _post(SLICES, SliceAsk, slices),
        _post(METRICS, MetricsUp, metrics),
        _post(REFUSED, RefusedUp, refused),
        _post(KEY_USES, KeyUsesUp, uses),
        _post(PROMPT_KEY, PromptKeyAsk, key_of),
    ]


def _post(path: str, kind: type[T], take: Callable[[T], Awaitable[Struct | None]]) -> ASGIRouteHandler:
    """A post of one message. Raw: they come dozens of times a second, and a message is checked by its decoder."""
    decoder = msgspec.json.Decoder(kind)

    @asgi(path, opt=_OPT, copy_scope=False)
    async def post(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "POST":
            await _answer(send, 405, b"POST only\n", (b"allow", b"POST"))
            return
        body = await _body(receive)
        if body is None:
            await _answer(send, 413, b"the message is too large\n")
            return
        try:
            message = decoder.decode(body)
        except msgspec.DecodeError as error:
            await _answer(send, 400, f"{error}\n".encode("utf-8", "replace"))
            return
        try:
            answer = await take(message)
        except GatewayError as error:
            await _answer(send, error.status, f"{error}\n".encode("utf-8", "replace"))
            return
        if answer is None:
            await _answer(send, 204, b"")
        else:
            await _answer(send, 200, msgspec.json.encode(answer), (b"content-type", b"application/json"))

    return post


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when it is larger than any message is."""
    parts: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return b""  # cut off: no message at all
        if event["type"] != "http.request":
            continue
        parts.append(event["body"])
        size += len(event["body"])
        if size > MAX_POST_BYTES:
            return None
        if not event["more_body"]:
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    fields = [*headers, (b"content-length", b"%d" % len(body))] if status != 204 else list(headers)
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _stream(hub: Hub) -> ASGIRouteHandler:
    # Raw, because only a raw handler learns of a disconnect while it has nothing to send.
    @asgi(STREAM, opt=_OPT, copy_scope=False)
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        worker = parse_qs(scope["query_string"].decode("latin-1")).get("worker", [""])[0]
        if scope.get("method") != "GET" or not worker:
            wrong = Response("GET, with ?worker=<id>\n", status_code=400, media_type=MediaType.TEXT)
            await wrong.to_asgi_response(app=None, request=None)(scope, receive, send)  # type: ignore[arg-type]
            return
        carrying = asyncio.ensure_future(_carry(hub, worker, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((carrying, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            carrying.cancel()
            gone.cancel()
            results = await asyncio.gather(carrying, gone, return_exceptions=True)
        for fault in results:
            if isinstance(fault, Exception):
                log.warning("the stream of worker %s ended: %s", worker, bare(fault))

    return stream


async def _carry(hub: Hub, worker: str, send: Send) -> None:
    headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async with aclosing(hub.attach(worker)) as lines:
        async for line in lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
