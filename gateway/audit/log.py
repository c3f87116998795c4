"""What the rest of the gateway knows of the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Protocol

from gateway.exchange import Receipt, SpoolUp
from gateway.secret import Secret
from tenants.ids import OrgId

Send = Callable[[SpoolUp], Awaitable[int]]
"""Hand receipts to the sequencer; returns the highest `seq` whose entry is durable. Raises when it is away."""


class ReceiptSink(Protocol):
    """Where stage 8 puts a receipt; a worker's own, written by one loop.

    When `append` returns, the entry survives kill -9 of the worker (it is in the kernel's page cache, group
    fsync follows within 50 ms). It never blocks and never fails while `ready` said yes at admission: room for
    every admitted request is allocated on disk beforehand. Each receipt becomes exactly one entry.
    """

    def admit(self) -> None:
        """Set room aside for one entry. Raises `UnavailableError` when the disk has no reserve left."""

    def append(self, receipt: Receipt) -> None:
        """Use the room that one `admit` set aside. Synchronous: settling cannot be cancelled."""


class KeyStore(Protocol):
    """Where the signing key is kept: the platform's own secrets.

    Durable when `store` returns, atomic. Trusted: whoever can read it can sign checkpoints of any log.
    """

    async def load(self, name: str) -> Secret | None: ...
    async def store(self, name: str, secret: Secret) -> None: ...


class Pseudonyms(Protocol):
    """What stands for a member in an entry (`gateway.audit.persons.Persons`)."""

    async def of(self, pairs: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
        """At least for these: organization and id of each. Raises `UnavailableError`: ask again."""


class Ids:
    """`Pseudonyms` that are the ids themselves: for a log that nobody has to be taken out of."""

    async def of(self, pairs: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
        return {pair: pair[1] for pair in pairs}


class AuditReader(Protocol):
    """Reads the durable entries of one organization's log. Never more: what is not synced is not shown.

    Positions count entries from 0: entry `n` has index `n`. An organization without entries has an empty log.
    """

    async def entries(
        self,
        org: OrgId,
        *,
        after: int = 0,
        limit: int = 100,
        action: str = "",
        actor: str = "",
        outcome: str = "",
        model: str = "",
        client: str = "",
        since: int = 0,
        until: int = 0,
    ) -> tuple[list[Mapping[str, object]], int]:
        """Entries from index `after` on that match, and where to go on from: pass it as the next `after`.

        `since` (inclusive) and `until` (exclusive) are Unix milliseconds, 0 for no bound. May return fewer
        than `limit`, even none, with more to come: the end is reached when the position stays the same.
        """

    async def wait(self, org: OrgId, after: int, timeout_s: float) -> bool:
        """Whether entry `after` exists, waiting up to `timeout_s` for it."""

    async def checkpoint(self, org: OrgId) -> str:
        """A signed note over every durable entry (C2SP tlog-checkpoint)."""

    def raw(self, org: OrgId, start: int, end: int) -> AsyncIterator[bytes]:
        """The lines of entries [start, end), each with its newline, in pieces of any size."""

    def verifier_key(self, org: OrgId) -> str:
        """The key that signs the checkpoints of `org` (C2SP signed-note verifier key)."""
