"""One HTTP/2 connection of the demo model (RFC 9113), on jh2's state machine.

No await stands between a change of jh2's state and the write of the bytes it produced, so a cancelled task never
leaves half a frame behind.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import jh2.config
import jh2.connection
import jh2.errors
import jh2.events
import jh2.exceptions
import jh2.settings

from gateway.demo_model.ledger import Record
from gateway.demo_model.routes import Request, Routes

MAX_STREAMS: Final = 256
MAX_HEADER_BYTES: Final = 32 * 1024
RECEIVE_WINDOW: Final = 1 << 20
_Setting = jh2.settings.SettingCodes


class _Connection(jh2.connection.H2Connection):  # type: ignore[misc]  # jh2 is untyped
    """Lets streams in flight finish after the client's GOAWAY (RFC 9113 section 6.8); jh2 would end them."""

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        event = jh2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]


class _Stream:
    """A stream, and the `Reply` its answer goes to."""

    __slots__ = ("connection", "number", "record", "request", "sent", "task")

    def __init__(self, connection: Http2, number: int, request: Request, record: Record | None) -> None:
        self.connection = connection
        self.number = number
        self.request = request
        self.record = record
        self.sent = False
        self.task: asyncio.Task[None] | None = None

    def head(self, status: int, content_type: bytes, length: int | None) -> None:
        headers = [(b":status", b"%d" % status), (b"content-type", content_type)]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        self.connection.send_head(self, headers)

    async def body(self, data: bytes, *, last: bool = False) -> None:
        await self.connection.send_body(self, data, last=last)


class Http2(asyncio.Protocol):
    """`name` is unique among the server's connections: it begins the names of streams in the record."""

    def __init__(self, routes: Routes, name: str) -> None:
        self._routes = routes
        self._name = name
        self._streams: dict[int, _Stream] = {}
        self._transport: asyncio.Transport
        self._paused = False
        self._draining = False
        self._room = asyncio.Event()
        self._h2 = _Connection(jh2.config.H2Configuration(client_side=False, header_encoding=None))
        self._h2.local_settings = jh2.settings.Settings(
            client=False,
            initial_values={
                _Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                _Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
                _Setting.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
            },
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream server only makes asyncio.Transport
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(RECEIVE_WINDOW)
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except jh2.exceptions.ProtocolError:
            # jh2 has written the GOAWAY that says why; the streams die with the connection.
            self._flush()
            self._transport.close()
            return
        for event in events:
            self._on(event)
        self._flush()

    def _on(self, event: Any) -> None:
        match event:
            case jh2.events.RequestReceived():
                self._open(event)
            case jh2.events.DataReceived():
                if stream := self._streams.get(event.stream_id):
                    stream.request.add(event.data)
                    if stream.request.far_too_large:
                        self._cut_off(stream)
                if event.flow_controlled_length:
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case jh2.events.StreamEnded():
                if stream := self._streams.get(event.stream_id):
                    self._start(stream)
            case jh2.events.StreamReset():
                if stream := self._streams.pop(event.stream_id, None):
                    _abandon(stream, "rst_stream")
                    self._close_if_done()
            case jh2.events.WindowUpdated() | jh2.events.RemoteSettingsChanged():
                self._wake()
            case jh2.events.ConnectionTerminated():
                self._draining = True
                self._close_if_done()

    def _open(self, event: Any) -> None:
        headers = dict(event.headers)
        request = Request(
            method=headers[b":method"].decode("latin-1"),
            target=headers.get(b":path", b"").decode("latin-1"),
            headers=headers,
            max_body_bytes=self._routes.max_body_bytes,
        )
        record = self._routes.record(request, f"{self._name}/{event.stream_id}")
        self._streams[event.stream_id] = _Stream(self, event.stream_id, request, record)

    def _cut_off(self, stream: _Stream) -> None:
        """Resets an upload that goes on far beyond the limit; the record closes, as the model is done with it."""
        del self._streams[stream.number]
        self._h2.reset_stream(stream.number, jh2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        if stream.record:
            stream.record.end()

    def _start(self, stream: _Stream) -> None:
        stream.task = asyncio.ensure_future(self._routes.respond(stream.request, stream, stream.record))
        stream.task.add_done_callback(lambda task: self._answered(stream, task))

    def _answered(self, stream: _Stream, task: asyncio.Task[None]) -> None:
        if self._streams.pop(stream.number, None) is None:
            return
        failure = None if task.cancelled() else task.exception()
        if not stream.sent:
            self._h2.reset_stream(stream.number, jh2.errors.ErrorCodes.INTERNAL_ERROR)
            self._flush()
            if stream.record:
                stream.record.end()
        self._close_if_done()
        if failure is not None:
            raise failure

    def send_head(self, stream: _Stream, headers: list[tuple[bytes, bytes]]) -> None:
        self._h2.send_headers(stream.number, headers)
        self._flush()

    async def send_body(self, stream: _Stream, data: bytes, *, last: bool) -> None:
        offset = 0
        while offset < len(data) or (last and not stream.sent):
            left = len(data) - offset
            size = min(left, self._h2.local_flow_control_window(stream.number), self._h2.max_outbound_frame_size)
            if self._paused or (left and size <= 0):
                await self._wait_for_room()
                continue
            ends = last and size == left
            self._h2.send_data(stream.number, data[offset : offset + size], end_stream=ends)
            self._flush()
            offset += size
            stream.sent = ends

    async def _wait_for_room(self) -> None:
        await self._room.wait()

    def _wake(self) -> None:
        self._room.set()
        self._room = asyncio.Event()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _close_if_done(self) -> None:
        if self._draining and not self._streams:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            _abandon(stream, "connection")

    def stop(self) -> None:
        """GOAWAY and close: answers under way are broken off."""
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            if stream.task:
                stream.task.cancel()
            if stream.record:
                stream.record.end()
        self._h2.close_connection()
        self._flush()
        self._transport.close()


def _abandon(stream: _Stream, how: Any) -> None:
    if stream.task:
        stream.task.cancel()
    if stream.record:
        stream.record.reset(how)
