"""What the rest of the gateway knows of the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence, Set
from typing import NamedTuple, Protocol

from gateway.audit.selection import Selection
from gateway.audit.tiles import Address
from gateway.exchange import Intent, Receipt, SpoolUp
from gateway.secret import Secret
from tenants.ids import OrgId

Send = Callable[[SpoolUp], Awaitable[int]]
"""Hand receipts to the sequencer; returns the highest `seq` whose entry is durable. Raises when it is away."""


class ReceiptSink(Protocol):
    """Where a request's intent goes when it is admitted, and its receipt when it is settled; a worker's own,
    written by one loop.

    When `admit` returns, the request becomes exactly one entry whatever becomes of the worker: that of its
    receipt, or one with the outcome `unknown`. Both survive kill -9 (they are in the kernel's page cache, group
    fsync follows within `audit.fsync_ms`). `append` never blocks and never fails: room for every admitted request
    is allocated on disk beforehand.
    """

    def admit(self, intent: Intent) -> int:
        """Set room aside for one entry and write the intent; returns its number. Synchronous.

        Raises `UnavailableError` when the disk has no reserve left, or refuses.
        """

    async def secure(self, number: int, intent: Intent) -> None:
        """Return once the intent outlives a power cut, with what is known by now. Raises `UnavailableError`."""

    def append(self, receipt: Receipt, number: int) -> None:
        """Use the room that `admit` set aside for `number`. Synchronous: settling cannot be cancelled."""


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


class Proved(NamedTuple):
    """An entry's line without its newline, and PATH(index, D[0:size])."""

    line: bytes
    hashes: Sequence[bytes]


class AuditTree(Protocol):
    """Reads what proves entries, of the trees whose checkpoint was saved: nothing here makes one.

    Methods raise `UnavailableError` when what they need cannot be read now.
    """

    async def proven_size(self, org: OrgId) -> int:
        """How many entries the newest saved checkpoint is over: there are tiles for all of them."""

    async def tile(self, org: OrgId, at: Address) -> bytes | None:
        """A tile or an entry bundle; None when no saved checkpoint needs it."""

    def leaves(self, org: OrgId, start: int, end: int) -> AsyncIterator[bytes]:
        """The leaf hashes of entries [start, end), 32 bytes each, in pieces of whole hashes."""

    async def inclusion(self, org: OrgId, index: int, size: int) -> Proved | None:
        """0 <= index < size <= `proven_size`. None when the line is past its retention."""

    async def consistency(self, org: OrgId, old: int, new: int) -> Sequence[bytes]:
        """PROOF(old, D[0:new]); 0 <= old <= new <= `proven_size`."""

    async def find(self, org: OrgId, wanted: str, before: int | None) -> tuple[int | None, int]:
        """The newest entry before entry `before` (None: before the end) whose document or request has this id,
        letters, digits and _ . : - only; and where a search that found none goes on before, 0 at the end."""


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

    async def range(self, org: OrgId) -> tuple[int, int]:
        """The first entry whose line is kept still, and how many entries there are, those before it counted."""

    async def wait(self, org: OrgId, after: int, timeout_s: float) -> bool:
        """Whether entry `after` exists, waiting up to `timeout_s` for it."""

    async def checkpoint(self, org: OrgId) -> str:
        """A signed note (C2SP tlog-checkpoint), as a rule over every entry that is durable when it is asked for.
        One a second at most is made. Raises `UnavailableError` when there is none at all."""

    def raw(self, org: OrgId, start: int, end: int) -> AsyncIterator[bytes]:
        """The lines of entries [start, end), each with its newline, in pieces of any size."""

    def matching(self, org: OrgId, chosen: Selection, start: int, end: int) -> AsyncIterator[bytes]:
        """As `raw`, of those entries that match. An empty piece: it goes on, and nothing more was found yet."""

    async def actors(self, org: OrgId, actor: str) -> Set[tuple[object, object]]:
        """Organization and name of whoever `actor` (several: between commas) stands for in the log of `org`."""

    @property
    def tree(self) -> AuditTree:
        """What proves the entries."""

    def verifier_key(self, org: OrgId) -> str:
        """The key that signs the checkpoints of `org` (C2SP signed-note verifier key)."""
