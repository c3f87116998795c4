"""One request and its answer on one connection: the part HTTP/2 and HTTP/1.1 have in common.

The connection feeds it, the caller reads it. Nothing here awaits except `read` and the caller's wait for
`head`; giving up (`cancel`) is a plain function that has written its reset when it returns, so there is no
moment in which a cancellation can lose it.
"""

from __future__ import annotations

import asyncio
import math
from typing import NamedTuple, Protocol

import httpx

Header = tuple[bytes, bytes]


class Outgoing(NamedTuple):
    """A request ready to be written. Header names are lower-case; `deadline`: the loop's clock, seconds, by
    which the head of the answer must be there; `idle_s`: the longest silence after that; `ends`: the same clock,
    by which everything must be there; `lane`: its place in line when the upstream is full, lower first."""

    method: bytes
    path: bytes
    headers: list[Header]
    body: bytes
    deadline: float
    idle_s: float
    ends: float = math.inf
    lane: int = 0


class Head(NamedTuple):
    status: int
    headers: list[Header]


class Link(Protocol):
    """What a stream asks of its connection. None of it awaits."""

    def consumed(self, stream: Stream, credit: int) -> None:
        """The caller has read `credit` bytes (as flow control counts them): the peer may send as many more."""

    def abandon(self, stream: Stream, error: Exception) -> None:
        """Reset the stream now and end it with `error`. Does nothing once the stream is over."""

    def timed_out(self) -> None:
        """Count a timeout."""


class Stream:
    """Received bytes wait in one buffer, joined: what has piled up is read in one piece, and a peer that sends
    single bytes costs no more memory than one that sends frames."""

    __slots__ = (
        "_loop",
        "_outgoing",
        "_timer",
        "_waiting_since",
        "_wake",
        "buffer",
        "credit",
        "error",
        "head",
        "id",
        "link",
        "over",
        "unread",
        "upload",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Link, stream_id: int, outgoing: Outgoing) -> None:
        self.id = stream_id
        self.link = link
        self.head: asyncio.Future[Head] = loop.create_future()
        self.buffer = bytearray()
        self.unread = 0  # flow-controlled bytes in the buffer
        self.credit = 0  # read, not yet given back to the peer
        self.upload = memoryview(outgoing.body)
        self.over = False
        self.error: Exception | None = None
        self._loop = loop
        self._outgoing = outgoing
        self._wake: asyncio.Future[None] | None = None
        self._waiting_since = 0.0
        self._timer: asyncio.TimerHandle | None = loop.call_at(outgoing.deadline, self._on_timer)

    # What the connection calls.

    def head_received(self, head: Head) -> None:
        if not self.head.done():
            self.head.set_result(head)
            self._stop_timer()
            self._timer = self._loop.call_later(self._outgoing.idle_s, self._on_timer)

    def data_received(self, data: bytes, size: int) -> None:
        """`size` counts padding too."""
        self.buffer += data
        self.unread += size
        self._kick()

    def finish(self, error: Exception | None = None) -> None:
        """The stream is over. What was received before an error can still be read."""
        if self.over:
            return
        self.over = True
        self.error = error
        self._stop_timer()
        if not self.head.done():
            self.head.set_exception(error or httpx.RemoteProtocolError("the upstream ended without an answer"))
            self.head.exception()  # retrieved: nobody may be waiting any more, and that is no fault
        self._kick()

    # What the caller calls.

    async def read(self) -> bytes:
        """All that has arrived, at least one byte; b"" at the end. Raises what ended the stream early."""
        while not self.buffer:
            if self.over:
                if self.error is not None:
                    raise self.error
                return b""
            self._wake = self._loop.create_future()
            self._waiting_since = self._loop.time()
            await self._wake
        data = bytes(self.buffer)
        self.buffer.clear()
        size, self.unread = self.unread, 0
        self.link.consumed(self, size)
        return data

    def cancel(self) -> None:
        """Give up: resets the stream at once unless it is over, and drops what was not read. Never awaits."""
        if not self.over:
            self.link.abandon(self, httpx.ReadError("the stream was cancelled"))
        self.buffer.clear()
        self.unread = 0

    def _kick(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        """First the deadline of the head, then a watch on silence: one timer, re-armed only when it fires.

        Only the upstream's silence counts, not that of a caller who does not read.
        """
        if not self.head.done():
            self.link.timed_out()
            self.link.abandon(self, httpx.ReadTimeout("the upstream did not answer in time"))
            return
        now = self._loop.time()
        waiting = self._wake is not None and not self._wake.done()
        due = (self._waiting_since if waiting else now) + self._outgoing.idle_s
        if due <= now:
            self.link.timed_out()
            self.link.abandon(self, httpx.ReadTimeout(f"the upstream was silent for {self._outgoing.idle_s:g} s"))
        else:
            self._timer = self._loop.call_at(due, self._on_timer)
