"""A recording upstream: a fake model server that keeps the rules of HTTP and does only what the test tells it.

It speaks HTTP/2 (TLS with ALPN, or clear text with prior knowledge) and HTTP/1.1, on hyper-h2 and h11: not on
the stack under test. It records connections, requests, bodies, resets with their times, and data that came
after a reset. Without a script every request waits at its gate: `request = await upstream.arrived(1)`, then
`request.respond()`, `request.send(b"...")`, `request.send_reset(...)`, `request.connection.goaway(...)`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from tests.kit.signal import PATIENCE_S, Signal

Headers = Iterable[tuple[str, str]]
Script = Callable[["Request"], Coroutine[Any, Any, None] | None]


@dataclass(frozen=True)
class Reset:
    """The caller gave up. `at`: the loop's clock, seconds; `code`: HTTP/2's, None when the connection was lost."""

    at: float
    code: int | None


class Connection(Protocol):
    """One accepted connection. `number` counts from 1 in order of acceptance."""

    number: int
    protocol: str
    closed: bool
    pings: int

    @property
    def open_streams(self) -> int: ...

    def close(self) -> None:
        """FIN, after what was written has gone out."""

    def abort(self) -> None:
        """Cut without warning."""

    def goaway(self, last_stream_id: int | None = None, code: int = 0) -> None:
        """Announce the end (HTTP/2 only). `last_stream_id` None: every stream so far will be finished; those above
        it have not been processed, and are forgotten here."""

    def update_settings(self, **values: int) -> None:
        """Send SETTINGS (HTTP/2 only): `max_concurrent_streams`, `initial_window_size`, ..."""

    def write_response(self, request: Request, status: int, headers: Headers, *, end: bool) -> None: ...

    def write_data(self, request: Request, data: bytes, *, end: bool) -> None: ...

    def write_reset(self, request: Request, code: int) -> None: ...

    def write_late(self, request: Request, data: bytes) -> None: ...

    def write_late_head(self, request: Request, status: int, headers: Headers) -> None: ...

    def mute(self) -> None:
        """Read nothing more and so answer nothing, like a peer whose machine is gone."""

    def write_raw(self, data: bytes) -> None:
        """Bytes past every rule."""

    def release_window(self) -> None: ...


@dataclass(eq=False)
class Request:
    """One request as it arrived, and the gate through which the test answers it.

    Answering a request that was reset is ignored and counted in `ignored`: a real server may not know yet.
    """

    upstream: RecordingUpstream
    connection: Connection
    number: int
    stream_id: int
    method: str
    path: str
    headers: dict[str, str]
    at: float
    body: bytearray = field(default_factory=bytearray)
    body_ended: bool = False
    responded: bool = False
    ended: bool = False
    was_reset: Reset | None = None
    ignored: int = 0
    unsent: int = 0
    """Bytes of the answer that wait for the caller to open its window."""

    @property
    def open(self) -> bool:
        return not self.was_reset and not (self.ended and self.body_ended)

    def json(self) -> Any:
        return json.loads(bytes(self.body))

    async def complete(self) -> Self:
        """Wait for the whole body."""
        await self.upstream.signal.until(lambda: self.body_ended, f"the body of request {self.number}")
        return self

    async def body_received(self, size: int) -> None:
        await self.upstream.signal.until(lambda: len(self.body) >= size, f"{size} bytes of request {self.number}")

    async def reset(self) -> Reset:
        """Wait until the caller reset the stream (HTTP/2) or cut the connection (HTTP/1.1)."""
        await self.upstream.signal.until(lambda: self.was_reset, f"the reset of request {self.number}")
        assert self.was_reset
        return self.was_reset

    async def flushed(self) -> None:
        """Wait until everything sent has passed the caller's flow-control window."""
        await self.upstream.signal.until(lambda: self.unsent == 0, f"the window of request {self.number}")

    def respond(self, status: int = 200, headers: Headers = (), *, end: bool = False) -> None:
        if self._gone():
            return
        self.responded = True
        self.connection.write_response(self, status, headers, end=end)

    def send(self, data: bytes, *, end: bool = False) -> None:
        if not self._gone():
            self.connection.write_data(self, data, end=end)

    def end(self) -> None:
        self.send(b"", end=True)

    def respond_json(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.respond(status, [("content-type", "application/json"), ("content-length", str(len(body)))])
        self.send(body, end=True)

    def send_reset(self, code: int) -> None:
        """RST_STREAM with `code`; over HTTP/1.1 the connection is cut."""
        if not self._gone():
            self.connection.write_reset(self, code)

    def refuse(self) -> None:
        """REFUSED_STREAM: not processed, safe to send again (RFC 9113 section 8.7)."""
        self.send_reset(0x7)

    def send_late(self, data: bytes) -> None:
        """A DATA frame although the caller has reset the stream: it was under way already."""
        self.connection.write_late(self, data)

    def respond_late(self, status: int = 200, headers: Headers = ()) -> None:
        """HEADERS although the caller has reset the stream. HPACK's table (RFC 7541) counts them all the same."""
        self.connection.write_late_head(self, status, headers)

    def _gone(self) -> bool:
        if self.was_reset or self.ended:
            self.ignored += 1
        return bool(self.was_reset or self.ended)


class RecordingUpstream:
    """See the module. An async context manager; `url` is what an upstream binding takes as `base_url`.

    `tls`: a server context (its ALPN decides between h2 and http/1.1), else clear text, where the HTTP/2 preface
    (prior knowledge) tells the two apart. `hold_window`: never give flow-control credit, so that uploads block
    until `release_window()`. `reset_limit`: a connection with more resets is ended, with all that is open on it.
    `script`: answers every request once its body is complete.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        max_concurrent_streams: int = 100,
        initial_window_size: int = 65_535,
        hold_window: bool = False,
        reset_limit: int | None = None,
        script: Script | None = None,
    ) -> None:
        self.tls = tls
        self.max_concurrent_streams = max_concurrent_streams
        self.initial_window_size = initial_window_size
        self.hold_window = hold_window
        self.reset_limit = reset_limit
        self.script = script
        self.signal = Signal()
        self.connections: list[Connection] = []
        self.requests: list[Request] = []
        self.port = 0
        self.resets = 0
        self.ended = 0
        self.late_data = 0
        self.reset_frames = 0
        """RST_STREAM frames, those on streams that were over included; `resets` counts streams."""
        self.faults: list[str] = []
        """Breaches of protocol by the caller. A test's last line is often `assert not upstream.faults`."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def opened(self) -> int:
        return len(self.requests)

    @property
    def open_streams(self) -> int:
        return sum(connection.open_streams for connection in self.connections)

    async def arrived(self, number: int) -> Request:
        """Wait for the head of request `number` (from 1)."""
        await self.signal.until(lambda: len(self.requests) >= number, f"request {number}")
        return self.requests[number - 1]

    async def connected(self, number: int) -> Connection:
        await self.signal.until(lambda: len(self.connections) >= number, f"connection {number}")
        return self.connections[number - 1]

    async def until(self, condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
        await self.signal.until(condition, what, patience_s)

    async def idle(self) -> None:
        """Wait until no stream is open."""
        await self.until(lambda: self.open_streams == 0, "all streams to close")

    def release_window(self) -> None:
        """Give back all credit held so far and hold no more."""
        self.hold_window = False
        for connection in self.connections:
            connection.release_window()

    async def __aenter__(self) -> Self:
        from tests.kit.upstream_wire import Sniffer

        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Sniffer(self), "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for connection in self.connections:
            connection.abort()
        await self.until(lambda: all(connection.closed for connection in self.connections), "connections to close")
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What the wire protocols call.

    def accept(self, connection: Connection) -> int:
        self.connections.append(connection)
        self.signal.notify()
        return len(self.connections)

    def take(self, connection: Connection, stream_id: int, headers: Iterable[tuple[bytes, bytes]]) -> Request:
        fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        request = Request(
            upstream=self,
            connection=connection,
            number=len(self.requests) + 1,
            stream_id=stream_id,
            method=fields.pop(":method"),
            path=fields.pop(":path"),
            headers=fields,
            at=asyncio.get_running_loop().time(),
        )
        self.requests.append(request)
        self.signal.notify()
        return request

    def completed(self, request: Request) -> None:
        request.body_ended = True
        if self.script and (work := self.script(request)) is not None:
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.signal.notify()

    def reset_seen(self, request: Request, code: int | None) -> None:
        request.was_reset = Reset(asyncio.get_running_loop().time(), code)
        self.resets += 1
        self.signal.notify()
