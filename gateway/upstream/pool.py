"""The connections to one upstream of one organization, and how requests that wait come to their turn.

A turn is a slot on a connection, promised (`reserved`) the moment it comes free. Whoever is cancelled at the
very instant of getting it hands it on, so no wake-up is lost; and nothing has been sent upstream by then.
Dialling belongs to the pool, not to the request that caused it: a cancelled request kills no dial that others
wait for.

A connection that is old, or has sent many resets, is replaced: the next is dialled first, then the old one takes
no more requests and ends with its last stream.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

import httpx

from gateway.upstream import balance
from gateway.upstream.balance import Bounds
from gateway.upstream.errors import SaturatedError
from gateway.upstream.gauges import Gauges
from gateway.upstream.lanes import Place
from gateway.upstream.share import Member, Share
from gateway.upstream.stream import Outgoing, Stream

IDLE_S = 300.0
"""An HTTP/2 connection without a stream is closed after this, unless its peer does so before."""
SWEEP_S = 30.0
BACKOFF_S = 1.0
"""Pause after a failed dial while other connections still serve."""
USUAL_LIMIT = 100
"""Streams that a connection is expected to carry while no peer has said so (RFC 9113 section 6.5.2: at least)."""


class Connection(Protocol):
    """What `H2Connection` and `H1Connection` have in common. Nothing awaits but `ready`.

    `open` counts promised slots too; `resets`: streams this side reset; `made_at`, `idle_since`: the loop's clock.
    """

    protocol: str
    multiplexed: bool
    ready: asyncio.Future[None]
    reserved: int
    started: int
    closed: bool
    draining: bool
    made_at: float
    idle_since: float

    @property
    def usable(self) -> bool: ...

    @property
    def open(self) -> int: ...

    @property
    def limit(self) -> int: ...

    @property
    def resets(self) -> int: ...

    def start(self, outgoing: Outgoing) -> Stream: ...

    def drain(self) -> None: ...

    def close(self) -> None: ...


Dial = Callable[[Callable[[], None]], Coroutine[Any, Any, Connection]]
"""Makes one connection, ready for use. Its argument is what the connection calls when its state has changed.
Raises `httpx.ConnectError` or `httpx.ConnectTimeout`."""


class _Waiter(Place[Member]):
    """A request in line. `turn` becomes its connection, unless `ends` comes first (the loop's clock)."""

    __slots__ = ("_loop", "ends", "turn")

    def __init__(self, lane: int, pool: Member, ends: float, weight: int) -> None:
        super().__init__(lane, pool.org, pool, weight)
        self._loop = loop = asyncio.get_running_loop()
        self.ends = ends
        self.turn: asyncio.Future[Connection] = loop.create_future()

    @property
    def gone(self) -> bool:
        """Cancelled or too late, though its task or its timer has not run yet."""
        return self.turn.done() or self._loop.time() >= self.ends


class ConnectionPool:
    """At most `bounds.connections` of them (HTTP/1.1: `balance.capacity`), dialled ahead, spread by load.

    `org`: whose they are; turns go round by it. `share`: see there; None: one of its own. `dice`: 0 to 1.
    """

    def __init__(
        self,
        dial: Dial,
        bounds: Bounds,
        gauges: Gauges,
        multiplexed: bool | None = None,
        *,
        org: str = "",
        share: Share | None = None,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._dial = dial
        self._bounds = bounds
        self._gauges = gauges
        self._multiplexed = multiplexed
        self.org = org
        self._share = share if share is not None else Share()
        self._line = self._share.line
        self._dice = dice
        self._usable: list[Connection] = []
        self._all: set[Connection] = set()
        self._retire_at: dict[Connection, float] = {}
        self._due: set[Connection] = set()
        self._dialling: set[asyncio.Task[Connection]] = set()
        self._not_before = 0.0
        self._peer_limit = USUAL_LIMIT
        self._in_flight: int | None = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self.draining = False
        self._closed = False
        self._serving = False
        self._again = False
        self.cap = bounds.max_in_flight

    @property
    def idle(self) -> bool:
        return not self._line.of_flow(self) and not any(connection.open for connection in self._all)

    # What requests call.

    def take(self) -> Connection | None:
        """A connection with a slot promised to the caller, who calls `start` or `release` at once. None: wait
        in line with `acquire` (nobody overtakes those who do)."""
        if self._line.waiting or self._closed or (self.cap and self._share.room(self) <= 0):
            return None
        connection = self._take()
        if connection is not None and (len(self._usable) < self._bounds.connections or self._due):
            self._grow()
        return connection

    async def acquire(self, lane: int = 0, ends: float = math.inf, weight: int = 1) -> Connection:
        """Wait for what `take` gives, until `ends` (the loop's clock). `weight`: see `lanes`.

        Raises `TimeoutError` then, `SaturatedError` when too many wait already, and what dialling raised when no
        other connection is left to wait for. In all these cases nothing has been sent.
        """
        if self._closed:
            raise httpx.ConnectError("the gateway is closing its connections")
        now = self._loop.time()
        if now >= ends:
            raise self._expired(lane)
        if not self._line.waiting:
            self._share.pace.begin(now)
        waiter = _Waiter(lane, self, ends, weight)
        gauges = self._gauges
        gauges.waiting += 1
        gauges.queue[lane] += 1
        self._line.join(waiter)
        timer: asyncio.TimerHandle | None = None
        try:
            self.changed()
            if not waiter.turn.done():
                self._shed(waiter, now)
                if ends < math.inf:
                    timer = self._loop.call_at(ends, self._expire, waiter)
            connection = await waiter.turn
        except asyncio.CancelledError:
            turn = waiter.turn
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(turn.result())  # cancelled at the instant of its turn: the next one gets it
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._line.leave(waiter)
            gauges.waiting -= 1
            gauges.queue[lane] -= 1
        gauges.queued[lane] += 1
        gauges.queued_s[lane] += self._loop.time() - now
        return connection

    def release(self, connection: Connection) -> None:
        """Give back a promised slot that was not used."""
        connection.reserved -= 1
        self.changed()

    def start(self, connection: Connection, outgoing: Outgoing) -> Stream:
        """Use the promised slot. Raises `RefusedError` when the connection has ended since."""
        connection.reserved -= 1
        try:
            return connection.start(outgoing)
        except BaseException:
            self.changed()  # the slot is free again
            raise

    # What connections call.

    def changed(self) -> None:
        """Something about a connection has changed: forget the dead, serve who waits, dial if need be.

        Closing a connection in here calls this again; the outer call then looks once more.
        """
        self._in_flight = None
        self._again = True
        if self._serving:
            return
        if not self._line.waiting and not self.draining and self._settled():
            return  # the usual case, at every stream's end: nobody waits and nothing is to be dialled
        self._serving = True
        try:
            while self._again:
                self._again = False
                self._serve()
        finally:
            self._serving = False

    # What the share calls.

    @property
    def in_flight(self) -> int:
        if self._in_flight is None:
            count = 0
            for connection in self._all:  # on the way of every request: cheaper than `sum`
                count += connection.open
            self._in_flight = count
        return self._in_flight

    @property
    def has_slot(self) -> bool:
        return self._pick() is not None

    def give(self, place: Place[Member]) -> None:
        connection = self._take()
        if connection is None:  # an HTTP/1.1 connection has grown stale since `has_slot`: one will be dialled
            self._line.join(place)
            return
        self._share.pace.turn(self._loop.time())
        cast("_Waiter", place).turn.set_result(connection)

    # The end.

    def drain(self) -> None:
        """Replaced by another configuration: what still comes is served, and no connection is kept idle."""
        self.draining = True
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
        self._share.leave(self)
        self._fail(httpx.ConnectError("the gateway is closing its connections"))

    # The line.

    def _shed(self, waiter: _Waiter, now: float) -> None:
        """Refuse what has just joined when it is one too many.

        Requests for which a connection has yet to be dialled are no queue: nothing is full.
        """
        line, bounds = self._line, self._bounds
        if line.of_flow(self) <= self._coming() or line.count(waiter.lane, self.org) <= bounds.max_queue:
            return
        self._gauges.shed[waiter.lane] += 1
        raise SaturatedError(
            "too many requests wait for the upstream",
            self._share.pace.retry_after_s(line.ahead(waiter.lane) - 1, now),
        )

    def _coming(self) -> float:
        """How many slots there will be soon that are not here yet."""
        missing = balance.capacity(self._bounds.connections, self._multiplexed) - len(self._usable)
        if self._loop.time() < self._not_before:
            missing = len(self._dialling)  # the upstream accepts no more of them
        limit = 1 if self._multiplexed is False else self._peer_limit
        return min(max(missing, 0) * limit, self._share.room(self))

    def _expire(self, waiter: _Waiter) -> None:
        if not waiter.turn.done():
            waiter.turn.set_exception(self._expired(waiter.lane))

    def _expired(self, lane: int) -> TimeoutError:
        self._gauges.expired[lane] += 1
        return TimeoutError("no stream to the upstream came free in time")

    def _fail(self, error: BaseException) -> None:
        for place in self._line.places(self):
            turn = cast("_Waiter", place).turn
            self._line.leave(place)
            if not turn.done():
                # An exception for each: they carry tracebacks of their own.
                turn.set_exception(type(error)(str(error)) if isinstance(error, httpx.TransportError) else error)

    # The connections.

    def _serve(self) -> None:
        self._note_due()
        self._share.serve()
        if self.draining:
            for connection in self._usable:
                if connection.open == 0:
                    connection.drain()
        self._prune()
        self._grow()

    def _pick(self) -> Connection | None:
        """A worn connection only when there is nothing to wait for: its successor cannot be dialled now."""
        usable = self._usable
        index = balance.pick(usable, self._bounds.connection_resets)
        if index is None and self._due and not self._dialling and self._loop.time() < self._not_before:
            index = balance.pick(usable)
        return None if index is None else usable[index]

    def _take(self) -> Connection | None:
        connection = self._pick()
        if connection is not None:
            connection.reserved += 1
            if self._in_flight is not None:
                self._in_flight += 1
        return connection

    def _prune(self) -> None:
        if len(self._all) == len(self._usable) and all(connection.usable for connection in self._usable):
            return
        stale = [c for c in self._usable if not c.usable]
        self._usable = [c for c in self._usable if c.usable]
        for connection in stale:
            self._due.discard(connection)
            self._retire_at.pop(connection, None)
            if not connection.closed:
                connection.drain()
        self._all = {connection for connection in self._all if not connection.closed}
        if not self._all:
            self._share.leave(self)
        if any(connection.closed and not connection.started and not connection.limit for connection in stale):
            # It came and went without room for a single request: as good as refused, and not to be dialled again
            # as fast as the network allows.
            self._dial_failed(httpx.ConnectError("the upstream ended the connection without taking a request"))

    def _settled(self) -> bool:
        """All connections there may be, all of them usable, none of them newly due."""
        usable = self._usable
        if len(usable) < balance.capacity(self._bounds.connections, self._multiplexed) or self._due:
            return False
        replace_at = self._bounds.replace_at
        for connection in usable:  # a generator would cost more than what it runs over
            if not connection.usable or (replace_at and connection.resets >= replace_at):
                return False
        return True

    def _note_due(self) -> None:
        replace_at, now = self._bounds.replace_at, self._loop.time()
        for connection in self._usable:
            worn = replace_at and connection.resets >= replace_at
            if worn or now >= self._retire_at.get(connection, math.inf):
                self._due.add(connection)

    def _retire(self) -> None:
        """A connection has come: the one that is due most, if any, takes no more requests."""
        if self._due:
            old = max(self._due, key=lambda connection: (connection.resets, -connection.made_at))
            self._due.discard(old)
            self._gauges.replaced += 1
            old.drain()

    def _grow(self) -> None:
        size = balance.capacity(self._bounds.connections, self._multiplexed)
        due = 0 if self.draining else len(self._due)
        if len(self._usable) + len(self._dialling) >= size + due:
            return
        if self._closed or (self._usable and self._loop.time() < self._not_before):
            return
        count = balance.dials(
            self._usable,
            dialling=len(self._dialling),
            waiting=self._line.of_flow(self),
            size=size,
            multiplexed=self._multiplexed,
            due=due,
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
                self._welcome(connection)
            else:
                connection.close()
                error = httpx.ConnectError("the upstream closed the connection at once")
        if error is not None:
            if not isinstance(error, httpx.TransportError):
                self._loop.call_exception_handler({"message": "dialling an upstream failed", "exception": error})
            self._dial_failed(error)
        self.changed()

    def _dial_failed(self, error: BaseException) -> None:
        self._gauges.dial_failures += 1
        self._not_before = self._loop.time() + BACKOFF_S
        if not self._usable and not self._dialling:
            self._fail(error)

    def _welcome(self, connection: Connection) -> None:
        self._usable.append(connection)
        self._all.add(connection)
        self._share.enter(self)
        self._peer_limit = connection.limit
        self._gauges.handshakes += 1
        if self._bounds.connection_age_s:
            self._retire_at[connection] = connection.made_at + self._bounds.age_s(self._dice())
        self._retire()
        self._watch()

    def _watch(self) -> None:
        """Come back for idle and old connections, as long as there is any."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if self._all and not self._closed:
            again = min(self._loop.time() + SWEEP_S, *self._retire_at.values(), math.inf)
            self._sweeper = self._loop.call_at(again, self._sweep)

    def _sweep(self) -> None:
        """Close what nobody has used for long, and what has grown old without ever being used."""
        self._sweeper = None
        now = self._loop.time()
        for connection in list(self._usable):
            old = connection.started == 0 and now >= self._retire_at.get(connection, math.inf)
            if connection.open == 0 and (old or connection.idle_since < now - IDLE_S):
                connection.drain()
        self._note_due()
        self.changed()
        for connection in self._due:
            self._retire_at.pop(connection, None)  # seen; its successor is being dialled
        self._watch()
