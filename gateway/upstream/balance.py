"""Decisions of the connection pool, without I/O: which connection takes the next request, how many to dial,
which to replace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tenants.models import Upstream

HTTP_1_1_FACTOR = 32
"""HTTP/1.1 carries one request at a time: each configured connection stands for this many of them."""
JITTER = 0.1
"""Connections made together are replaced at ages up to this part apart from the configured one."""


class Bounds(NamedTuple):
    """What an upstream's binding allows one worker; see `tenants.models.Upstream`."""

    connections: int = 4
    max_in_flight: int = 0
    max_queue: int = 64
    connection_age_s: float = 0
    connection_resets: int = 0

    @classmethod
    def of(cls, upstream: Upstream) -> Bounds:
        return cls(
            upstream.connections,
            upstream.max_in_flight,
            upstream.max_queue,
            upstream.connection_age_s,
            upstream.connection_resets,
        )

    @property
    def replace_at(self) -> int:
        """Resets sent at which a connection's successor is dialled: a fifth is left for those that come until it
        is there, and for the streams that the old one still carries. 0: never."""
        return max(1, self.connection_resets * 4 // 5) if self.connection_resets else 0

    def age_s(self, dice: float) -> float:
        """The age at which one connection is replaced. `dice`: 0 to 1. 0: never."""
        return self.connection_age_s * (1 - JITTER + 2 * JITTER * dice)


class Load(Protocol):
    """One connection. `open`: streams open or promised; `limit`: what its peer allows at once; `started`: streams
    in its whole life; `resets`: those of them that this side reset."""

    @property
    def usable(self) -> bool: ...
    @property
    def open(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def started(self) -> int: ...
    @property
    def resets(self) -> int: ...


def pick(loads: Sequence[Load], worn: int = 0) -> int | None:
    """The index of the connection to take: the least full one; among equals the one that has carried least.

    The second rule spreads resets: peers bound them per connection (nghttp2: 1,000 in a burst, then 33 a
    second) and would otherwise count all of a quiet hour against the first connection. A connection that has sent
    `worn` resets takes no more (0: there is no such bound). None: there is no room.
    """
    best: int | None = None
    least, carried = 1.0, 0
    for index, load in enumerate(loads):
        taken, limit = load.open, load.limit
        if taken < limit and load.usable and not (worn and load.resets >= worn):
            fullness = taken / limit
            if best is None or fullness < least or (fullness == least and load.started < carried):
                best, least, carried = index, fullness, load.started
    return best


def capacity(connections: int, multiplexed: bool | None) -> int:
    """How many connections a pool may hold. `multiplexed` None: no handshake yet has told the protocol."""
    return connections * HTTP_1_1_FACTOR if multiplexed is False else connections


def dials(
    loads: Sequence[Load], *, dialling: int, waiting: int, size: int, multiplexed: bool | None, due: int = 0
) -> int:
    """How many connections to start dialling now, besides the `dialling` ones under way. `due`: how many of
    `loads` are to be replaced; each serves until its successor is there, so for so long there is one more.

    HTTP/1.1: one for each waiting request. HTTP/2: one at a time, as soon as every connection has something
    to do: before it is full (dialled ahead), yet an upstream that one person uses is not given all of them.
    """
    room = size + due - len(loads) - dialling
    if room <= 0:
        return 0
    if multiplexed is False:
        return max(0, min(room, waiting + due - dialling))
    if dialling:
        return 0
    if waiting or due:
        return 1
    return 1 if loads and all(load.open > 0 for load in loads) else 0
