"""httpx's transport interface over our own connections: what the rest of the gateway calls.

Stock httpx cannot be used: it sends no RST_STREAM, so an abandoned completion runs on at the upstream, and
after about a hundred of them no stream is left on the connection.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Container, Iterator, Sequence
from typing import Any

import httpx

from gateway.upstream.addresses import Network
from gateway.upstream.balance import Bounds
from gateway.upstream.dial import Dialler, Identity, Resolve, resolve
from gateway.upstream.errors import RefusedError, TotalTimeoutError
from gateway.upstream.fields import Header
from gateway.upstream.gauges import Gauges
from gateway.upstream.pool import Connection, ConnectionPool
from gateway.upstream.share import Shares
from gateway.upstream.stream import Outgoing, Stream
from tenants.ids import OrgId
from tenants.models import Upstream

ATTEMPTS = 3
"""How often a request is sent that upstreams say they have not processed."""

SENT = "orgate.sent"
"""Request extension: a `Callable[[], None]`, called in the step that writes the request's first byte. Until
then nothing has been sent, whatever ends the request."""

_DROPPED = frozenset(  # connection-specific fields, RFC 9113 section 8.2.2; `host` is the origin's
    (
        b"host",
        b"connection",
        b"content-length",  # the body's own
        b"proxy-connection",
        b"keep-alive",
        b"transfer-encoding",
        b"upgrade",
        b"te",
    )
)


class UpstreamAnswer:
    """An answer at its head. Header names are lower-case. Read its `stream` to the end, or `cancel`."""

    __slots__ = ("headers", "status", "stream")

    def __init__(self, status: int, headers: Sequence[Header], stream: Stream) -> None:
        self.status = status
        self.headers = headers
        self.stream = stream

    def header(self, name: bytes) -> bytes:
        """The first header of that name, b"" when there is none."""
        for found, value in self.headers:
            if found == name:
                return value
        return b""

    def cancel(self) -> None:
        """Reset the upstream's stream at once, unless it has ended. Never awaits; may be called again."""
        self.stream.cancel()


class AnswerStream(httpx.AsyncByteStream):
    """The body of an answer: what has piled up comes in one piece. Iterate once, then close or cancel."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self._stream.read()
        if not data:
            raise StopAsyncIteration
        return data

    def cancel(self) -> None:
        """Reset the upstream's stream at once, unless it has ended. Never awaits; may be called again."""
        self._stream.cancel()

    async def aclose(self) -> None:
        self._stream.cancel()


class UpstreamTransport(httpx.AsyncBaseTransport):
    """One upstream of one organization. Cancelling the task inside `open` resets at once.

    `open` is the way of requests; httpx's interface is for everything that happens seldom.

    Both raise `httpx.ConnectError`, `ConnectTimeout`, `PoolTimeout` and `SaturatedError` (nothing was sent),
    `RefusedError` (sent, and not processed), `TotalTimeoutError`, `ReadTimeout`, `RemoteProtocolError`;
    httpx's also `UnsupportedProtocol` for a request to another origin: a key never goes anywhere but where it
    belongs.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        allowed: Sequence[Network] = (),
        gauges: Gauges | None = None,
        resolver: Resolve = resolve,
        shares: Shares | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.gauges = gauges or Gauges()
        self.upstream = upstream
        dialler = Dialler(upstream, self.gauges, allowed=allowed, resolver=resolver, identity=identity)
        self._origin = dialler.origin
        self._raw_scheme = self._origin.scheme.encode()
        self._first_byte_s = upstream.first_byte_timeout_ms / 1000
        self._idle_s = upstream.idle_timeout_ms / 1000
        self._total_s = upstream.total_timeout_ms / 1000 or math.inf
        self._loop = asyncio.get_running_loop()
        self.kept: dict[Any, Any] = {}
        """The caller's: what it has prepared for requests to this upstream. Goes with it."""
        origin = (self._origin.scheme, self._origin.host, self._origin.port)
        self._pool = ConnectionPool(
            dialler,
            Bounds.of(upstream),
            self.gauges,
            self._origin.multiplexed,
            org=upstream.org,
            share=shares.of(origin) if shares is not None and upstream.max_in_flight else None,
        )

    @property
    def idle(self) -> bool:
        return self._pool.idle

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self.open(await self._outgoing(request), request.extensions.get(SENT))
        return httpx.Response(
            answer.status,
            headers=list(answer.headers),
            stream=AnswerStream(answer.stream),
            extensions={"stream_id": answer.stream.id},
        )

    def outgoing(
        self,
        method: bytes,
        path: bytes,
        headers: Sequence[Header],
        body: bytes,
        *,
        ends: float = math.inf,
        lane: int = 0,
        weight: int = 1,
        block: bytes = b"",
    ) -> Outgoing:
        """A request to this upstream with the times it may take, from now on. See `Outgoing`."""
        now = self._loop.time()
        return Outgoing(
            method,
            path,
            headers,
            body,
            now + self._first_byte_s,
            self._idle_s,
            min(ends, now + self._total_s),
            lane,
            (),
            block,
            weight,
        )

    async def open(
        self,
        outgoing: Outgoing,
        sent: Callable[[], None] | None = None,
        refused: Callable[[], None] | None = None,
    ) -> UpstreamAnswer:
        """Send a request and wait for its answer's head. `sent`: see `SENT`; `refused`: called when the upstream
        says that it has not processed what was sent, so that who gives up before the next attempt owes nothing."""
        self.gauges.requests += 1
        for attempt in range(1, ATTEMPTS + 1):
            try:
                connection = self._pool.take()
                if connection is None:
                    connection = await self._queued(outgoing)
                stream = self._pool.start(connection, outgoing)
                if sent is not None:
                    sent()
                try:
                    head = await stream.head
                except BaseException:
                    stream.cancel()
                    raise
            except RefusedError:
                if refused is not None:
                    refused()
                if attempt == ATTEMPTS:
                    raise
            else:
                return UpstreamAnswer(head.status, head.headers, stream)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def drain(self) -> None:
        """Replaced by a newer configuration: close when idle."""
        self._pool.drain()

    def close(self) -> None:
        self._pool.close()

    async def aclose(self) -> None:
        self._pool.close()

    async def _queued(self, outgoing: Outgoing) -> Connection:
        try:
            return await self._pool.acquire(outgoing.lane, outgoing.first_due, outgoing.weight)
        except TimeoutError:
            self.gauges.timeouts += 1
            if outgoing.ends <= outgoing.deadline:
                raise TotalTimeoutError("the request took longer than it may") from None
            raise httpx.PoolTimeout("no stream to the upstream came free in time") from None

    async def _outgoing(self, request: httpx.Request) -> Outgoing:
        url = request.url
        if url.netloc != self._origin.netloc or url.raw_scheme != self._raw_scheme:
            raise httpx.UnsupportedProtocol("the request is for another origin than the upstream's")
        body = await request.aread()
        headers: list[Header] = []
        for name, value in request.headers.raw:
            lower = name.lower()
            if lower not in _DROPPED:
                headers.append((lower, value))
        return self.outgoing(request.method.encode("ascii"), url.raw_path, headers, body)


class TransportPool:
    """A transport for each (organization, upstream, version): no connection is shared between organizations,
    and none outlives the configuration it was made from by more than the requests it carries.

    Belongs to one event loop. `allowed`: networks that upstream URLs may lead to besides public ones; `identity`:
    where the client certificates are.
    """

    def __init__(
        self,
        *,
        allowed: Sequence[Network] = (),
        resolver: Resolve = resolve,
        identity: Identity | None = None,
    ) -> None:
        self._allowed = tuple(allowed)
        self._resolver = resolver
        self._identity = identity
        self._transports: dict[tuple[OrgId, str, int], UpstreamTransport] = {}
        self._newest: dict[tuple[OrgId, str], int] = {}
        self._gauges: dict[tuple[OrgId, str], Gauges] = {}
        self._shares = Shares()

    def for_upstream(self, upstream: Upstream) -> UpstreamTransport:
        """Raises `httpx.UnsupportedProtocol` when `base_url` is none that can be spoken to."""
        key = (upstream.org, upstream.name, upstream.version)
        transport = self._transports.get(key)
        if transport is not None and transport.upstream is not upstream and transport.upstream != upstream:
            # Deleted and made anew: versions began again, and nobody need have been told in between.
            self.forget(upstream.org, upstream.name)
            transport = None
        return transport if transport is not None else self._make(key, upstream)

    def gauges(self) -> Iterator[tuple[OrgId, str, Gauges]]:
        for (org, name), gauges in self._gauges.items():
            yield org, name, gauges

    def keep(self, known: Container[tuple[OrgId, str]]) -> None:
        """Forget the upstreams that are not in `known`: they were deleted, or their organization was."""
        for org, name in [key for key in self._gauges if key not in known]:
            self.forget(org, name)

    def forget(self, org: OrgId, name: str) -> None:
        """The upstream was deleted: close its connections as soon as they are idle."""
        for key in [key for key in self._transports if key[:2] == (org, name)]:
            self._transports.pop(key).drain()
        self._newest.pop((org, name), None)
        self._gauges.pop((org, name), None)

    async def aclose(self) -> None:
        """Close all connections now; what is in flight is reset."""
        for transport in self._transports.values():
            transport.close()
        self._transports.clear()

    def _make(self, key: tuple[OrgId, str, int], upstream: Upstream) -> UpstreamTransport:
        org, name, version = key
        gauges = self._gauges.setdefault((org, name), Gauges())
        transport = UpstreamTransport(
            upstream,
            allowed=self._allowed,
            gauges=gauges,
            resolver=self._resolver,
            shares=self._shares,
            identity=self._identity,
        )
        newest = self._newest.get((org, name), 0)
        if version < newest:
            # A call pinned to the snapshot before: it is served, and the connections go with it.
            transport.drain()
        self._newest[org, name] = max(version, newest)
        self._transports[key] = transport
        for old in [k for k in self._transports if k[:2] == (org, name) and k[2] < self._newest[org, name]]:
            self._transports.pop(old).drain()
        return transport
