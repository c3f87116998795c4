"""What comes up the bus, as cheaply as HTTP/1.1 goes: h11 on connections to the Unix socket that stay open.

A general client spends a millisecond on one post, on URLs, header objects and pools that a post to a fixed path
on one socket has no use for; a worker posts a few dozen times a second beside its streams.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import h11

from gateway.errors import UnavailableError

IDLE_MAX = 8
"""Connections kept open: more posts than that are hardly ever under way at once."""


class Posts:
    """Posts to one Unix socket. One loop's own; any number of posts at once, each on a connection of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self._idle: list[_Connection] = []
        self._closed = False

    async def post(self, path: str, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        """Post JSON; returns the status and the body of the answer.

        Raises `UnavailableError` when no whole answer came within `timeout_s`: whether the message was read is
        not known then. Cancelled or failed, its connection is closed: an answer that comes late is nobody's.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[tuple[int, bytes]] = loop.create_future()
        connection: _Connection | None = None
        timer = loop.call_later(timeout_s, _too_late, answered)
        try:
            while self._idle:
                connection = self._idle.pop()
                if connection.usable:
                    break
            else:
                connection = await self._connect(timeout_s)
            connection.begin(path, body, answered)
            return await answered
        except (OSError, TimeoutError, h11.ProtocolError):
            raise UnavailableError("the control process does not answer", retry_after_s=1) from None
        finally:
            timer.cancel()
            answered.cancel()
            if connection is not None:
                self._put_back(connection)

    def close(self) -> None:
        """Close what is idle; a post under way ends, and its connection with it."""
        self._closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _connect(self, timeout_s: float) -> _Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout_s):
            _, connection = await loop.create_unix_connection(_Connection, self._socket)
        return connection

    def _put_back(self, connection: _Connection) -> None:
        if self._closed or not connection.next_cycle() or len(self._idle) >= IDLE_MAX:
            connection.close()
        else:
            self._idle.append(connection)


class _Connection(asyncio.Protocol):
    """One connection, one post at a time. It falls out of use by itself when the other side closes it."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[tuple[int, bytes]] | None = None
        self._status = 0
        self._body: list[bytes] = []

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def begin(self, path: str, body: bytes, answered: asyncio.Future[tuple[int, bytes]]) -> None:
        """Send the request; `answered` gets the answer, or what kept it from coming."""
        if self._transport is None:
            raise ConnectionResetError
        self._answered = answered
        self._status = 0
        self._body = []
        headers = [("host", "bus"), ("content-type", "application/json"), ("content-length", str(len(body)))]
        parts = (
            self._http.send(h11.Request(method="POST", target=path, headers=headers)),
            self._http.send(h11.Data(body)),
            self._http.send(h11.EndOfMessage()),
        )
        self._transport.write(b"".join([part for part in parts if part]))

    def next_cycle(self) -> bool:
        """Whether another post may follow on this connection: the last one ended as it should."""
        if not self.usable or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
            while not self._take(self._http.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            self._fail(error)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(ConnectionResetError())

    def _take(self, event: object) -> bool:
        """Take in one event; whether there is nothing more to take for now."""
        if isinstance(event, h11.Response):
            self._status = event.status_code
        elif isinstance(event, h11.Data):
            self._body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            if self._answered is not None and not self._answered.done():
                self._answered.set_result((self._status, b"".join(self._body)))
            return True
        return event is h11.NEED_DATA or event is h11.PAUSED

    def _fail(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)


def _too_late(answered: asyncio.Future[tuple[int, bytes]]) -> None:
    if not answered.done():
        answered.set_exception(TimeoutError())
