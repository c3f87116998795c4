"""The bus over HTTP: the hub's stream and the posts that come up. Served on the Unix socket (0600) only.

Nobody is authenticated here: whoever may open the socket is the user the gateway runs as.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Protocol
from urllib.parse import parse_qs

from litestar import MediaType, Response, asgi, post
from litestar.handlers import ASGIRouteHandler, HTTPRouteHandler
from litestar.params import JSONBody
from litestar.types import Receive, Scope, Send

from gateway.api.failure import bare
from gateway.bus.client import BusClient
from gateway.bus.hub import Hub
from gateway.bus.messages import ACK, METRICS, SLICES, SPOOL, STREAM, AckUp, MetricsUp, SpoolAck, SpoolUp
from gateway.limits.messages import SliceAnswer, SliceAsk

log = logging.getLogger("orgate.bus")

MAX_POST_BYTES = 64 * 1024 * 1024
"""A spool after a long silence is the largest thing that comes up."""

_OPT = {"tenancy": "none"}


class SliceOwner(Protocol):
    """Owns the buckets: `gateway.limits.owner.LimitOwner`."""

    def answer(self, ask: SliceAsk) -> SliceAnswer: ...
    def left(self, worker: str) -> None: ...


def slices_over(bus: BusClient) -> Callable[[SliceAsk], Awaitable[SliceAnswer]]:
    """The `ask` of `gateway.limits.slices.SlicedLimits`, over `bus`."""

    async def ask(message: SliceAsk) -> SliceAnswer:
        return await bus.ask_slices(message, SliceAnswer)

    return ask


def bus_routes(
    hub: Hub,
    owner: SliceOwner,
    spool_sink: Callable[[SpoolUp], Awaitable[int]],
    metrics_sink: Callable[[MetricsUp], None],
) -> list[ASGIRouteHandler | HTTPRouteHandler]:
    """The handlers of the bus. `spool_sink` answers the last `seq` whose entry is durable.

    A worker whose stream ends has left: `owner` is told.
    """
    hub.on_leave(owner.left)

    @post(ACK, status_code=204, opt=_OPT)
    async def ack(data: JSONBody[AckUp]) -> None:
        hub.ack(data.worker, data.version)

    @post(SPOOL, status_code=200, opt=_OPT, request_max_body_size=MAX_POST_BYTES)
    async def spool(data: JSONBody[SpoolUp]) -> SpoolAck:
        return SpoolAck(await spool_sink(data))

    @post(SLICES, status_code=200, opt=_OPT, request_max_body_size=MAX_POST_BYTES)
    async def slices(data: JSONBody[SliceAsk]) -> SliceAnswer:
        return owner.answer(data)

    @post(METRICS, status_code=204, opt=_OPT, request_max_body_size=MAX_POST_BYTES)
    async def metrics(data: JSONBody[MetricsUp]) -> None:
        metrics_sink(data)

    return [_stream(hub), ack, spool, slices, metrics]


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
