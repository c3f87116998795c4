"""The recording upstream's two wire protocols, and the sniffer that chooses between them."""

from __future__ import annotations

import asyncio
from typing import cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import h11
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame

from tests.kit.upstream import Headers, RecordingUpstream, Request

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Sniffer(asyncio.Protocol):
    """Hands the connection to HTTP/2 or HTTP/1.1: by ALPN over TLS, by the first bytes in clear text."""

    def __init__(self, upstream: RecordingUpstream) -> None:
        self.upstream = upstream
        self.seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self._become(tls.selected_alpn_protocol() == "h2")

    def data_received(self, data: bytes) -> None:
        self.seen += data
        if self.seen.startswith(PREFACE):
            self._become(True)
        elif not PREFACE.startswith(self.seen[: len(PREFACE)]):
            self._become(False)

    def _become(self, http2: bool) -> None:
        protocol = Http2(self.upstream) if http2 else Http1(self.upstream)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if self.seen:
            protocol.data_received(self.seen)


class _CountingH2(h2.connection.H2Connection):
    """hyper-h2, counting what it swallows: DATA on a stream the caller has reset, and every RST_STREAM frame."""

    late_data = 0
    reset_frames = 0

    def _receive_rst_stream_frame(self, frame: RstStreamFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        self.reset_frames += 1
        return super()._receive_rst_stream_frame(frame)

    def _handle_data_on_closed_stream(
        self, events: list[h2.events.Event], exc: h2.exceptions.StreamClosedError, frame: DataFrame
    ) -> tuple[list[Frame], list[h2.events.Event]]:
        self.late_data += 1
        return super()._handle_data_on_closed_stream(events, exc, frame)


class Http2(asyncio.Protocol):
    """A strict HTTP/2 server connection: the caller's breaches end it and are noted in `upstream.faults`."""

    protocol = "h2"

    def __init__(self, upstream: RecordingUpstream) -> None:
        self.upstream = upstream
        self.number = 0
        self.closed = False
        self.pings = 0
        self.streams: dict[int, Request] = {}
        self._pending: dict[int, tuple[bytearray, bool]] = {}
        self._held: list[tuple[int, int]] = []
        self._whole: list[Request] = []
        self._resets = 0
        self._h2 = _CountingH2(h2.config.H2Configuration(client_side=False, header_encoding=None))
        codes = h2.settings.SettingCodes
        self._h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: upstream.max_concurrent_streams,
                codes.INITIAL_WINDOW_SIZE: upstream.initial_window_size,
                codes.MAX_HEADER_LIST_SIZE: 65_536,
            },
        )

    @property
    def open_streams(self) -> int:
        return len(self.streams)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.number = self.upstream.accept(self)
        self._h2.initiate_connection()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        for request in list(self.streams.values()):
            self.upstream.reset_seen(request, None)
        self.streams.clear()
        self.upstream.signal.notify()

    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self.upstream.faults.append(repr(error))
            self._flush()
            self.transport.close()
            return
        self.upstream.late_data += self._h2.late_data
        self.upstream.reset_frames += self._h2.reset_frames
        self._resets += self._h2.reset_frames
        if self.upstream.reset_limit is not None and self._resets > self.upstream.reset_limit:
            self.goaway(code=0xB)  # ENHANCE_YOUR_CALM
            self.transport.close()
            return
        self._h2.late_data = self._h2.reset_frames = 0
        for event in events:
            self._on(event)
        # Last of all: a request whose reset came in the same flight is not answered any more.
        whole, self._whole = self._whole, []
        for request in whole:
            if request.stream_id in self.streams:
                self.upstream.completed(request)
                self._settle(request)
        self._drain()
        self.upstream.signal.notify()

    def _on(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self.streams[event.stream_id] = self.upstream.take(self, event.stream_id, event.headers)
            case h2.events.DataReceived():
                if event.stream_id in self.streams:
                    self.streams[event.stream_id].body += event.data
                size = event.flow_controlled_length
                if self.upstream.hold_window:
                    self._held.append((size, event.stream_id))
                elif size:
                    self._h2.acknowledge_received_data(size, event.stream_id)
            case h2.events.StreamEnded():
                if request := self.streams.get(event.stream_id):
                    request.body_ended = True
                    self._whole.append(request)
            case h2.events.StreamReset():
                self._pending.pop(event.stream_id, None)
                if request := self.streams.pop(event.stream_id, None):
                    self.upstream.reset_seen(request, int(event.error_code or 0))
            case h2.events.PingReceived():
                self.pings += 1
            case _:
                pass

    def _settle(self, request: Request) -> None:
        if request.ended and request.body_ended and request.stream_id in self.streams:
            del self.streams[request.stream_id]
            self.upstream.ended += 1
            self.upstream.signal.notify()

    def _drain(self) -> None:
        """Send what the windows let pass."""
        for stream_id, (pending, end) in list(self._pending.items()):
            request = self.streams[stream_id]
            while pending:
                size = min(
                    self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size, len(pending)
                )
                if size <= 0:
                    break
                self._h2.send_data(stream_id, bytes(pending[:size]))
                del pending[:size]
            request.unsent = len(pending)
            if not pending:
                del self._pending[stream_id]
                if end:
                    self._h2.end_stream(stream_id)
                    request.ended = True
                    self._settle(request)
        self._flush()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self.closed:
            self.transport.write(data)

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def mute(self) -> None:
        self.transport.pause_reading()

    def write_raw(self, data: bytes) -> None:
        self.transport.write(data)

    def goaway(self, last_stream_id: int | None = None, code: int = 0) -> None:
        # Past hyper-h2, which would end the streams in flight too; RFC 9113 section 6.8 lets them finish.
        last = max((r.stream_id for r in self.upstream.requests if r.connection.number == self.number), default=0)
        if last_stream_id is not None:
            last = last_stream_id
            for stream_id in [number for number in self.streams if number > last]:
                refused = self.streams.pop(stream_id)
                refused.ended = refused.body_ended = True
        self.transport.write(GoAwayFrame(last_stream_id=last, error_code=code).serialize())

    def update_settings(self, **values: int) -> None:
        self._h2.update_settings({h2.settings.SettingCodes[name.upper()]: value for name, value in values.items()})
        self._flush()

    def release_window(self) -> None:
        # All of it, at once: hyper-h2's own bookkeeping keeps small credits back until more data has come.
        for size, stream_id in self._held:
            if size:
                self._h2.increment_flow_control_window(size)
                if stream_id in self.streams:
                    self._h2.increment_flow_control_window(size, stream_id)
        self._held.clear()
        self._flush()

    def write_response(self, request: Request, status: int, headers: Headers, *, end: bool) -> None:
        self._h2.send_headers(request.stream_id, [(":status", str(status)), *headers], end_stream=end)
        request.ended = end
        self._settle(request)
        self._flush()

    def write_data(self, request: Request, data: bytes, *, end: bool) -> None:
        pending, _ = self._pending.setdefault(request.stream_id, (bytearray(), False))
        pending += data
        self._pending[request.stream_id] = (pending, end)
        self._drain()

    def write_reset(self, request: Request, code: int) -> None:
        self._pending.pop(request.stream_id, None)
        self._h2.reset_stream(request.stream_id, code)
        self.streams.pop(request.stream_id, None)
        request.ended = request.body_ended = True
        self._flush()

    def write_late(self, request: Request, data: bytes) -> None:
        # Past hyper-h2, which writes to no stream that is over; but on the connection's credit, as it must be.
        self._h2.outbound_flow_control_window -= len(data)
        if self._h2.outbound_flow_control_window < 0:
            self.upstream.faults.append("no credit is left for late DATA")
            return
        self.transport.write(DataFrame(request.stream_id, data).serialize())

    def write_late_head(self, request: Request, status: int, headers: Headers) -> None:
        frame = HeadersFrame(request.stream_id, self._h2.encoder.encode([(":status", str(status)), *headers]))
        frame.flags.add("END_HEADERS")
        self.transport.write(frame.serialize())


class Http1(asyncio.Protocol):
    """An HTTP/1.1 server connection on h11. A connection lost before the answer's end counts as a reset."""

    protocol = "http/1.1"

    def __init__(self, upstream: RecordingUpstream) -> None:
        self.upstream = upstream
        self.number = 0
        self.closed = False
        self.pings = 0
        self.request: Request | None = None
        self._h11 = h11.Connection(h11.SERVER)
        self._count = 0

    @property
    def open_streams(self) -> int:
        return 1 if self.request else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.number = self.upstream.accept(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.request:
            self.upstream.reset_seen(self.request, None)
            self.request = None
        self.upstream.signal.notify()

    def data_received(self, data: bytes) -> None:
        self._h11.receive_data(data)
        self._pump()
        self.upstream.signal.notify()

    def _pump(self) -> None:
        try:
            while (event := self._h11.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                self._on(cast("h11.Event", event))
        except h11.RemoteProtocolError as error:
            self.upstream.faults.append(repr(error))
            self.transport.close()

    def _on(self, event: h11.Event) -> None:
        if isinstance(event, h11.Request):
            self._count += 1
            pseudo = [(b":method", event.method), (b":path", event.target)]
            self.request = self.upstream.take(self, self._count, [*pseudo, *event.headers])
        elif isinstance(event, h11.Data) and self.request:
            self.request.body += event.data
        elif isinstance(event, h11.EndOfMessage) and self.request:
            self.upstream.completed(self.request)
            self._settle(self.request)

    def _settle(self, request: Request) -> None:
        if request.ended and request.body_ended and self.request is request:
            self.request = None
            self.upstream.ended += 1
            if self._h11.our_state is h11.MUST_CLOSE:
                self.transport.close()
            elif self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
                self._h11.start_next_cycle()
                self._pump()
            self.upstream.signal.notify()

    def _write(self, event: h11.Event) -> None:
        if data := self._h11.send(event):
            self.transport.write(data)

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def mute(self) -> None:
        self.transport.pause_reading()

    def write_raw(self, data: bytes) -> None:
        self.transport.write(data)

    def goaway(self, last_stream_id: int | None = None, code: int = 0) -> None:
        raise AssertionError("HTTP/1.1 has no GOAWAY")

    def update_settings(self, **values: int) -> None:
        raise AssertionError("HTTP/1.1 has no SETTINGS")

    def release_window(self) -> None:
        """HTTP/1.1 has no window: TCP's own is all there is."""

    def write_response(self, request: Request, status: int, headers: Headers, *, end: bool) -> None:
        self._write(h11.Response(status_code=status, headers=list(headers)))
        if end:
            self.write_data(request, b"", end=True)

    def write_data(self, request: Request, data: bytes, *, end: bool) -> None:
        if data:
            self._write(h11.Data(data=data))
        if end:
            self._write(h11.EndOfMessage())
            request.ended = True
            self._settle(request)

    def write_reset(self, request: Request, code: int) -> None:
        request.ended = request.body_ended = True
        self.request = None
        self.transport.abort()

    def write_late(self, request: Request, data: bytes) -> None:
        raise AssertionError("HTTP/1.1 has no streams")

    def write_late_head(self, request: Request, status: int, headers: Headers) -> None:
        raise AssertionError("HTTP/1.1 has no streams")
