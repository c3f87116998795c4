"""The edge: one HTTP/2 stream ↔ one `Inbound` and one `Answer`. Raw ASGI, because only that learns of a reset.

A task loops on `receive()`; on `http.disconnect` it cancels the request's own task, whatever that awaits.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from gateway.errors import BadRequestError, TooLargeError, UnsupportedMediaError
from gateway.inflight import Abort
from gateway.pipeline import Headers

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_WANTED = (b"authorization", b"content-length", b"content-encoding", b"host", b"x-request-id", b"traceparent")


class HttpInbound:
    """The `Inbound` of an ASGI request. Used by the request's own task, aborted from any other of its loop."""

    __slots__ = (
        "_declared",
        "_finished",
        "_max_body",
        "_receive",
        "_task",
        "_watcher",
        "aborted",
        "authorization",
        "host",
        "request_id",
        "trace_id",
    )

    def __init__(self, scope: Scope, receive: Receive, task: asyncio.Task[Any], max_body: int) -> None:
        found = _wanted(scope["headers"])
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

    async def body(self) -> bytes:
        """The whole body. 413 beyond the cap, by its declared length before a byte is read.

        From its end on a watcher waits for the client's reset.
        """
        length, encoding = self._declared
        if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMediaError("send the body without a content-encoding")
        if length is not None and length.isdigit() and int(length) > self._max_body:
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
            if not message.get("more_body", False):
                break
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
                raise BadRequestError(f"the header '{name.decode()}' is given twice")
            found[name] = value
    return found
