"""The gateway's side in these tests: a transport bound to one recording upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any, cast

import httpx

from gateway.upstream.gauges import Gauges
from gateway.upstream.transport import AnswerStream, TransportPool, UpstreamTransport
from tenants.ids import OrgId
from tenants.models import Upstream, WireProtocol
from tests.kit.certs import Pki
from tests.kit.upstream import RecordingUpstream

LOOPBACK = (ip_network("127.0.0.0/8"),)


def binding(upstream: RecordingUpstream, pki: Pki | None = None, **fields: Any) -> Upstream:
    defaults: dict[str, Any] = {
        "org": OrgId("acme"),
        "name": "main",
        "base_url": upstream.url,
        "protocol": WireProtocol.AUTO if upstream.tls else WireProtocol.H2C,
        "ca_pem": pki.ca_pem if pki and upstream.tls else "",
        "connections": 1,
        "connect_timeout_ms": 5_000,
    }
    return Upstream(**(defaults | fields))


class Caller:
    def __init__(self, transport: UpstreamTransport, url: str) -> None:
        self.transport = transport
        self.url = httpx.URL(url)
        self.tasks: set[asyncio.Task[httpx.Response]] = set()

    @property
    def gauges(self) -> Gauges:
        return self.transport.gauges

    def request(self, body: bytes = b"{}", extensions: dict[str, Any] | None = None) -> httpx.Request:
        url = self.url.copy_with(path="/v1/completions")
        return httpx.Request("POST", url, content=body, extensions=extensions)

    def start(self, body: bytes = b"{}") -> asyncio.Task[httpx.Response]:
        task = asyncio.ensure_future(self.transport.handle_async_request(self.request(body)))
        self.tasks.add(task)
        return task

    async def ask(self, body: bytes = b"{}") -> bytes:
        """One whole exchange; its answer's body."""
        return await read(await self.start(body))


async def read(response: httpx.Response) -> bytes:
    try:
        return b"".join([data async for data in stream_of(response)])
    finally:
        await response.aclose()


def stream_of(response: httpx.Response) -> AnswerStream:
    return cast("AnswerStream", response.stream)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel and see the cancellation come out, not something else in its place."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
    raise AssertionError("the task swallowed its cancellation")


@asynccontextmanager
async def connected(upstream: RecordingUpstream, pki: Pki | None, **fields: Any) -> AsyncIterator[Caller]:
    """When the block ends without an error, no stream may be open on either side."""
    pool = TransportPool(allowed=LOOPBACK)
    caller = Caller(pool.for_upstream(binding(upstream, pki, **fields)), upstream.url)
    try:
        yield caller
        assert caller.gauges.streams == 0
        assert caller.gauges.waiting == 0
        await upstream.idle()
    finally:
        await pool.aclose()
        for task in caller.tasks:
            task.cancel()
        await asyncio.gather(*caller.tasks, return_exceptions=True)
