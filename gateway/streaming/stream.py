"""One stream: reads the log of its organization, sends, and remembers how far it has come.

The place is written down once the receiver has confirmed: a crash in between sends the batch again. It reads
through a view of one organization's log and has no way to another's. Nothing that a receiver does holds the log:
entries wait where they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from math import inf
from typing import Final, Protocol

from msgspec import structs

from gateway.audit.formats.context import Context
from gateway.errors import UnavailableError
from gateway.streaming.batch import Batch, batch
from gateway.streaming.sender import Sender, SendError
from tenants.ids import OrgId
from tenants.store import StoreError
from tenants.streams import AuditStream, StreamBook, StreamPlace

log = logging.getLogger("orgate.streams")

FIRST_PAUSE_S: Final = 1.0
LAST_PAUSE_S: Final = 60.0
JITTER: Final = 0.25
SETTLE_S: Final = 2.0
"""What is not certain counts when the connection has stood for so long after it."""

IDLE_S: Final = 30.0
READ_AHEAD: Final = 2
"""Lines are as long as what is made of them, and up to so many times longer."""


class Log(Protocol):
    """`LogReader`, of which a stream sees one organization's part."""

    async def size(self, org: OrgId) -> int: ...
    async def wait(self, org: OrgId, after: int, timeout_s: float) -> bool: ...
    def raw(self, org: OrgId, start: int, end: int) -> AsyncIterator[bytes]: ...


class Stream:
    """`await run()` until it is cancelled. `now`: seconds that never go back; `clock`: Unix seconds; `random`: 0
    to 1.

    `count` is told how many entries each batch had, and 0 for an attempt that failed.
    """

    def __init__(
        self,
        stream: AuditStream,
        entries: Log,
        book: StreamBook,
        make: Callable[[], Awaitable[Sender]],
        *,
        ctx: Context,
        now: Callable[[], float],
        clock: Callable[[], float],
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        count: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.stream = stream
        self.place: StreamPlace | None = None
        self._size = partial(entries.size, stream.org)
        self._wait = partial(entries.wait, stream.org)
        self._raw = partial(entries.raw, stream.org)
        self._book = book
        self._make = make
        self._ctx = ctx
        self._now = now
        self._clock = clock
        self._random = random
        self._sleep = sleep
        self._count = count
        self._sender: Sender | None = None
        self._next = 0
        self._passed: deque[tuple[int, float]] = deque()  # up to where, and when: not certain yet
        self._attempts = 0
        self._full = False  # as much as goes at once was there: more is, probably
        self._most_bytes: float = inf  # that the receiver takes at once, as far as it said

    async def run(self) -> None:
        """Send until cancelled. A failure of the receiver, the log or the store is a pause; the next attempt
        begins where the receiver was last known to be."""
        try:
            while True:
                try:
                    await self._step()
                except SendError as error:
                    await self._failed(str(error), error)
                except StoreError:
                    await self._pause(0.0)
                except (OSError, UnavailableError):
                    await self._failed("the log cannot be read now", SendError(""))
        finally:
            await self._let_go()

    async def _step(self) -> None:
        place = self.place if self.place is not None else await self._begin()
        if self._sender is None:
            self._sender = await self._make()
        await self._settle()
        if await self._size() <= self._next:
            await self._wait(self._next, SETTLE_S if self._passed else IDLE_S)
            return
        if self._sender.gather_s and not self._full and await self._size() - self._next < self._sender.most:
            await self._sleep(self._sender.gather_s)
        found = await self._read(self._sender)
        if found is None:
            return
        if found.first > self._next:
            skipped = found.first - self._next
            log.error(
                "stream '%s' of %s: %d entries had gone before they were sent", place.name, place.org, skipped
            )
            self.place = structs.replace(place, skipped=place.skipped + skipped)
        try:
            rejected = await self._send(self._sender, found)
        except SendError as error:
            if not error.too_large:
                raise
            self._most_bytes = found.size / 2
            return
        self._full = found.size * 2 >= self._sender.most_bytes or len(found.records) == self._sender.most
        self._next = found.end
        self._count(len(found.records))
        if self._sender.certain:
            await self._moved(found.end, rejected)
        else:
            self._passed.append((found.end, self._now()))

    async def _begin(self) -> StreamPlace:
        stream = self.stream
        place = await self._book.place(stream.org, stream.name)
        if place is None:
            begin = 0 if stream.from_start else await self._size()
            place = StreamPlace(stream.org, stream.name, begin)
            await self._book.moved(place)
        elif place.position > await self._size():
            # The log was moved away and begun anew: all of it is new.
            place = structs.replace(place, position=0)
        self._next = place.position
        self.place = place
        return place

    async def _read(self, sender: Sender) -> Batch | None:
        most, most_bytes = sender.most, int(min(sender.most_bytes, self._most_bytes))
        lines: list[bytes] = []
        size = 0
        async for piece in self._raw(self._next, self._next + most):
            lines += piece.splitlines()
            size += len(piece)
            if size >= most_bytes * READ_AHEAD:
                break
        return await asyncio.to_thread(
            batch, lines, self.stream.format, self._ctx, most=most, most_bytes=most_bytes
        )

    async def _send(self, sender: Sender, found: Batch) -> int:
        """How many the receiver did not want."""
        try:
            rejected = await sender.send(found)
        except SendError as error:
            if not error.too_large or len(found.records) > 1:
                raise
            rejected = 1  # it takes no entry of this size: the rest must not wait for ever
        if rejected:
            log.error(
                "stream '%s' of %s: the receiver did not want %d of entries %d to %d",
                *self._names(),
                rejected,
                found.first,
                found.end - 1,
            )
        return rejected

    async def _settle(self) -> None:
        """What was passed on a while ago counts, if the connection still stands."""
        if not self._passed or self._sender is None:
            return
        if not await self._sender.alive():
            raise SendError("the receiver closed the connection")
        upto = -1
        while self._passed and self._passed[0][1] + SETTLE_S <= self._now():
            upto = self._passed.popleft()[0]
        if upto >= 0:
            await self._moved(upto, 0)

    async def _moved(self, position: int, rejected: int) -> None:
        place = self.place
        if place is None:
            return
        if place.failure:
            log.info("stream '%s' of %s goes on", *self._names())
        place = structs.replace(
            place,
            position=position,
            rejected=place.rejected + rejected,
            delivered_at=int(self._clock()),
            failing_since=0,
            failure="",
        )
        await self._book.moved(place)
        self.place = place
        self._attempts = 0

    async def _failed(self, why: str, error: SendError) -> None:
        """Begin again where the receiver is known to be, after a pause."""
        self._count(0)
        await self._let_go()
        place = self.place
        if place is not None:
            self._next = place.position
            if place.failure != why:
                log.warning("stream '%s' of %s waits: %s", *self._names(), why)
                since = place.failing_since or int(self._clock())
                self.place = structs.replace(place, failure=why, failing_since=since)
                try:
                    await self._book.moved(self.place)
                except StoreError:
                    log.warning("stream '%s' of %s: its state is not written down for now", *self._names())
        await self._pause(error.wait_s)

    async def _pause(self, least_s: float) -> None:
        pause = min(FIRST_PAUSE_S * 2**self._attempts, LAST_PAUSE_S)
        self._attempts = min(self._attempts + 1, 16)
        await self._sleep(max(pause * (1 - JITTER * self._random()), least_s))

    async def _let_go(self) -> None:
        self._passed.clear()
        if self._sender is not None:
            sender, self._sender = self._sender, None
            await sender.aclose()

    def _names(self) -> Sequence[str]:
        return self.stream.name, self.stream.org
