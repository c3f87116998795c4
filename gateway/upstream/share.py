"""What the connections that share a bound have in common: one line of waiting requests, and the room that is left.

An upstream without `max_in_flight` shares with nobody. Upstreams of several organizations with one that lead to
the same origin share it: they are one machine, however many organizations know of it. They share room and line,
never a connection.
"""

from __future__ import annotations

import math
from typing import Protocol
from weakref import WeakValueDictionary

from gateway.upstream.lanes import Line, Pace, Place


class Member(Protocol):
    """A pool of connections, as its share sees it. None of it awaits."""

    @property
    def cap(self) -> int:
        """Its `max_in_flight`; 0: none."""

    @property
    def org(self) -> str:
        """Whose it is."""

    @property
    def draining(self) -> bool:
        """Replaced by another configuration: what it has in flight counts, its cap only for others."""

    @property
    def in_flight(self) -> int:
        """Streams open or promised."""

    @property
    def has_slot(self) -> bool:
        """Whether `give` would succeed: one of its connections has room."""

    def give(self, place: Place[Member]) -> None:
        """Promise a slot to who waits."""


class Share:
    """Each member keeps its own cap, and all together keep the largest of them.

    Not the smallest: an organization that sets 1 would hold up the others. An organization that sets more than
    the others can take no turn of theirs either: turns go round (see `lanes`). One that lowers its own with much
    in flight holds to it at once; to others the higher one stands until that has ended, or they would get no turn
    before.
    """

    def __init__(self) -> None:
        self.line: Line[Member] = Line()
        self.pace = Pace()
        self._members: dict[Member, None] = {}

    def enter(self, member: Member) -> None:
        """From its first connection on a member's requests count."""
        self._members[member] = None

    def leave(self, member: Member) -> None:
        """It has no connection any more, and so nothing in flight."""
        self._members.pop(member, None)

    def room(self, member: Member) -> float:
        """How many more requests `member` may have in flight now."""
        cap = member.cap
        if not cap:
            return math.inf
        left = cap - member.in_flight
        if left > 0 and len(self._members) > 1:
            largest = total = 0
            for other in self._members:
                total += other.in_flight
                if not other.draining or other.org != member.org:
                    largest = max(largest, other.cap)
            left = min(left, max(cap, largest) - total)
        return left

    def serve(self) -> None:
        """Give turns while somebody who waits can be served."""
        while (place := self.line.next(self._ready)) is not None:
            place.flow.give(place)

    def _ready(self, member: Member) -> bool:
        return member.has_slot and self.room(member) > 0


class Shares:
    """One worker's, by origin (scheme, host, port); each for as long as any pool has it."""

    def __init__(self) -> None:
        self._shares: WeakValueDictionary[tuple[str, str, int], Share] = WeakValueDictionary()

    def of(self, origin: tuple[str, str, int]) -> Share:
        share = self._shares.get(origin)
        if share is None:
            share = self._shares[origin] = Share()
        return share
