"""The edge: one HTTP/2 stream ↔ one `Inbound` and one `Answer`. Raw ASGI, because only that learns of a reset.

From the body's end on, a callback waits on `receive()`; at `http.disconnect` it cancels the request's own task,
whatever that awaits.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any

from gateway.api.presented import presented
from gateway.client_version import CLIENT_HEADERS, client_version
from gateway.deadline import GRPC_TIMEOUT, TIMEOUT_MS, timeout_s
from gateway.dpop import HEADER
from gateway.errors import BadRequestError, TooLargeError, UnsupportedMediaError
from gateway.exchange import Headers
from gateway.inflight import Abort
from gateway.lane import LANE, lane_asked
from gateway.latest import DOCUMENT, INTENT, SESSION, document_of
from gateway.pipeline import EVENT_STREAM
from policies.lanes import Lane
from tenants.opaque import PREFIX

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_HOST = re.compile(rb"[0-9A-Za-z!$&'()*+,;=\-._~:\[\]@%]*")
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
API_KEY = b"x-api-key"
"""Where tools of Anthropic's dialect put a static key: a personal token is taken there too, and nothing else."""

STATIC = PREFIX.encode()
_SAID = frozenset((*CLIENT_HEADERS, SESSION, INTENT))
"""What programs say of themselves: nothing depends on it that two of one could be used to get around."""
_WANTED = _SAID | {
    b"authorization",
    API_KEY,
    HEADER,
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

PRECISE_S = 1.0
"""A deadline nearer than this has a timer of its own."""


class HttpInbound:
    """The `Inbound` of an ASGI request. Used by the request's own task, aborted from any other of its loop.

    `due`: the loop's clock, seconds, by which the body must be there; once it is, by which all must be over.
    """

    __slots__ = (
        "_declared",
        "_fault",
        "_finished",
        "_loop",
        "_max_body",
        "_receive",
        "_received",
        "_said",
        "_task",
        "_timer",
        "_whole",
        "aborted",
        "arrived",
        "authorization",
        "document",
        "due",
        "ends",
        "host",
        "lane",
        "peer",
        "presented",
        "request_id",
        "trace_id",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        task: asyncio.Task[Any],
        loop: asyncio.AbstractEventLoop,
        *,
        max_body: int,
        body_timeout_s: float,
        request_timeout_s: float,
        new_request_id: Callable[[], str],
    ) -> None:
        found = _wanted(scope["headers"])
        self.arrived = loop.time()
        self.ends = self.arrived + request_timeout_s
        self.due = min(self.arrived + body_timeout_s, self.ends)
        self.peer: tuple[str, str] = scope.get("client") or ("", "")
        self._loop = loop
        self._receive = receive
        self._task = task
        self._max_body = max_body
        self._received: asyncio.Future[Message] | None = None
        self._whole = False
        self._finished = False
        self._declared = (found.get(b"content-length"), found.get(b"content-encoding"))
        self.aborted: Abort | None = None
        self.authorization = found.get(b"authorization")
        if self.authorization is None and (key := found.get(API_KEY)) is not None and key.startswith(STATIC):
            self.authorization = b"Bearer " + key
        proof = found.get(HEADER)
        self.presented = None if proof is None else presented(scope, proof)
        self.host = _host_of(found.get(b"host", b""))
        if not self.host and scope.get("http_version") == "1.1":
            raise BadRequestError("an HTTP/1.1 request needs a Host header")  # RFC 9112 section 3.2
        given = found.get(b"x-request-id")
        self.request_id = given.decode() if given and _REQUEST_ID.fullmatch(given) else new_request_id()
        parent = found.get(b"traceparent")
        trace = _TRACEPARENT.fullmatch(parent) if parent else None
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
            self.due = min(self.due, ends) if not self._whole else ends
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if ends - self._loop.time() < PRECISE_S:
                self._timer = self._loop.call_at(ends, self.abort, Abort.DEADLINE)

    def left_s(self) -> float:
        """Seconds until it is ended; none or fewer: it is late already."""
        return self.ends - self._loop.time()

    def expire(self) -> None:
        """`due` has come."""
        self.abort(Abort.DEADLINE if self._whole or self.ends <= self.due else Abort.BODY)

    async def body(self) -> bytes:
        """The whole body. 413 beyond the cap, by its declared length before a byte is read; 408 when it is late.

        It is whole when as much is here as was declared: the end that is told of after that is not waited for.
        From then on the client's reset is.
        """
        length, encoding = self._declared
        if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMediaError("send the body without a content-encoding")
        declared = int(length) if length is not None and length.isdigit() else -1
        if declared > self._max_body:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
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
            if size == declared or not message.get("more_body", False):
                break
        self._whole = True
        self.due = self.ends
        self._watch()
        if size == 0:
            raise BadRequestError("the body is empty; send a JSON object")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def abort(self, reason: Abort) -> None:
        """End the request: its task is cancelled once, and never after it has finished."""
        if self.aborted is None and not self._finished:
            self.aborted = reason
            self._task.cancel()

    @property
    def cut_off(self) -> bool:
        """The body never ended: its sender is gone, or sent what cannot be read (a chunk's extension of 20 KB).
        Granian tells both in the same way."""
        return not self._whole

    def finish(self) -> None:
        """The answer is out or given up: from here on `abort` does nothing."""
        self._finished = True
        if self._timer is not None:
            self._timer.cancel()
        if (received := self._received) is not None:
            self._received = None  # it holds us through its callback, in a server's object that no collector sees
            received.remove_done_callback(self._on_received)
            received.cancel()

    def _watch(self) -> None:
        """Not a task: what Granian gives is a future already, and a task around it costs more than it does."""
        self._received = asyncio.ensure_future(self._receive())
        self._received.add_done_callback(self._on_received)

    def _on_received(self, received: asyncio.Future[Message]) -> None:
        self._received = None
        if self._finished or received.cancelled():
            return
        if received.result()["type"] == "http.disconnect":
            self.abort(Abort.CLIENT)
        else:
            self._watch()

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

    def start(self, status: int, headers: Headers) -> Awaitable[None]:
        self.started = True
        self.events = EVENT_STREAM in headers[:2]  # where the pipeline has it: to compare all takes longer
        return self._send({"type": "http.response.start", "status": status, "headers": headers})

    def send(self, data: bytes) -> Awaitable[None]:
        return self._send({"type": "http.response.body", "body": data, "more_body": True})

    def finish(self, data: bytes) -> Awaitable[None]:
        self.finished = True
        return self._send({"type": "http.response.body", "body": data, "more_body": False})


@lru_cache(maxsize=256)
def _host_of(value: bytes) -> str:
    """The name in `host` or `:authority`, without its port. Raises `BadRequestError` (RFC 3986 section 3.2.2)."""
    if _HOST.fullmatch(value) is None:
        raise BadRequestError("the header 'host' is not the name of a host")
    return value.decode("latin-1").rsplit(":", 1)[0].lower()


def _wanted(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers the gateway reads. One that may come only once and comes twice is refused (RFC 9110, 5.3)."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _WANTED:
            if name in found and (found[name] != value or name == HEADER):
                if name in _SAID:
                    continue
                raise BadRequestError(f"the header '{name.decode()}' is given twice")
            found[name] = value
    return found
