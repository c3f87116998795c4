"""The edge: one HTTP/2 stream ↔ one `Inbound` and one `Answer`. Raw ASGI, because only that learns of a reset.

A task loops on `receive()`; on `http.disconnect` it cancels the request's own task, whatever that awaits.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from gateway.client_version import CLIENT_HEADERS, client_version
from gateway.deadline import GRPC_TIMEOUT, TIMEOUT_MS, timeout_s
from gateway.errors import BadRequestError, TooLargeError, UnsupportedMediaError
from gateway.inflight import Abort
from gateway.lane import LANE, lane_asked
from gateway.latest import DOCUMENT, INTENT, SESSION, document_of
from gateway.pipeline import Headers
from policies.lanes import Lane

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_SAID = frozenset((*CLIENT_HEADERS, SESSION, INTENT))
"""What programs say of themselves: nothing depends on it that two of one could be used to get around."""
_WANTED = _SAID | {
    b"authorization",
    b"content-length",
    b"content-encoding",
    b"host",
    b"x-request-id",
    b"traceparent",
    TIMEOUT_MS,
    GRPC_TIMEOUT,
    DOCUMENT,
    LANE,
}


class HttpInbound:
    """The `Inbound` of an ASGI request. Used by the request's own task, aborted from any other of its loop."""

    __slots__ = (
        "_body_timeout_s",
        "_declared",
        "_fault",
        "_finished",
        "_max_body",
        "_receive",
        "_said",
        "_task",
        "_timer",
        "_watcher",
        "aborted",
        "arrived",
        "authorization",
        "document",
        "ends",
        "host",
        "lane",
        "peer",
        "request_id",
        "trace_id",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        task: asyncio.Task[Any],
        *,
        max_body: int,
        body_timeout_s: float,
        request_timeout_s: float,
    ) -> None:
        found = _wanted(scope["headers"])
        self.arrived = asyncio.get_running_loop().time()
        self.ends = self.arrived + request_timeout_s
        self._body_timeout_s = body_timeout_s
        self.peer: tuple[str, str] = scope.get("client") or ("", "")
        self._receive = receive
        self._task = task
        self._max_body = max_body
        self._watcher: asyncio.Task[None] | None = None
        self._finished = False
        self._declared = (found.get(b"content-length"), found.get(b"content-encoding"))
        self.aborted: Abort | None = None
        self.authorization = found.get(b"authorization")
        self.host = found.get(b"host", b"").decode("latin-1").rsplit(":", 1)[0].lower()
        given = found.get(b"x-request-id", b"")
        self.request_id = given.decode() if _REQUEST_ID.fullmatch(given) else new_request_id()
        trace = _TRACEPARENT.fullmatch(found.get(b"traceparent", b""))
        self.trace_id = trace[1].decode() if trace else ""
        self._said = found
        self._timer: asyncio.TimerHandle | None = None
        self._fault: BadRequestError | None = None
        self.document: bytes | None = None
        self.lane = Lane.COMPLETION
        try:
            self.document = document_of(found.get(DOCUMENT), found.get(SESSION), found.get(INTENT))
            self.lane = lane_asked(found.get(LANE))
            asked = timeout_s(found.get(TIMEOUT_MS), found.get(GRPC_TIMEOUT))
        except BadRequestError as fault:
            self._fault = fault
        else:
            if asked is not None:
                self.end_within(asked)

    @property
    def client_version(self) -> str:
        """What the program at the other end calls itself."""
        return client_version(*map(self._said.get, CLIENT_HEADERS))

    def check(self) -> None:
        """Raises `BadRequestError` for a head that asks for something in words that cannot be read."""
        if self._fault is not None:
            raise self._fault

    def end_within(self, seconds: float) -> None:
        """End the request by then, counted from its arrival, if it is not to end sooner anyway."""
        ends = self.arrived + seconds
        if ends < self.ends:
            self.ends = ends
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(ends, self.abort, Abort.DEADLINE)

    async def body(self) -> bytes:
        """The whole body. 413 beyond the cap, by its declared length before a byte is read; 408 when it is late.

        From its end on a watcher waits for the client's reset.
        """
        length, encoding = self._declared
        if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMediaError("send the body without a content-encoding")
        if length is not None and length.isdigit() and int(length) > self._max_body:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        late = asyncio.get_running_loop().call_later(self._body_timeout_s, self.abort, Abort.BODY)
        try:
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    self.aborted = Abort.CLIENT
                    raise asyncio.CancelledError
                part = message.get("body", b"")
                size += len(part)
                if size > self._max_body:
                    raise self._too_large()
                parts.append(part)
                if not message.get("more_body", False):
                    break
        finally:
            late.cancel()
        self._watcher = asyncio.get_running_loop().create_task(self._watch())
        if size == 0:
            raise BadRequestError("the body is empty; send a JSON object")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def abort(self, reason: Abort) -> None:
        """End the request: its task is cancelled once, and never after it has finished."""
        if self.aborted is None and not self._finished:
            self.aborted = reason
            self._task.cancel()

    def finish(self) -> None:
        """The answer is out or given up: from here on `abort` does nothing."""
        self._finished = True
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.abort(Abort.CLIENT)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"the body is larger than {self._max_body} bytes")


class HttpAnswer:
    """The `Answer` over ASGI's `send`. `started`: a status has gone out; `events`: of an event stream."""

    __slots__ = ("_send", "events", "finished", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.events = False
        self.finished = False

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self.events = any(value.startswith(b"text/event-stream") for _, value in headers)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes) -> None:
        self.finished = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})


def new_request_id() -> str:
    return "req_" + secrets.token_hex(12)


def _wanted(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers the gateway reads. One that may come only once and comes twice is refused (RFC 9110, 5.3)."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _WANTED:
            if name in found and found[name] != value:
                if name in _SAID:
                    continue
                raise BadRequestError(f"the header '{name.decode()}' is given twice")
            found[name] = value
    return found
