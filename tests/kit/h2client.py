"""A raw HTTP/2 client on hyper-h2: it can do what well-behaved clients never do, and counts everything.

Independent of the stack under test. Nothing is retried, nothing is hidden, and waiting is for events:

    async with await H2Client.connect("127.0.0.1", port, pki.client_context()) as client:
        stream = client.request("POST", "/v1/completions", headers, body)
        head = await stream.head()
        stream.reset()
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hyperframe.frame import Frame, GoAwayFrame, RstStreamFrame

from tests.kit.signal import Signal

CANCEL = int(h2.errors.ErrorCodes.CANCEL)


class H2Stream:
    """What one stream has received. `reset_code`: the peer's RST_STREAM; `lost`: the connection ended first."""

    def __init__(self, client: H2Client, stream_id: int) -> None:
        self.client = client
        self.id = stream_id
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.ended = False
        self.reset_code: int | None = None
        self.reset_sent = False
        self.lost = False
        self.unacknowledged = 0

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def over(self) -> bool:
        return self.ended or self.lost or self.reset_code is not None

    def json(self) -> Any:
        return json.loads(self.body)

    async def head(self) -> int:
        """Wait for the response's status. Raises `AssertionError` when the stream is over without one."""
        await self.client.signal.until(lambda: self.status or self.over, f"the head of stream {self.id}")
        assert self.status, f"stream {self.id}: no head, reset={self.reset_code} lost={self.lost}"
        return self.status

    async def received(self, size: int) -> bytes:
        """Wait for at least `size` bytes of body."""
        condition = lambda: len(self.body) >= size or self.over  # noqa: E731 - a name for both uses
        await self.client.signal.until(condition, f"{size} bytes on stream {self.id}")
        assert len(self.body) >= size, f"stream {self.id}: {len(self.body)} bytes, reset={self.reset_code}"
        return self.body

    async def complete(self) -> H2Stream:
        """Wait for END_STREAM. Raises `AssertionError` when it is reset or lost instead."""
        await self.finished()
        assert self.ended, f"stream {self.id}: reset={self.reset_code} lost={self.lost}"
        return self

    async def finished(self) -> H2Stream:
        """Wait until the stream is over, in whichever way."""
        await self.client.signal.until(lambda: self.over, f"the end of stream {self.id}")
        return self

    def send(self, data: bytes, *, end: bool = False) -> None:
        """DATA at once; hyper-h2 raises `FlowControlError` when the window is too small."""
        self.client.h2.send_data(self.id, data, end_stream=end)
        self.client.flush()

    def reset(self, code: int = CANCEL) -> None:
        self.reset_sent = True
        self.client.h2.reset_stream(self.id, code)
        self.client.flush()


class _Draining(h2.connection.H2Connection):
    """hyper-h2, except that streams in flight may finish after GOAWAY (RFC 9113 section 6.8)."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        event = h2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]


class H2Client(asyncio.Protocol):
    """One connection. `reading` false: no WINDOW_UPDATE is sent, so the peer's windows close."""

    def __init__(self, window: int) -> None:
        self.signal = Signal()
        self.streams: dict[int, H2Stream] = {}
        self.reading = True
        self.closed = False
        self.goaway_code: int | None = None
        self.goaway_last_stream_id: int | None = None
        self.faults: list[str] = []
        self.pings_acknowledged = 0
        self.settings_received = False
        self.authority = ""
        self.scheme = "https"
        self.h2 = _Draining(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        codes = h2.settings.SettingCodes
        self.h2.local_settings = h2.settings.Settings(
            client=True, initial_values={codes.ENABLE_PUSH: 0, codes.INITIAL_WINDOW_SIZE: window}
        )

    @classmethod
    async def connect(
        cls, host: str, port: int, context: ssl.SSLContext | None = None, *, window: int = 65_535
    ) -> Self:
        """Connect (TLS when there is a `context`, which must offer h2) and wait for the peer's SETTINGS."""
        loop = asyncio.get_running_loop()
        name = host if context else None
        _, client = await loop.create_connection(
            lambda: cls(window), host, port, ssl=context, server_hostname=name
        )
        client.authority = f"{host}:{port}"
        client.scheme = "https" if context else "http"
        await client.signal.until(lambda: client.settings_received or client.closed, "the peer's SETTINGS")
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.transport.abort()
        await self.disconnected()

    def open(
        self, method: str, path: str, headers: Iterable[tuple[str, str]] = (), *, end: bool = False
    ) -> H2Stream:
        """HEADERS alone, written to the buffer and sent."""
        stream = self._headers(method, path, headers, end=end)
        self.flush()
        return stream

    def request(
        self, method: str, path: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> H2Stream:
        """HEADERS and DATA in one write. The body must fit the windows: use `open` and `send` beyond them."""
        stream = self._headers(method, path, headers, end=not body)
        for offset in range(0, len(body), self.h2.max_outbound_frame_size):
            part = body[offset : offset + self.h2.max_outbound_frame_size]
            self.h2.send_data(stream.id, part, end_stream=offset + len(part) == len(body))
        self.flush()
        return stream

    def request_json(
        self, path: str, value: object, headers: Iterable[tuple[str, str]] = (), method: str = "POST"
    ) -> H2Stream:
        return self.request(
            method, path, [("content-type", "application/json"), *headers], json.dumps(value).encode()
        )

    def request_and_reset(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        code: int = CANCEL,
    ) -> H2Stream:
        """HEADERS (and DATA) and RST_STREAM in one packet."""
        stream = self._headers(method, path, headers, end=not body)
        if body:
            self.h2.send_data(stream.id, body, end_stream=True)
        stream.reset(code)
        return stream

    def reset_again(self, stream_id: int, code: int = CANCEL) -> None:
        """A RST_STREAM past hyper-h2's rules, e.g. on a stream that is over."""
        self.transport.write(RstStreamFrame(stream_id, error_code=code).serialize())

    def ping(self) -> None:
        self.h2.ping(b"orgate!!")
        self.flush()

    def stop_reading(self) -> None:
        """Give no more flow-control credit. What arrives is still recorded."""
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        for stream in self.streams.values():
            self._acknowledge(stream)
        self.flush()

    def fin(self) -> None:
        """Close our side in order (TLS: close_notify, then FIN)."""
        self.transport.close()

    def rst(self) -> None:
        """Cut the TCP connection with RST: SO_LINGER 0, then close."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def disconnected(self) -> None:
        await self.signal.until(lambda: self.closed, "the connection to end")

    async def went_away(self) -> int:
        """Wait for GOAWAY; returns its last stream id."""
        await self.signal.until(lambda: self.goaway_last_stream_id is not None, "GOAWAY")
        assert self.goaway_last_stream_id is not None
        return self.goaway_last_stream_id

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and not self.closed:
            self.transport.write(data)

    def _headers(self, method: str, path: str, headers: Iterable[tuple[str, str]], *, end: bool) -> H2Stream:
        stream = H2Stream(self, self.h2.get_next_available_stream_id())
        pseudo = [(":method", method), (":scheme", self.scheme), (":authority", self.authority), (":path", path)]
        self.h2.send_headers(stream.id, [*pseudo, *headers], end_stream=end)
        self.streams[stream.id] = stream
        return stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.h2.initiate_connection()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        for stream in self.streams.values():
            stream.lost = not stream.over
        self.signal.notify()

    def data_received(self, data: bytes) -> None:
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self.faults.append(repr(error))
            self.transport.abort()
            return
        for event in events:
            self._on(event)
        self.flush()
        self.signal.notify()

    def _on(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                stream = self.streams[event.stream_id]
                stream.headers = dict(cast("list[tuple[str, str]]", event.headers))
                stream.status = int(stream.headers.pop(":status"))
            case h2.events.DataReceived():
                stream = self.streams[event.stream_id]
                if event.data:
                    stream.chunks.append(event.data)
                stream.unacknowledged += event.flow_controlled_length
                if self.reading:
                    self._acknowledge(stream)
            case h2.events.StreamEnded():
                self.streams[event.stream_id].ended = True
            case h2.events.StreamReset():
                self.streams[event.stream_id].reset_code = int(event.error_code or 0)
            case h2.events.ConnectionTerminated():
                self.goaway_code = int(event.error_code or 0)
                self.goaway_last_stream_id = event.last_stream_id
            case h2.events.PingAckReceived():
                self.pings_acknowledged += 1
            case h2.events.RemoteSettingsChanged():
                self.settings_received = True
            case _:
                pass

    def _acknowledge(self, stream: H2Stream) -> None:
        if stream.unacknowledged:
            self.h2.acknowledge_received_data(stream.unacknowledged, stream.id)
            stream.unacknowledged = 0
