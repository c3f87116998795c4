"""One HTTP/2 connection to an upstream.

The rule of this file: **no `await` between a change of state and `transport.write()`**. There is no `await` in
it at all. A task may be cancelled at every one of its own awaits, and still no frame is lost, none is sent
twice, and the count of open streams is always the peer's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import httpx
import jh2.errors
import jh2.events
import jh2.exceptions

from gateway.upstream.errors import RefusedError
from gateway.upstream.frames import FrameTooLongError, join
from gateway.upstream.gauges import Gauges
from gateway.upstream.http2 import CONNECTION_WINDOW, STREAM_WINDOW, H2Machine
from gateway.upstream.keepalive import Keepalive
from gateway.upstream.stream import Head, Header, Outgoing, Stream

MAX_STREAMS = 1_000
"""Streams on one connection at most, for peers that set no limit."""
LAST_STREAM_ID = 2**31 - 1
FRAME_SIZE = 65_536

_CANCEL = int(jh2.errors.ErrorCodes.CANCEL)
_NO_ERROR = int(jh2.errors.ErrorCodes.NO_ERROR)
_REFUSED_STREAM = int(jh2.errors.ErrorCodes.REFUSED_STREAM)


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
        self._h2: Any = H2Machine()
        self._streams: dict[int, Stream] = {}
        self._uploads: dict[int, Stream] = {}
        self._partial = b""  # the beginning of a frame
        self._received = 0
        self._paused = False
        self._keepalive = Keepalive(self._loop, self)
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.peer_limit = 0
        self.reserved = 0
        self.started = 0
        self.closed = False
        self.draining = False
        self.idle_since = self._loop.time()

    @property
    def usable(self) -> bool:
        return not (self.closed or self.draining)

    @property
    def open(self) -> int:
        return len(self._streams) + self.reserved

    @property
    def limit(self) -> int:
        return self.peer_limit

    # The caller's side.

    def start(self, outgoing: Outgoing) -> Stream:
        """Open a stream and write its HEADERS, and as much of the body as windows allow. The rest follows by
        itself as they open. Raises `RefusedError` when the connection has ended meanwhile."""
        if not self.usable:
            raise RefusedError("the connection ended before the request was sent")
        stream_id: int = self._h2.get_next_available_stream_id()
        headers = [(b":method", outgoing.method), (b":path", outgoing.path), *self._pseudo, *outgoing.headers]
        self._h2.send_headers(stream_id, headers, end_stream=not outgoing.body)
        stream = self._streams[stream_id] = Stream(self._loop, self, stream_id, outgoing)
        self.started += 1
        self._gauges.streams += 1
        if outgoing.body:
            self._uploads[stream_id] = stream
            self._pump()
        self._flush()
        if stream_id >= LAST_STREAM_ID - 2:
            self.draining = True
        self._keepalive.begin()
        return stream

    def abandon(self, stream: Stream, error: Exception) -> None:
        """RST_STREAM(CANCEL), now. Unread data costs the connection nothing: its credit went back on arrival."""
        if stream.id in self._streams:
            if not self.closed:
                self._gauges.resets_sent += 1
                self._reset(stream.id, _CANCEL)
                self._flush()
            self._end(stream, error)
            self._changed()

    def consumed(self, stream: Stream, credit: int) -> None:
        stream.credit += credit
        if stream.credit >= STREAM_WINDOW // 2 and stream.id in self._streams and not self.closed:
            self._h2.increment_flow_control_window(stream.credit, stream.id)
            stream.credit = 0
            self._flush()

    def timed_out(self) -> None:
        self._gauges.timeouts += 1

    def drain(self) -> None:
        """Take no more requests; close when the last one has ended."""
        self.draining = True
        self._close_if_drained()

    def close(self) -> None:
        """Say goodbye and close. Streams still open end with `httpx.RemoteProtocolError`."""
        if not self.closed:
            for stream_id in self._streams:
                self._gauges.resets_sent += 1
                self._reset(stream_id, _CANCEL)
            self._h2.close_connection()
            self._flush()
            self._lose(httpx.RemoteProtocolError("the gateway closed the connection"))
            self._transport.close()

    # What keepalive asks.

    @property
    def busy(self) -> bool:
        return bool(self._streams) and not self.closed

    def ping(self) -> None:
        self._h2.ping(b"orgate\0\0")
        self._flush()

    def give_up(self) -> None:
        self._lose(httpx.RemoteProtocolError("the upstream does not answer PING"))
        self._transport.abort()

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._gauges.connections += 1
        self._h2.start()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gauges.connections -= 1
        why = f" ({exc})" if exc else ""
        self._lose(httpx.RemoteProtocolError(f"the upstream closed the connection{why}"))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        self._keepalive.heard = self._loop.time()
        try:
            whole, self._partial = join(self._partial + data if self._partial else data)
            events = self._h2.receive_data(whole) if whole else ()
        except (jh2.exceptions.ProtocolError, FrameTooLongError) as error:
            self._flush()  # the GOAWAY that says which rule was broken
            self._lose(httpx.RemoteProtocolError(f"the upstream broke HTTP/2 ({type(error).__name__})"))
            self._transport.close()
            return
        before = (len(self._streams), self.peer_limit, self.draining)
        for event in events:
            handle = _HANDLERS.get(type(event))
            if handle is not None:
                handle(self, event)
        if self._uploads:
            self._pump()
        self._flush()
        self._close_if_drained()
        if before != (len(self._streams), self.peer_limit, self.draining):
            self._changed()

    def _on_settings(self, event: Any) -> None:
        self.peer_limit = min(self._h2.remote_settings.max_concurrent_streams, MAX_STREAMS)
        if not self.ready.done():
            self.ready.set_result(None)

    def _on_head(self, event: Any) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.head_received(Head(int(event.headers[0][1]), event.headers[1:]))

    def _on_data(self, event: Any) -> None:
        size: int = event.flow_controlled_length
        self._received += size
        if self._received >= CONNECTION_WINDOW // 2:
            self._h2.increment_flow_control_window(self._received)
            self._received = 0
        stream = self._streams.get(event.stream_id)
        if stream is not None and size:
            stream.data_received(event.data, size)

    def _on_end(self, event: Any) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        if stream.id in self._uploads:
            # Answered before the whole request was sent: it need not be (RFC 9113 section 8.1), but the stream
            # must end on this side too, or the peer counts it as open for ever.
            self._reset(stream.id, _NO_ERROR)
        self._end(stream, None)

    def _on_reset(self, event: Any) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        code = int(event.error_code)
        if code == _REFUSED_STREAM and not stream.head.done():
            self._gauges.refused += 1
            self._end(stream, RefusedError("the upstream refused the stream"))
            return
        self._gauges.resets_received += 1
        self._end(stream, httpx.RemoteProtocolError(f"the upstream reset the stream (error code {code})"))

    def _on_goaway(self, event: Any) -> None:
        """What the peer will not process may go elsewhere; the rest finishes here (RFC 9113 section 6.8)."""
        self.draining = True
        for stream in [s for s in self._streams.values() if s.id > event.last_stream_id]:
            self._gauges.refused += 1
            self._end(stream, RefusedError("the upstream is going away"))

    def _reset(self, stream_id: int, code: int) -> None:
        try:
            self._h2.reset_stream(stream_id, code)
        except jh2.exceptions.StreamClosedError:
            return  # the peer's own reset is in the packet that is being handled

    def _end(self, stream: Stream, error: Exception | None) -> None:
        del self._streams[stream.id]
        self._uploads.pop(stream.id, None)
        self._gauges.streams -= 1
        stream.finish(error)
        if not self._streams:
            self.idle_since = self._loop.time()
            self._close_if_drained()

    def _close_if_drained(self) -> None:
        if self.draining and not self._streams and not self.closed:
            self._lose(httpx.RemoteProtocolError("the connection was drained"))
            self._transport.close()

    def _lose(self, error: Exception) -> None:
        """The end of the connection, whatever its cause. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._keepalive.stop()
        for stream in list(self._streams.values()):
            self._end(stream, error)
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()
        self._changed()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self.closed:
            self._transport.write(data)

    def _pump(self) -> None:
        """Send what uploads the windows and the socket take, a frame of each in turn."""
        progress = True
        while self._uploads and progress and not self._paused and not self.closed:
            progress = False
            for stream_id, stream in list(self._uploads.items()):
                window: int = self._h2.local_flow_control_window(stream_id)
                size = min(window, self._h2.max_outbound_frame_size, FRAME_SIZE, len(stream.upload))
                if size <= 0:
                    continue
                progress = True
                part, stream.upload = stream.upload[:size], stream.upload[size:]
                self._h2.send_data(stream_id, bytes(part), end_stream=not stream.upload)
                if not stream.upload:
                    del self._uploads[stream_id]
            self._flush()


_HANDLERS: dict[type, Callable[[H2Connection, Any], None]] = {
    jh2.events.DataReceived: H2Connection._on_data,
    jh2.events.ResponseReceived: H2Connection._on_head,
    jh2.events.StreamEnded: H2Connection._on_end,
    jh2.events.StreamReset: H2Connection._on_reset,
    jh2.events.RemoteSettingsChanged: H2Connection._on_settings,
    jh2.events.ConnectionTerminated: H2Connection._on_goaway,
}
