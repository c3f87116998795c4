"""One request and its answer on one connection: the part HTTP/2 and HTTP/1.1 have in common.

The connection feeds it, the caller reads it. Nothing here awaits except `read` and the caller's wait for
`head`; giving up (`cancel`) is a plain function that has written its reset when it returns, so there is no
moment in which a cancellation can lose it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import httpx

from gateway.upstream.errors import TotalTimeoutError
from gateway.upstream.fields import Head, Header

TIME_LEFT = b"x-request-timeout-ms"


class Outgoing(NamedTuple):
    """A request ready to be written. Header names are lower-case; `deadline`: the loop's clock, seconds, by
    which the head of the answer must be there; `idle_s`: the longest silence after that; `ends`: the same clock,
    by which everything must be there; `lane`: its place in line when the upstream is full, lower first;
    `weight`: its organization's part of the turns there.

    `block`: method, origin, path and `headers` as HPACK, where they were coded before (`fields.encode`; else
    empty). `extra`: headers of this request alone. The connection adds the body's length and what is left
    until `ends`.
    """

    method: bytes
    path: bytes
    headers: Sequence[Header]
    body: bytes
    deadline: float
    idle_s: float
    ends: float = math.inf
    lane: int = 0
    extra: tuple[Header, ...] = ()
    block: bytes = b""
    weight: int = 1

    @property
    def first_due(self) -> float:
        return self.deadline if self.deadline < self.ends else self.ends


def left_ms(ends: float, now: float) -> int:
    """What is told to the upstream of a time that ends: at least 1."""
    return max(int((ends - now) * 1000), 1)


class Link(Protocol):
    """What a stream asks of its connection. None of it awaits."""

    def consumed(self, stream: Stream, credit: int) -> None:
        """The caller has read `credit` bytes (as flow control counts them): the peer may send as many more."""

    def abandon(self, stream: Stream, error: Exception) -> None:
        """Reset the stream now and end it with `error`. Does nothing once the stream is over."""


class Stream:
    """Received bytes wait in one buffer, joined: what has piled up is read in one piece, and a peer that sends
    single bytes costs no more memory than one that sends frames. `channel` is the HTTP/2 connection's."""

    __slots__ = (
        "_buffer",
        "_deadline",
        "_loop",
        "_waiting_since",
        "_wake",
        "channel",
        "credit",
        "ends",
        "error",
        "head",
        "id",
        "idle_s",
        "link",
        "over",
        "unread",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Link, stream_id: int, outgoing: Outgoing) -> None:
        self.id = stream_id
        self.link = link
        self.channel: Any = None
        self.head: asyncio.Future[Head] = loop.create_future()
        self.unread = 0  # flow-controlled bytes in the buffer
        self.credit = 0  # read, not yet given back to the peer
        self.over = False
        self.error: Exception | None = None
        self.ends = outgoing.ends
        self._buffer: bytes | bytearray = b""
        self._loop = loop
        self._deadline = outgoing.deadline
        self.idle_s = outgoing.idle_s
        self._wake: asyncio.Future[None] | None = None
        self._waiting_since = 0.0

    # What the connection calls.

    def head_received(self, head: Head) -> None:
        if not self.head.done():
            self.head.set_result(head)

    def data_received(self, data: bytes, size: int) -> None:
        """`size` counts padding too."""
        if not self._buffer:
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer) + data
        self.unread += size
        self._kick()

    def finish(self, error: Exception | None = None) -> None:
        """The stream is over. What was received before an error can still be read."""
        if self.over:
            return
        self.over = True
        self.error = error
        if not self.head.done():
            self.head.set_exception(error or httpx.RemoteProtocolError("the upstream ended without an answer"))
            self.head.exception()  # retrieved: nobody may be waiting any more, and that is no fault
        self._kick()

    def due(self, now: float) -> float:
        """When something has to have happened by: the head, the next bytes, the end.

        Only the upstream's silence counts, not that of a caller who does not read. The time may move on, never
        back but for the arrival of the head.
        """
        if not self.head.done():
            return min(self._deadline, self.ends)
        waiting = self._wake is not None and not self._wake.done()
        return min((self._waiting_since if waiting else now) + self.idle_s, self.ends)

    def expire(self, now: float) -> None:
        """What is due has not come: reset, and say what was missing."""
        error: httpx.ReadTimeout
        if now >= self.ends:
            error = TotalTimeoutError("the request took longer than it may")
        elif not self.head.done():
            error = httpx.ReadTimeout("the upstream did not answer in time")
        else:
            error = httpx.ReadTimeout(f"the upstream was silent for {self.idle_s:g} s")
        self.link.abandon(self, error)

    # What the caller calls.

    async def read(self) -> bytes:
        """All that has arrived, at least one byte; b"" at the end. Raises what ended the stream early."""
        while not self._buffer:
            if self.unread:
                # Padding alone has come: no byte to return, but the window that it took.
                size, self.unread = self.unread, 0
                self.link.consumed(self, size)
            if self.over:
                if self.error is not None:
                    raise self.error
                return b""
            self._wake = self._loop.create_future()
            self._waiting_since = self._loop.time()
            await self._wake
        data, self._buffer = self._buffer, b""
        size, self.unread = self.unread, 0
        self.link.consumed(self, size)
        return data if isinstance(data, bytes) else bytes(data)

    def cancel(self) -> None:
        """Give up: resets the stream at once unless it is over, and drops what was not read. Never awaits."""
        if not self.over:
            self.link.abandon(self, httpx.ReadError("the stream was cancelled"))
        self._buffer = b""
        self.unread = 0

    def _kick(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)


def sweep(streams: Sequence[Stream], now: float) -> tuple[int, float]:
    """Expire what is due of `streams`; (how many, when to look again)."""
    expired, again = 0, math.inf
    for stream in streams:
        due = stream.due(now)
        if due <= now:
            expired += 1
            stream.expire(now)
        elif due < again:
            again = due
    return expired, again
