"""What the control store keeps of people whose names are in audit logs: wrapped keys, and nothing in clear.

Rows outlive their organization, as its log does. For the control process alone: no worker is told of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from msgspec import Struct

from tenants.ids import OrgId
from tenants.store import Actor, InUseError


class WaitingError(InUseError):
    """Changes about that person wait in the outbox: they have to become entries first."""


class WrappedDataKey(Struct, frozen=True):
    """The data key of an organization, wrapped. `id` is new with each key. `made_at`: Unix seconds."""

    org: OrgId
    id: str
    wrapped: str
    made_at: int


class Person(Struct, frozen=True):
    """One person in one organization's entries. Each text is base64 or an id, and none is the member's.

    `id` stands in the entries. `finder` is a keyed digest of the member's id, to find the row by. `key` is the
    person's own key, wrapped under the organization's data key; `member` the member's id under the person's key.
    """

    org: OrgId
    id: str
    finder: str
    key: str
    member: str
    made_at: int


class PersonBook(Protocol):
    """Durable when a call returns. One writer, the control process. Raises `tenants.store.StoreUnavailableError`.

    Trusted: whoever can write it decides whose name a reader is shown for an entry, within what the key in the
    row allows; whoever can read it, and has what wraps the data keys, learns who is who.
    """

    async def data_key(self, org: OrgId) -> WrappedDataKey | None: ...
    async def any_data_key(self) -> WrappedDataKey | None: ...
    async def add_data_key(self, item: WrappedDataKey) -> WrappedDataKey:
        """The one that stands then: the first that was added."""

    async def by_finder(self, org: OrgId, finders: Collection[str]) -> tuple[Person, ...]: ...
    async def by_id(self, org: OrgId, ids: Collection[str]) -> tuple[Person, ...]: ...
    async def page(self, org: OrgId, *, after: str = "", limit: int = 100) -> tuple[tuple[Person, ...], str]:
        """By id: (persons, the id to continue after, or '' at the end)."""

    async def erased(self, org: OrgId, finders: Collection[str]) -> frozenset[str]:
        """Which of them were erased not long ago: what comes late of them makes no new row."""

    async def add(self, persons: Sequence[Person]) -> None:
        """Add them all, or none."""

    async def erase(self, org: OrgId, member: str, finder: str, by: Actor) -> str:
        """Destroy the row that `finder` leads to, and queue an entry `person.erase` about its id; returns that.

        The entry and the row go in one transaction. Raises `InUseError` while `member` is one still, or a limit is
        about them; `WaitingError`; `NotFoundError` when there is neither a row nor one that was erased not long
        ago. Repeating it is harmless and returns ''.
        """

    async def held_until(self, org: OrgId, member: str) -> int:
        """Until when (Unix seconds) a revocation has to hold the id, because a token may still say it; else 0."""

    async def purge(self, now: int) -> bool:
        """Forget revocations that have ended, and who was erased a day ago. Whether somebody was erased that late
        and anything was forgotten: then `scrub`."""

    async def scrub(self) -> None:
        """Write the database anew without what was deleted in it, and empty its write-ahead log."""
