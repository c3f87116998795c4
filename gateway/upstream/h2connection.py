"""One HTTP/2 connection to an upstream: `engine` on a socket.

The rule of this file: **no `await` between a change of state and the queueing of the bytes that tell of it**.
There is no `await` in it at all. What is not written at once is written at the end of the same turn of the event
loop, and is the connection's from the moment it is said: a task that is cancelled in between takes no frame along,
none is lost, none is sent twice, and the count of open streams is always the peer's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

import httpx

from gateway.upstream import fields
from gateway.upstream.channel import STREAM_WINDOW, Channel
from gateway.upstream.deadlines import Deadlines
from gateway.upstream.engine import Engine
from gateway.upstream.errors import RefusedError, lost
from gateway.upstream.fields import Head, Header
from gateway.upstream.frames import Code
from gateway.upstream.gauges import Gauges
from gateway.upstream.keepalive import Keepalive
from gateway.upstream.stream import TIME_LEFT, Outgoing, Stream, left_ms, sweep

MAX_STREAMS = 1_000
"""Streams on one connection at most, for peers that set no limit."""

BACKLOG_LIMIT = 4 * 1024 * 1024
"""Bytes said to a peer while its socket takes none: heads, resets and answers to its own frames, for bodies wait.
Beyond it the peer does not read, and whatever it keeps sending it gets no more of our memory."""
LINGER_S = 10.0
"""How long a connection that was closed may take to write what is queued. Closing alone sets no bound in clear
text: a peer that does not read would keep the socket and what is queued for ever."""

_CONTENT_LENGTH = fields.prefix_of(b"content-length")
_TIME_LEFT = fields.prefix_of(TIME_LEFT)


class H2Connection(asyncio.Protocol):
    """`changed` is called when a slot came free, the peer's limit moved, or the connection cannot be used any
    more. `ready` is done once the peer's SETTINGS are here: until then its limit is unknown."""

    protocol = "HTTP/2"
    multiplexed = True

    def __init__(self, scheme: bytes, authority: bytes, gauges: Gauges, changed: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._pseudo: list[Header] = [(b":scheme", scheme), (b":authority", authority)]
        self._gauges = gauges
        self._changed = changed
        self._engine = Engine(self._loop.time())
        self._streams = self._engine.channels
        self._paused = False
        self._backlog = 0  # queued since the socket was full
        self._linger: asyncio.TimerHandle | None = None
        self._turn_begun = False
        self._moved = False
        self._keepalive = Keepalive(self._loop, self)
        self._deadlines = Deadlines(self._loop, self._look)
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.peer_limit = 0
        self.reserved = 0
        self.started = 0
        self.closed = False
        self.draining = False
        self.made_at = self.idle_since = self._loop.time()

    @property
    def usable(self) -> bool:
        return not (self.closed or self.draining)

    @property
    def open(self) -> int:
        return len(self._streams) + self.reserved

    @property
    def limit(self) -> int:
        return self.peer_limit

    @property
    def resets(self) -> int:
        return self._engine.resets

    # The caller's side.

    def start(self, outgoing: Outgoing) -> Stream:
        """Open a stream and queue its HEADERS, and as much of the body as windows allow. The rest follows by
        itself as they open. Raises `RefusedError` when the connection has ended meanwhile."""
        if self.closed or self.draining:
            raise RefusedError("the connection ended before the request was sent")
        now = self._loop.time()
        block = outgoing.block or fields.encode(
            [(b":method", outgoing.method), (b":path", outgoing.path), *self._pseudo, *outgoing.headers]
        )
        if outgoing.extra:
            block += fields.encode(outgoing.extra)
        if outgoing.body:
            block += fields.encode_number(_CONTENT_LENGTH, len(outgoing.body))
        if outgoing.ends != math.inf:
            block += fields.encode_number(_TIME_LEFT, left_ms(outgoing.ends, now))
        channel = self._engine.start(block, outgoing.body, outgoing.method == b"HEAD", held=self._paused)
        stream = channel.owner = Stream(self._loop, self, channel.id, outgoing)
        stream.channel = channel
        self.started += 1
        self._gauges.streams += 1
        if self._engine.uploads:
            self._pump()
        self._flush_in_turn()
        if self._engine.exhausted:
            self.draining = True
        self._deadlines.by(outgoing.first_due)
        self._keepalive.begin()
        return stream

    def abandon(self, stream: Stream, error: Exception) -> None:
        """RST_STREAM(CANCEL), now. Unread data costs the connection nothing: its credit went back on arrival."""
        if stream.id in self._streams:
            self._gauges.resets_sent += 1
            self._engine.reset(stream.channel, Code.CANCEL)
            self._flush()
            self._over(stream, error)
            self._changed()

    def consumed(self, stream: Stream, credit: int) -> None:
        stream.credit += credit
        if stream.credit >= STREAM_WINDOW // 2 and not self.closed:
            self._engine.give_credit(stream.channel, stream.credit)
            stream.credit = 0
            self._flush_in_turn()

    def drain(self) -> None:
        """Take no more requests; close when the last one has ended."""
        self.draining = True
        self._close_if_drained()

    def close(self) -> None:
        """Say goodbye and close. Streams still open end with `httpx.RemoteProtocolError`."""
        if not self.closed:
            error = httpx.RemoteProtocolError("the gateway closed the connection")
            for channel in list(self._streams.values()):
                self._gauges.resets_sent += 1
                self._engine.reset(channel, Code.CANCEL)
                self._over(channel.owner, error)
            self._engine.goaway(Code.NO_ERROR)
            self._flush()
            self._lose(error)
            self._end()

    # What keepalive asks.

    @property
    def busy(self) -> bool:
        return bool(self._streams) and not self.closed

    def ping(self) -> None:
        self._engine.ping(b"orgate\0\0")
        self._flush()

    def give_up(self) -> None:
        self._lose(httpx.RemoteProtocolError("the upstream does not answer PING"))
        self._transport.abort()

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._gauges.connections += 1
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._gauges.connections -= 1
        self._lose(lost(exc))

    def pause_writing(self) -> None:
        self._paused = True
        self._backlog = 0

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def data_received(self, data: bytes) -> None:
        if not self.closed:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        now = self._keepalive.heard = self._loop.time()
        for kind, channel, value in self._engine.receive(data, now):
            _HANDLERS[kind](self, channel, value)
        if self.closed:
            return
        if self._engine.uploads:
            self._pump()
        if self._engine.out:
            self._flush()
        if self.draining:
            self._close_if_drained()
        if self._moved:
            self._moved = False
            self._changed()

    def _on_head(self, channel: Channel, head: Head) -> None:
        stream: Stream = channel.owner
        stream.head_received(head)
        self._deadlines.by(self._keepalive.heard + stream.idle_s)

    def _on_data(self, channel: Channel, value: Any) -> None:
        channel.owner.data_received(*channel.take_data())

    def _on_end(self, channel: Channel, value: Any) -> None:
        self._over(channel.owner, None)

    def _on_reset(self, channel: Channel, code: int) -> None:
        stream: Stream = channel.owner
        if code == Code.REFUSED_STREAM and not stream.head.done():
            self._gauges.refused += 1
            self._over(stream, RefusedError("the upstream refused the stream"))
            return
        self._gauges.resets_received += 1
        self._over(stream, httpx.RemoteProtocolError(f"the upstream reset the stream (error code {code})"))

    def _on_broken(self, channel: Channel, what: str) -> None:
        self._gauges.resets_sent += 1
        self._over(channel.owner, httpx.RemoteProtocolError(f"the upstream broke HTTP/2 ({what})"))

    def _on_settings(self, channel: None, value: None) -> None:
        self.peer_limit = min(self._engine.peer_streams, MAX_STREAMS)
        self._moved = True
        if not self.ready.done():
            self.ready.set_result(None)

    def _on_goaway(self, channel: None, disowned: list[Channel]) -> None:
        """What the peer will not process may go elsewhere; the rest finishes here (RFC 9113 section 6.8)."""
        self.draining = self._moved = True
        for refused in disowned:
            self._gauges.refused += 1
            self._over(refused.owner, RefusedError("the upstream is going away"))

    def _on_fault(self, channel: None, what: str) -> None:
        self._flush()  # the GOAWAY that says which rule was broken
        self._lose(httpx.RemoteProtocolError(f"the upstream broke HTTP/2 ({what})"))
        self._end()

    def _over(self, stream: Stream, error: Exception | None) -> None:
        """The engine has let go of the stream."""
        self._moved = True
        self._gauges.streams -= 1
        stream.channel.owner = None  # else each stream would wait for the collector of cycles
        stream.finish(error)
        if not self._streams:
            self.idle_since = self._loop.time()
            self._close_if_drained()

    def _close_if_drained(self) -> None:
        if self.draining and not self._streams and not self.closed:
            self._flush()
            self._lose(httpx.RemoteProtocolError("the connection was drained"))
            self._end()

    def _lose(self, error: Exception) -> None:
        """The end of the connection, whatever its cause. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._keepalive.stop()
        self._deadlines.stop()
        for channel in list(self._streams.values()):
            self._engine.forget(channel)
            self._over(channel.owner, error)
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()
        self._changed()

    def _end(self) -> None:
        """Close when what is queued is written, or after `LINGER_S`."""
        self._transport.close()
        if self._linger is None:
            self._linger = self._loop.call_later(LINGER_S, self._transport.abort)

    def _look(self, now: float) -> float:
        expired, again = sweep([channel.owner for channel in self._streams.values()], now)
        self._gauges.timeouts += expired
        return again

    def _flush_in_turn(self) -> None:
        """What is said first in a turn of the event loop is written at once, all the rest of it at its end: an
        idle gateway adds no wait, a busy one joins what it writes."""
        if not self._turn_begun:
            self._turn_begun = True
            self._loop.call_soon(self._end_turn)
            self._flush()

    def _end_turn(self) -> None:
        self._turn_begun = False
        self._flush()

    def _flush(self) -> None:
        if not self.closed:
            data = self._engine.take()
            if data:
                if self._paused:
                    self._backlog += len(data)
                    if self._backlog > BACKLOG_LIMIT:
                        self._lose(httpx.RemoteProtocolError("the upstream does not read what it is sent"))
                        self._transport.abort()
                        return
                self._transport.write(data)

    def _pump(self) -> None:
        """Send what uploads the windows and the socket take, a frame of each in turn."""
        while self._engine.uploads and not self._paused and not self.closed and self._engine.pump():
            self._flush()


_HANDLERS: list[Callable[[H2Connection, Any, Any], None]] = [
    H2Connection._on_head,
    H2Connection._on_data,
    H2Connection._on_end,
    H2Connection._on_reset,
    H2Connection._on_broken,
    H2Connection._on_settings,
    H2Connection._on_goaway,
    H2Connection._on_fault,
]
"""By `Kind`."""
