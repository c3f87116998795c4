"""A worker's way out: what SIGTERM (the gateway stops) and SIGUSR2 (a successor is ready) set going.

The order is what load balancers and editors need: say no on `/readyz`; serve on for `delay_s`; take no new
connection; let those that begin come to their first request; GOAWAY on every connection (Granian's own shutdown);
let streams end; past the limit end them with a last event, settled and audited; then cut what is still connected.
A hostile peer, whatever it holds open, holds nothing past that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

from gateway.connections import Unlistened, accepted, asked, beginning, cut, listening
from gateway.inflight import Abort, InFlight

log = logging.getLogger("orgate.drain")

RETIRE = signal.SIGUSR2
"""What the tree tells a worker that has a successor. `/readyz` does not change: the successor answers there."""

BEGINNINGS_S = 5.0
"""When it shuts down, Granian drops the TLS handshakes that are going on, and connections whose HTTP version it
does not know yet. They get this long at most, or a fourth of the time to drain."""

PATIENCE_S = 2.0
"""A connection without a request that says nothing for so long is not about to make one. Less would not do: a
handshake is silent for a round trip, and for as long as a client's or our own processor is busy with others."""

LEAVE_S = 1.0
"""For Granian to leave its accepting loop when it is told to."""

REFUSE_S = 1.0
"""After GOAWAY a well-behaved client opens no stream that it has not already sent: later ones are answered 503."""

LAST_WORDS_S = 2.0
"""Of the time to drain, what is kept for the last events and for cutting what does not go by itself."""

FAREWELL_S = 1.0
"""With no request in flight, a connection that is silent for so long and did not close after GOAWAY is cut."""

_STEP_S = 0.05


class Drain:
    """One per worker. `stopping`: `/readyz` must say no. Owned by the worker's loop."""

    def __init__(self, in_flight: InFlight, *, port: int, folder: Path, delay_s: float, drain_s: float) -> None:
        self._in_flight = in_flight
        self._port = port
        self._folder = folder
        self._delay_s = delay_s
        self._limit_s = drain_s
        self._task: asyncio.Task[None] | None = None
        self.stopping = False

    def install(self, shut_down: Callable[[], None] | None = None) -> None:
        """Take over SIGTERM from Granian, whose own shutdown stays on SIGINT. Called when the loop runs."""
        shut_down = shut_down or _granian_shuts_down
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._begin, shut_down, True)
        loop.add_signal_handler(RETIRE, self._begin, shut_down, False)

    async def aclose(self) -> None:
        """The worker is done: nothing is left to wait for."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _begin(self, shut_down: Callable[[], None], stop: bool) -> None:
        self.stopping = self.stopping or stop
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(shut_down, stop))
            self._task.add_done_callback(_ended)

    async def _run(self, shut_down: Callable[[], None], stop: bool) -> None:
        if stop and self._delay_s:
            log.info("stopping in %.1f s; /readyz says no", self._delay_s)
            await asyncio.sleep(self._delay_s)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limit_s
        last_words_s = min(LAST_WORDS_S, self._limit_s / 4)
        doors = [Unlistened(fd, self._folder) for fd in listening(self._port)]
        await self._beginnings(min(BEGINNINGS_S, self._limit_s / 4))
        shut_down()
        for door in doors:
            await self._shut(door, refuse=stop)
        refuse_at = loop.time() + REFUSE_S
        while (now := loop.time()) < end - last_words_s:
            if now >= refuse_at:
                self._in_flight.closed = True
                if not self._in_flight.count:
                    # What is silent now has nothing to say; a slow reader of a last answer is not silent.
                    cut(c for c in accepted(self._port) if c.silent_s >= FAREWELL_S)
            await asyncio.sleep(_STEP_S)
        self._in_flight.closed = True
        if count := self._in_flight.end(Abort.STOPPING):
            log.warning("%d requests did not end in %.0f s and are ended", count, self._limit_s)
            await asyncio.sleep(last_words_s / 2)  # for the last events to go out
        while True:  # until Granian is done and the worker ends this task
            if count := cut(accepted(self._port)):
                log.info("%d connections stayed open and are cut", count)
            await asyncio.sleep(max(_STEP_S, last_words_s / 8))

    async def _shut(self, door: Unlistened, *, refuse: bool) -> None:
        loop, end = asyncio.get_running_loop(), asyncio.get_running_loop().time() + LEAVE_S
        while not door.dropped and loop.time() < end:  # noqa: ASYNC110  # another thread's doing
            await asyncio.sleep(_STEP_S)
        if refuse and door.dropped:
            door.refuse()
        door.close()

    async def _beginnings(self, most_s: float) -> None:
        """Return when every connection has made a request or has nothing to say, or after `most_s`."""
        loop, end = asyncio.get_running_loop(), asyncio.get_running_loop().time() + most_s
        while True:  # one step at least: Granian's thread may be in the midst of accepting
            await asyncio.sleep(_STEP_S)
            if loop.time() >= end or not beginning(accepted(self._port), asked, patience_s=PATIENCE_S):
                return


def _granian_shuts_down() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _ended(task: asyncio.Task[None]) -> None:
    """The task goes on until it is cancelled. Any other end is a fault of ours; the tree's SIGKILL is the net."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the drain failed: %s", type(error).__name__, exc_info=error)
        _granian_shuts_down()
