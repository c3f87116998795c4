"""Decisions of the connection pool, without I/O: which connection takes the next request, how many to dial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

HTTP_1_1_FACTOR = 32
"""HTTP/1.1 carries one request at a time: each configured connection stands for this many of them."""


class Load(Protocol):
    """One usable connection. `open`: streams open or promised; `limit`: what its peer allows at once;
    `started`: streams in its whole life."""

    @property
    def open(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def started(self) -> int: ...


def pick(loads: Sequence[Load]) -> int | None:
    """The index of the connection to take: the least full one; among equals the one that has carried least.

    The second rule spreads resets: peers bound them per connection (nghttp2: 1,000 in a burst, then 33 a
    second) and would otherwise count all of a quiet hour against the first connection. None: all are full.
    """
    best: int | None = None
    lowest: tuple[float, int] = (1.0, 0)
    for index, load in enumerate(loads):
        taken, limit = load.open, load.limit
        if taken < limit:
            rank = (taken / limit, load.started)
            if best is None or rank < lowest:
                best, lowest = index, rank
    return best


def capacity(connections: int, multiplexed: bool | None) -> int:
    """How many connections a pool may hold. `multiplexed` None: no handshake yet has told the protocol."""
    return connections * HTTP_1_1_FACTOR if multiplexed is False else connections


def dials(loads: Sequence[Load], *, dialling: int, waiting: int, size: int, multiplexed: bool | None) -> int:
    """How many connections to start dialling now, besides the `dialling` ones under way.

    HTTP/1.1: one for each waiting request. HTTP/2: one at a time, as soon as every connection has something
    to do: before it is full (dialled ahead), yet an upstream that one person uses is not given all of them.
    """
    room = size - len(loads) - dialling
    if room <= 0:
        return 0
    if multiplexed is False:
        return max(0, min(room, waiting - dialling))
    if dialling:
        return 0
    if waiting:
        return 1
    return 1 if loads and all(load.open > 0 for load in loads) else 0
