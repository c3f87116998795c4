"""One sweep that ends what is late, in place of a timer for each request."""

from __future__ import annotations

import asyncio
from typing import Protocol

SWEEP_S = 0.05
"""How late a request may be ended that has a second or more: one timer for all costs less than one for each."""


class Late(Protocol):
    """A request that must not take for ever. `due`: the loop's clock, seconds."""

    @property
    def due(self) -> float: ...
    def expire(self) -> None:
        """`due` has come."""


class Deadlines:
    """Ends the requests that are late, looking at all of them every `SWEEP_S` as long as there are any.

    One loop's own. A request is in it from its head to the last byte of its answer.
    """

    __slots__ = ("_loop", "_open", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: set[Late] = set()
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, request: Late) -> None:
        self._open.add(request)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def leave(self, request: Late) -> None:
        self._open.discard(request)

    def _sweep(self) -> None:
        now = self._loop.time()
        for request in [request for request in self._open if request.due <= now]:
            request.expire()
        self._timer = self._loop.call_later(SWEEP_S, self._sweep) if self._open else None
