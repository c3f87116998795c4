"""One HTTP/1.1 connection of the demo model (RFC 9112), on h11's state machine. Requests are answered in turn."""

from __future__ import annotations

import asyncio
from typing import Final

import h11

from gateway.demo_model.dialect import RequestError
from gateway.demo_model.ledger import Record
from gateway.demo_model.routes import Request, Routes

MAX_AHEAD_BYTES: Final = 64 * 1024
"""What a client may send ahead of its turn. Reading never pauses: a paused socket wouldn't tell of a close."""


class Http1(asyncio.Protocol):
    """Is itself the `Reply` of the request whose turn it is. `name` begins the names of streams in the record."""

    def __init__(self, routes: Routes, name: str) -> None:
        self._routes = routes
        self._name = name
        self._turn = 0
        self._transport: asyncio.Transport
        self._h11 = h11.Connection(h11.SERVER)
        self._request: Request | None = None
        self._record: Record | None = None
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream server only makes asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self._h11.receive_data(data)
        if self._task is not None and len(self._h11.trailing_data[0]) > MAX_AHEAD_BYTES:
            self._transport.close()
            return
        self._advance()

    def eof_received(self) -> bool:
        # The client closed, which resets the answer under way: clients of a model don't half-close.
        self._abandon()
        return False

    def _advance(self) -> None:
        while self._task is None:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as problem:
                self._refuse(problem)
                return
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    self._write(self._h11.send(h11.InformationalResponse(status_code=100, headers=[])))
                return
            if isinstance(event, h11.Request):
                self._open(event)
            elif isinstance(event, h11.Data) and self._request is not None:
                self._request.add(bytes(event.data))
                if self._request.far_too_large:
                    self._transport.close()
                    return
            elif isinstance(event, h11.EndOfMessage) and self._request is not None:
                self._start(self._request)
            else:
                self._transport.close()
                return

    def _open(self, event: h11.Request) -> None:
        self._turn += 1
        self._request = Request(
            method=event.method.decode("latin-1"),
            target=event.target.decode("latin-1"),
            headers=dict(event.headers),
            max_body_bytes=self._routes.max_body_bytes,
        )
        self._record = self._routes.record(self._request, f"{self._name}/{self._turn}")

    def _start(self, request: Request) -> None:
        self._task = asyncio.ensure_future(self._routes.respond(request, self, self._record))
        self._task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._request = None
        if task.cancelled() or self._transport.is_closing():
            return
        failure = task.exception()
        if failure is not None:
            if self._record:
                self._record.end()
            self._transport.close()
            raise failure
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            self._advance()
        else:
            self._transport.close()

    def _refuse(self, problem: h11.RemoteProtocolError) -> None:
        if self._record:
            self._record.end()
        if self._h11.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            body = RequestError(problem.error_status_hint, f"Not valid HTTP/1.1: {problem}.").body()
            self.head(problem.error_status_hint, b"application/json", len(body))
            self._write(self._h11.send(h11.Data(data=body)))
            self._write(self._h11.send(h11.EndOfMessage()))
        self._transport.close()

    def head(self, status: int, content_type: bytes, length: int | None) -> None:
        headers = [(b"content-type", content_type)]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        self._write(self._h11.send(h11.Response(status_code=status, headers=headers)))

    async def body(self, data: bytes, *, last: bool = False) -> None:
        await self._room.wait()
        frames = self._h11.send(h11.Data(data=data)) or b""
        if last:
            frames += self._h11.send(h11.EndOfMessage()) or b""
        self._write(frames)

    def _write(self, data: bytes | None) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._abandon()

    def stop(self) -> None:
        """Closes: an answer under way is broken off."""
        if self._task is not None:
            self._task.cancel()
            if self._record:
                self._record.end()
        self._transport.close()

    def _abandon(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._record:
            self._record.reset("connection")
