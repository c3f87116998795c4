"""The connections to one upstream of one organization, and the line of requests that wait for them.

A turn is a slot on a connection, promised (`reserved`) the moment it comes free. Whoever is cancelled at the
very instant of getting it hands it on, so no wake-up is lost; and nothing has been sent upstream by then.
Dialling belongs to the pool, not to the request that caused it: a cancelled request kills no dial that others
wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import httpx

from gateway.upstream import balance
from gateway.upstream.gauges import Gauges
from gateway.upstream.stream import Outgoing, Stream

IDLE_S = 300.0
"""An HTTP/2 connection without a stream is closed after this, unless its peer does so before."""
SWEEP_S = 30.0
BACKOFF_S = 1.0
"""Pause after a failed dial while other connections still serve."""


class Connection(Protocol):
    """What `H2Connection` and `H1Connection` have in common. Nothing awaits but `ready`.

    `open` counts promised slots too; `idle_since`: the loop's clock.
    """

    protocol: str
    multiplexed: bool
    ready: asyncio.Future[None]
    reserved: int
    started: int
    closed: bool
    draining: bool
    idle_since: float

    @property
    def usable(self) -> bool: ...

    @property
    def open(self) -> int: ...

    @property
    def limit(self) -> int: ...

    def start(self, outgoing: Outgoing) -> Stream: ...

    def drain(self) -> None: ...

    def close(self) -> None: ...


Dial = Callable[[Callable[[], None]], Coroutine[Any, Any, Connection]]
"""Makes one connection, ready for use. Its argument is what the connection calls when its state has changed.
Raises `httpx.ConnectError` or `httpx.ConnectTimeout`."""


class ConnectionPool:
    """At most `connections` of them (HTTP/1.1: `balance.capacity`), dialled ahead, spread by load."""

    def __init__(self, dial: Dial, connections: int, gauges: Gauges, multiplexed: bool | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._dial = dial
        self._connections = connections
        self._gauges = gauges
        self._multiplexed = multiplexed
        self._usable: list[Connection] = []
        self._all: set[Connection] = set()
        self._waiting: dict[asyncio.Future[Connection], None] = {}
        self._dialling: set[asyncio.Task[Connection]] = set()
        self._not_before = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        self._draining = False
        self._closed = False
        self._serving = False
        self._again = False

    @property
    def idle(self) -> bool:
        return not self._waiting and not any(connection.open for connection in self._all)

    def take(self) -> Connection | None:
        """A connection with a slot promised to the caller, who calls `start` or `release` at once. None: wait
        in line with `acquire` (nobody overtakes those who do)."""
        if self._waiting or self._closed:
            return None
        connection = self._take()
        if connection is not None:
            self._grow()
        return connection

    async def acquire(self) -> Connection:
        """Wait for what `take` gives. Raises what dialling raised when no other connection is left to wait for."""
        if self._closed:
            raise httpx.ConnectError("the gateway is closing its connections")
        turn: asyncio.Future[Connection] = self._loop.create_future()
        self._waiting[turn] = None
        self._gauges.waiting += 1
        self.changed()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(turn.result())  # cancelled at the instant of its turn: the next one gets it
            raise
        finally:
            self._waiting.pop(turn, None)
            self._gauges.waiting -= 1

    def release(self, connection: Connection) -> None:
        """Give back a promised slot that was not used."""
        connection.reserved -= 1
        self.changed()

    def start(self, connection: Connection, outgoing: Outgoing) -> Stream:
        """Use the promised slot. Raises `RefusedError` when the connection has ended since."""
        connection.reserved -= 1
        return connection.start(outgoing)

    def changed(self) -> None:
        """Something about a connection has changed: forget the dead, serve who waits, dial if need be.

        Closing a connection in here calls this again; the outer call then looks once more.
        """
        self._again = True
        if self._serving:
            return
        if not self._waiting and not self._draining and self._full():
            return  # the usual case, at every stream's end: nobody waits and nothing is to be dialled
        self._serving = True
        try:
            while self._again:
                self._again = False
                self._serve()
        finally:
            self._serving = False

    def drain(self) -> None:
        """Replaced by another configuration: what still comes is served, and no connection is kept idle."""
        self._draining = True
        self.changed()

    def close(self) -> None:
        """Close everything now. Requests in flight end with `httpx.RemoteProtocolError`."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._dialling:
            task.cancel()
        for connection in list(self._all):
            connection.close()
        self._fail(httpx.ConnectError("the gateway is closing its connections"))

    def _serve(self) -> None:
        while self._waiting:
            turn = next(iter(self._waiting))
            if turn.done():  # cancelled, and its task has not run yet
                del self._waiting[turn]
                continue
            connection = self._take()
            if connection is None:
                break
            del self._waiting[turn]
            turn.set_result(connection)
        if self._draining:
            for connection in self._usable:
                if connection.open == 0:
                    connection.drain()
        self._prune()
        self._grow()

    def _take(self) -> Connection | None:
        self._prune()
        usable = self._usable
        index = balance.pick(usable)
        if index is None:
            return None
        usable[index].reserved += 1
        return usable[index]

    def _prune(self) -> None:
        if len(self._all) == len(self._usable) and all(connection.usable for connection in self._usable):
            return
        stale = [c for c in self._usable if not c.usable]
        self._usable = [c for c in self._usable if c.usable]
        for connection in stale:
            if not connection.closed:
                connection.drain()
        self._all = {connection for connection in self._all if not connection.closed}

    def _full(self) -> bool:
        """All connections there may be, all of them usable."""
        if len(self._usable) < balance.capacity(self._connections, self._multiplexed):
            return False
        return all(connection.usable for connection in self._usable)

    def _grow(self) -> None:
        size = balance.capacity(self._connections, self._multiplexed)
        if len(self._usable) + len(self._dialling) >= size:
            return
        if self._closed or (self._usable and self._loop.time() < self._not_before):
            return
        count = balance.dials(
            self._usable,
            dialling=len(self._dialling),
            waiting=len(self._waiting),
            size=size,
            multiplexed=self._multiplexed,
        )
        for _ in range(count):
            task = self._loop.create_task(self._dial(self.changed))
            self._dialling.add(task)
            task.add_done_callback(self._dialled)

    def _dialled(self, task: asyncio.Task[Connection]) -> None:
        self._dialling.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            connection = task.result()
            self._multiplexed = connection.multiplexed
            if self._closed:
                connection.close()
                return
            if connection.usable:
                self._usable.append(connection)
                self._all.add(connection)
                self._gauges.handshakes += 1
                if self._sweeper is None:
                    self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
            else:
                connection.close()
                error = httpx.ConnectError("the upstream closed the connection at once")
        if error is not None:
            if not isinstance(error, httpx.TransportError):
                self._loop.call_exception_handler({"message": "dialling an upstream failed", "exception": error})
            self._gauges.dial_failures += 1
            self._not_before = self._loop.time() + BACKOFF_S
            if not self._usable and not self._dialling:
                self._fail(error)
        self.changed()

    def _fail(self, error: BaseException) -> None:
        waiting, self._waiting = self._waiting, {}
        for turn in waiting:
            if not turn.done():
                # An exception for each: they carry tracebacks of their own.
                turn.set_exception(type(error)(str(error)) if isinstance(error, httpx.TransportError) else error)

    def _sweep(self) -> None:
        """Close what nobody has used for long. Runs while there is any connection."""
        self._sweeper = None
        before = self._loop.time() - IDLE_S
        for connection in list(self._usable):
            if connection.open == 0 and connection.idle_since < before:
                connection.drain()
        self.changed()
        if self._all and not self._closed:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
