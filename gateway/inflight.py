"""The requests a worker has in flight, so that taking back somebody's access can end theirs at once."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from tenants.ids import OrgId


class Abort(Enum):
    """Why a request is ended from outside its own code."""

    CLIENT = "the client went away"
    DEADLINE = "the deadline passed"
    REVOKED = "access was taken back"


class Abortable(Protocol):
    def abort(self, reason: Abort) -> None: ...


class InFlight:
    """Keyed by organization and member: a reset of one can reach no other. One loop's own; never awaits."""

    __slots__ = ("_held", "count")

    def __init__(self) -> None:
        self._held: dict[OrgId, dict[str, set[Abortable]]] = {}
        self.count = 0

    def enter(self, org: OrgId, member: str, request: Abortable) -> None:
        self._held.setdefault(org, {}).setdefault(member, set()).add(request)
        self.count += 1

    def leave(self, org: OrgId, member: str, request: Abortable) -> None:
        members = self._held[org]
        requests = members[member]
        requests.remove(request)
        self.count -= 1
        if not requests:
            del members[member]
            if not members:
                del self._held[org]

    def reset(self, org: OrgId, member: str = "") -> int:
        """End what `org` (or one `member` of it) has in flight; returns how many were told to end."""
        members = self._held.get(org, {})
        chosen = [members.get(member, set())] if member else list(members.values())
        requests = [request for group in chosen for request in group]
        for request in requests:
            request.abort(Abort.REVOKED)
        return len(requests)
