"""Erasing a person: what has to happen, and in which order, so that nothing of them can be brought back.

1. They are no member any more; their account is forgotten once more, should a crash have left something of it. So
   are the buckets of limits with their id, or what is used of budgets would be written down again.
2. What is queued about them becomes entries, under the pseudonym they still have.
3. Their row is destroyed, and the entry `person.erase` about the pseudonym queued, in one transaction. From then
   on the pseudonym leads to nobody. Receipts that come late say `erased`.
4. The database file is written anew, and its write-ahead log emptied: until then both still hold deleted bytes.

Crash after 3: the next `erase` of the same id finds nobody and does 4. What has to stay for a while, because a
token that still lives must be refused by it, goes by itself when that token has ended: `keep_clean`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from gateway.audit.persons import Persons
from tenants.ids import MemberId, OrgId
from tenants.persons import PersonBook, WaitingError
from tenants.store import Actor, InUseError, NotFoundError, OrgStore, StoreError

log = logging.getLogger(__name__)

CLEAN_S = 60.0
QUEUE_TRIES = 100
QUEUE_S = 0.05


class Erased(Struct, frozen=True):
    """`person`: the pseudonym that nobody is behind any more, '' when they had been erased before. `held_until`:
    Unix seconds at which the last revocation that holds their id goes by itself; 0: none does."""

    person: str
    held_until: int


class Accounts(Protocol):
    async def drop_member(self, org: OrgId, member_id: MemberId) -> None: ...


class Queue(Protocol):
    """What makes entries of queued changes (`gateway.audit.sequencer.Sequencer`)."""

    def nudge(self) -> None: ...


class Bucket(Protocol):
    """One bucket of a limit (`gateway.limits.protocol.Standings`)."""

    @property
    def limit(self) -> str: ...
    @property
    def subject(self) -> str: ...


class Buckets(Protocol):
    """Who keeps the buckets of limits (`gateway.limits.store.SliceAdmin`). Raises `UnavailableError`."""

    async def usage(self, org: OrgId) -> Sequence[Bucket]: ...
    async def reset(self, org: OrgId, limit: str, subject: str | None = None) -> int: ...


class Orgs(Protocol):
    def for_org(self, org: OrgId) -> OrgStore: ...


class Erasure:
    """One per control process. `clock` gives Unix seconds."""

    def __init__(
        self,
        *,
        book: PersonBook,
        people: Persons,
        queue: Queue,
        store: Orgs,
        accounts: Accounts,
        buckets: Buckets,
        clock: Callable[[], float],
    ) -> None:
        self._book = book
        self._people = people
        self._queue = queue
        self._store = store
        self._accounts = accounts
        self._buckets = buckets
        self._clock = clock

    async def erase(self, org: OrgId, member: MemberId, by: Actor) -> Erased:
        """Raises `InUseError` for who is a member still, or is named by a limit; `NotFoundError` for who is in no
        entry of this log; `UnavailableError`, `StoreUnavailableError`. Harmless when repeated."""
        try:
            await self._store.for_org(org).members.get(member)
        except NotFoundError:
            pass
        else:
            raise InUseError(f"{member} is a member still: delete them first, then erase")
        await self._accounts.drop_member(org, member)
        for bucket in await self._buckets.usage(org):
            if bucket.subject == member:
                await self._buckets.reset(org, bucket.limit, member)
        person = await self._destroyed(org, member, by)
        await self._book.scrub()
        return Erased(person, await self._book.held_until(org, member))

    async def _destroyed(self, org: OrgId, member: MemberId, by: Actor) -> str:
        """Waits a few seconds for what is queued about them; then it is up to the caller to try again."""
        for _ in range(QUEUE_TRIES):
            try:
                return await self._people.erase(org, member, by)
            except WaitingError:
                self._queue.nudge()
                await asyncio.sleep(QUEUE_S)
        return await self._people.erase(org, member, by)

    async def keep_clean(self) -> None:
        """Forget what has ended, once a minute, until cancelled; of who was erased, down to the file's bytes."""
        while True:
            await asyncio.sleep(CLEAN_S)
            await self.clean()

    async def clean(self) -> None:
        try:
            if await self._book.purge(int(self._clock())):
                await self._book.scrub()
        except StoreError as error:
            log.warning("audit: what has ended is not forgotten yet (%s)", type(error).__name__)
