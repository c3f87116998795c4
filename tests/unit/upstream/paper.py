"""Connections that exist on paper only, for tests of the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.upstream.pool import Connection
from gateway.upstream.stream import Outgoing, Stream


class Paper:
    """A connection with `limit` slots; the test says when one comes free."""

    protocol = "paper"
    multiplexed = True

    def __init__(self, limit: int, changed: Callable[[], None]) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.limit = limit
        self.changed = changed
        self.reserved = 0
        self.started = 0
        self.closed = False
        self.draining = False
        self.made_at = self.idle_since = asyncio.get_running_loop().time()
        self.resets = 0

    @property
    def usable(self) -> bool:
        return not (self.closed or self.draining)

    @property
    def open(self) -> int:
        return self.reserved

    def start(self, outgoing: Outgoing) -> Stream:
        raise AssertionError("these tests stop at the promise of a slot")

    def free(self) -> None:
        """A stream has ended, as a connection tells it."""
        self.reserved -= 1
        if self.draining and not self.open:
            self.close()
        else:
            self.changed()

    def drain(self) -> None:
        self.draining = True
        if not self.open:
            self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.changed()


class Dials:
    """Every dial waits until the test decides its outcome."""

    def __init__(self, limit: int = 1) -> None:
        self.limit = limit
        self.begun: list[tuple[asyncio.Future[Connection], Callable[[], None]]] = []

    async def __call__(self, changed: Callable[[], None]) -> Connection:
        outcome: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self.begun.append((outcome, changed))
        return await outcome

    def succeed(self, number: int) -> Paper:
        outcome, changed = self.begun[number - 1]
        paper = Paper(self.limit, changed)
        outcome.set_result(paper)
        return paper

    def fail(self, number: int, error: Exception) -> None:
        self.begun[number - 1][0].set_exception(error)
