"""One HTTP/1.1 connection to an upstream: one request at a time, so giving it up means to cut the connection.

Same shape and same rule as `h2connection`: nothing awaits.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import cast

import h11
import httpx

from gateway.upstream.channel import STREAM_WINDOW
from gateway.upstream.deadlines import Deadlines
from gateway.upstream.engine import HEADER_LIST_LIMIT
from gateway.upstream.errors import RefusedError, lost
from gateway.upstream.fields import Head
from gateway.upstream.gauges import Gauges
from gateway.upstream.stream import TIME_LEFT, Outgoing, Stream, left_ms, sweep

REUSE_WITHIN_S = 4.0
"""Idle connections are not used after this: common servers close theirs after 5 s, and a request that meets
the closing cannot be sent again (RFC 9110 section 9.2.2: a completion is not idempotent)."""


class H1Connection(asyncio.Protocol):
    """See `h2connection.H2Connection` for the meaning of the members they share."""

    protocol = "HTTP/1.1"
    multiplexed = False
    limit = 1
    resets = 0
    """None: giving up a request ends its connection."""

    def __init__(self, authority: bytes, gauges: Gauges, changed: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._authority = authority
        self._gauges = gauges
        self._changed = changed
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADER_LIST_LIMIT)
        self._stream: Stream | None = None
        self._reading = True
        self._deadlines = Deadlines(self._loop, self._look)
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.reserved = 0
        self.started = 0
        self.closed = False
        self.draining = False
        self.made_at = self.idle_since = self._loop.time()

    @property
    def usable(self) -> bool:
        stale = self._stream is None and not self.reserved and self._loop.time() - self.idle_since > REUSE_WITHIN_S
        return not (self.closed or self.draining or stale)

    @property
    def open(self) -> int:
        return (self._stream is not None) + self.reserved

    def start(self, outgoing: Outgoing) -> Stream:
        """Write the whole request. Raises `RefusedError` when the connection has ended meanwhile."""
        if self.closed or self.draining or self._stream is not None:
            raise RefusedError("the connection ended before the request was sent")
        now = self._loop.time()
        headers = [(b"host", self._authority), *outgoing.headers, *outgoing.extra]
        if outgoing.body:
            headers.append((b"content-length", b"%d" % len(outgoing.body)))
        if outgoing.ends != math.inf:
            headers.append((TIME_LEFT, b"%d" % left_ms(outgoing.ends, now)))
        try:
            parts = [self._h11.send(h11.Request(method=outgoing.method, target=outgoing.path, headers=headers))]
            if outgoing.body:
                parts.append(self._h11.send(h11.Data(data=outgoing.body)))
            parts.append(self._h11.send(h11.EndOfMessage()))
        except h11.LocalProtocolError as error:
            self.close()
            raise httpx.LocalProtocolError(str(error)) from None
        self.started += 1
        stream = self._stream = Stream(self._loop, self, self.started, outgoing)
        self._gauges.streams += 1
        self._transport.write(b"".join(part for part in parts if part))
        self._deadlines.by(outgoing.first_due)
        return stream

    def abandon(self, stream: Stream, error: Exception) -> None:
        """Cut the connection, now; unsent bytes are dropped with it."""
        if stream is self._stream:
            self._gauges.resets_sent += 1
            self._lose(error)
            self._transport.abort()

    def consumed(self, stream: Stream, credit: int) -> None:
        if not self._reading and not self.closed and stream.unread < STREAM_WINDOW // 2:
            self._reading = True
            self._transport.resume_reading()

    def drain(self) -> None:
        self.draining = True
        if self._stream is None:
            self.close()

    def close(self) -> None:
        if not self.closed:
            self._lose(httpx.RemoteProtocolError("the gateway closed the connection"))
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._gauges.connections += 1
        self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gauges.connections -= 1
        if self._stream is not None and exc is None:
            self._receive(b"")  # an answer without a length ends with its connection
        self._lose(lost(exc))

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        if self._stream is None:
            # Bytes that nobody asked for would be read as the answer to the next request (response splitting).
            self.close()
            return
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        try:
            self._h11.receive_data(data)
            while self._stream is not None:
                event = self._h11.next_event()
                if isinstance(event, h11.Response):
                    self._stream.head_received(Head(event.status_code, list(event.headers)))
                    self._deadlines.by(self._loop.time() + self._stream.idle_s)
                elif isinstance(event, h11.Data):
                    self._stream.data_received(bytes(event.data), len(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self._finish()
                elif not isinstance(event, h11.InformationalResponse):
                    break  # NEED_DATA, PAUSED, ConnectionClosed
        except h11.RemoteProtocolError as error:
            self._lose(httpx.RemoteProtocolError(f"the upstream broke HTTP/1.1 ({error})"))
            self._transport.abort()
            return
        if self._stream is not None and self._stream.unread > STREAM_WINDOW and self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _finish(self) -> None:
        stream, self._stream = self._stream, None
        self._gauges.streams -= 1
        self.idle_since = self._loop.time()
        reusable = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        if stream is not None:
            stream.finish()
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        if reusable and not self.draining and not self._h11.trailing_data[0]:
            self._h11.start_next_cycle()
            self._changed()
        else:
            self.close()

    def _lose(self, error: Exception) -> None:
        if self.closed:
            return
        self.closed = True
        self._deadlines.stop()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._gauges.streams -= 1
            stream.finish(error)
        self._changed()

    def _look(self, now: float) -> float:
        expired, again = sweep([] if self._stream is None else [self._stream], now)
        self._gauges.timeouts += expired
        return again
