"""The requests a worker has in flight, so that taking back somebody's access can end theirs at once."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from tenants.ids import OrgId

SHARE = 4
"""An organization may hold this many times what is left free: one alone four fifths of all, a second one four
fifths of the rest. Beside a heavier one it may hold as many times fewer as it is lighter. (Choudhury and Hahne,
"Dynamic queue length thresholds", 1998.)"""


class Abort(Enum):
    """Why a request is ended from outside its own code."""

    CLIENT = "the client went away"
    DEADLINE = "the deadline passed"
    REVOKED = "access was taken back"
    SUPERSEDED = "a newer request took its place"
    BODY = "the body did not come in time"
    STOPPING = "the gateway stops"


class Abortable(Protocol):
    @property
    def peer(self) -> tuple[str, str]:
        """The address and port at the other end of the request's connection."""
        ...

    def abort(self, reason: Abort) -> None: ...


class InFlight:
    """Keyed by organization and member: a reset of one can reach no other. One loop's own; never awaits.

    `closed`: the worker is on its way out and takes no request any more.
    """

    __slots__ = ("_counts", "_heaviest", "_held", "_weights", "closed", "count")

    def __init__(self) -> None:
        self._held: dict[OrgId, dict[str, set[Abortable]]] = {}
        self._counts: dict[OrgId, int] = {}
        self._weights: dict[OrgId, int] = {}
        """Of those that have anything in flight, when it is not 1."""
        self._heaviest = 1
        """Of these, or of one that was heavier when it came, until any of them leaves."""
        self.closed = False
        self.count = 0

    def has_room(self, org: OrgId, most: int, weight: int = 1) -> bool:
        """Whether one more of `org` leaves room for others, where `most` may be in flight in all."""
        heaviest = max(weight, self._heaviest)
        return self._counts.get(org, 0) * heaviest < SHARE * weight * (most - self.count)

    def enter(self, org: OrgId, member: str, request: Abortable, weight: int = 1) -> None:
        if weight != 1:
            self._weights[org] = weight
            self._heaviest = max(weight, self._heaviest)
        self._held.setdefault(org, {}).setdefault(member, set()).add(request)
        self._counts[org] = self._counts.get(org, 0) + 1
        self.count += 1

    def leave(self, org: OrgId, member: str, request: Abortable) -> None:
        members = self._held[org]
        requests = members[member]
        requests.remove(request)
        self._counts[org] -= 1
        self.count -= 1
        if not requests:
            del members[member]
            if not members:
                del self._held[org], self._counts[org]
                if self._weights.pop(org, None) is not None:
                    self._heaviest = max(self._weights.values(), default=1)

    def reset(self, org: OrgId, member: str = "") -> int:
        """End what `org` (or one `member` of it) has in flight; returns how many were told to end."""
        members = self._held.get(org, {})
        chosen = [members.get(member, set())] if member else list(members.values())
        requests = [request for group in chosen for request in group]
        for request in requests:
            request.abort(Abort.REVOKED)
        return len(requests)

    def end(self, reason: Abort) -> int:
        """End everything, whoever's it is; returns how many were told to end."""
        requests = self._all()
        for request in requests:
            request.abort(reason)
        return len(requests)

    def peers(self) -> set[tuple[str, str]]:
        """The connections that have a request in flight."""
        return {request.peer for request in self._all()}

    def gauges(self) -> tuple[tuple[str, tuple[str, ...], float], ...]:
        """How many each organization has in flight, for the metrics. None of those that have nothing."""
        return tuple(("orgate_in_flight", (org,), count) for org, count in self._counts.items())

    def _all(self) -> list[Abortable]:
        return [r for members in self._held.values() for requests in members.values() for r in requests]
