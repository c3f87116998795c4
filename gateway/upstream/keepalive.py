"""When a connection that is silent must prove that it lives (RFC 9113 section 6.7)."""

from __future__ import annotations

import asyncio
from typing import Protocol

PING_AFTER_S = 20.0
"""Silence on a connection with open streams after which it is sent a PING."""
PING_TIMEOUT_S = 10.0


class Pinged(Protocol):
    """The connection under watch."""

    @property
    def busy(self) -> bool:
        """Whether any stream is open: an idle connection is left alone."""

    def ping(self) -> None: ...

    def give_up(self) -> None:
        """The peer has not answered: its streams fail now, and not each after its own timeout."""


class _Nobody:
    busy = False

    def ping(self) -> None: ...

    def give_up(self) -> None: ...


_NOBODY = _Nobody()


class Keepalive:
    """One timer a connection. `heard` is when the peer last sent anything, on the loop's clock: set it often."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Pinged) -> None:
        self.heard = loop.time()
        self._loop = loop
        self._connection = connection
        self._pinged = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A stream was opened. On a connection that has been silent for long this sends a PING at once."""
        if self._timer is None:
            silent = self._loop.time() - self.heard
            self._timer = self._loop.call_later(max(0.0, PING_AFTER_S - silent), self._look)

    def stop(self) -> None:
        """For good. Holds the connection no longer: the two would keep each other for the collector."""
        self._connection = _NOBODY
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if not self._connection.busy:
            return
        now = self._loop.time()
        if self._pinged > self.heard:
            due = self._pinged + PING_TIMEOUT_S
            if now >= due:
                self._connection.give_up()
                return
        elif now >= self.heard + PING_AFTER_S:
            self._pinged = now
            self._connection.ping()
            due = now + PING_TIMEOUT_S
        else:
            due = self.heard + PING_AFTER_S
        self._timer = self._loop.call_at(due, self._look)
