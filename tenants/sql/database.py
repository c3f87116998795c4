"""Transactions: how a write gets its place in the order of the world."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from msgspec import structs
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tenants.ids import PLATFORM, OrgId
from tenants.models import Revocation
from tenants.revocations import LEEWAY_S, LONGEST_TOKEN_S
from tenants.sql import tables
from tenants.sql.dialect import READ_ONLY, unavailable, within
from tenants.sql.migrate import migrate
from tenants.sql.rows import Detail, json_text
from tenants.sql.serving import examine
from tenants.sql.version import SCHEMA_VERSION, refuse_newer
from tenants.store import Actor, NotFoundError

SYSTEM: Final = Actor(org=PLATFORM, member="system")
"""Who acts when the gateway itself does."""


CHANNEL: Final = "orgate_store"
NOTIFY: Final = f"NOTIFY {CHANNEL}"
"""PostgreSQL tells every node that listens (`tenants.sql.nodes`), when and if the transaction commits."""

P = ParamSpec("P")
R = TypeVar("R")


def uninterrupted(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Let `method` come to its end when its caller is cancelled; the caller's cancellation follows then.

    A cancellation inside the driver abandons a statement that its thread still runs. SQLite ends that
    transaction only when the last reference to the cursor is gone, often one in the traceback of the
    cancellation itself: until then every other writer finds the database locked.
    """

    @wraps(method)
    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        work = asyncio.create_task(method(*args, **kwargs))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if not work.done():
                await asyncio.wait((work,))
            if not work.cancelled():
                work.exception()  # whatever it was, the caller no longer asks
            raise

    return run


class Transaction:
    """One write. `now` is the clock's reading at its start: everything in it happens at that instant."""

    def __init__(
        self, connection: AsyncConnection, now: float, version: int, seq: int, *, tells: bool = True
    ) -> None:
        self.connection = connection
        self._tells = tells
        self.now = now
        self.at = int(now)
        self._before = version
        self._version = version
        self._seq = seq

    def raise_version(self) -> int:
        """The store's version after this transaction: the data plane should see it."""
        self._version = self._before + 1
        return self._version

    async def touch(self, org: OrgId) -> None:
        """Something of `org` that the data plane reads changes. Raises `NotFoundError` if there is no such org."""
        found = await self.connection.execute(
            update(tables.orgs).where(tables.orgs.c.id == org).values(touched=self.raise_version())
        )
        if found.rowcount == 0:
            raise NotFoundError(f"no organization '{org}'")

    async def queue(self, org: OrgId, action: str, target: str, by: Actor, *details: Detail) -> None:
        """Add a change to the outbox; with several `details`, one for each of them."""
        found = []
        for detail in details:
            self._seq += 1
            found.append(
                {
                    "seq": self._seq,
                    "at": self.at,
                    "org": org,
                    "action": action,
                    "target": target,
                    "actor": json_text(by),
                    "detail": json_text(detail),
                }
            )
        await self.connection.execute(insert(tables.outbox), found)

    async def revoke(self, revocation: Revocation) -> None:
        """Write a revocation, or strengthen the one that stands; forget those that no token outlives."""
        table = tables.revocations
        await self.connection.execute(delete(table).where(table.c.expires_at <= self.at))
        # A shorter memory than the longest token would let a revoked one come back to life.
        least = 0 if revocation.token_id else revocation.not_before + LONGEST_TOKEN_S + LEEWAY_S
        same = (
            table.c.org == revocation.org,
            table.c.member == revocation.member,
            table.c.token_id == revocation.token_id,
        )
        old = (await self.connection.execute(select(table).where(*same))).mappings().first()
        values = {
            **structs.asdict(revocation),
            "not_before": max(revocation.not_before, old["not_before"] if old else 0),
            "expires_at": max(revocation.expires_at, least, old["expires_at"] if old else 0),
        }
        await self.connection.execute(
            insert(table).values(values) if old is None else update(table).where(*same).values(values)
        )
        self.raise_version()

    async def finish(self) -> None:
        """Write the counters back: the last statement before the commit. Other nodes hear of it then."""
        await self.connection.execute(update(tables.counters).values(version=self._version, seq=self._seq))
        if self._tells and self.connection.dialect.name == "postgresql":
            await self.connection.exec_driver_sql(NOTIFY)


class Database:
    """The engine, its clock, and whoever wants to know of commits.

    One writer at a time: in this process they queue in order of arrival, across processes the database's
    lock decides. It reaches the rows of all organizations; what `of` returns, those of one.
    """

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float]) -> None:
        self.engine = engine
        self.clock = clock
        self._reading = engine.execution_options(**READ_ONLY)
        self._writing = engine
        self._writer = asyncio.Lock()
        self._subscribers: list[Callable[[], None]] = []

    def of(self, org: str) -> Database:
        """This database, where no statement reaches a row of another organization, whatever it says. SQLite has
        nothing of the kind: there it is the statements alone."""
        if self.dialect == "sqlite":
            return self
        narrowed = copy.copy(self)  # with the same lock and subscribers
        narrowed._reading = within(self._reading, org)
        narrowed._writing = within(self._writing, org)
        return narrowed

    @property
    def dialect(self) -> str:
        return self.engine.dialect.name

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each commit, in the writer's task: it is quick and never raises. Returns the
        way out."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection whose statements all see one instant. Only within what is `uninterrupted`.

        Errors: `StoreUnavailableError`.
        """
        with unavailable():
            async with self._reading.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self, *, tell: bool = True) -> AsyncIterator[Transaction]:
        """A transaction that commits when its block ends and changes nothing when it raises.

        If the process dies before the commit, nothing of it exists; after it, all of it does, the outbox
        included. Only within what is `uninterrupted`.
        """
        async with self._writer:
            with unavailable():
                async with self._writing.begin() as connection:
                    transaction = await self._start(connection, tell)
                    yield transaction
                    await transaction.finish()
        if tell:
            self.tell()

    async def _start(self, connection: AsyncConnection, tells: bool) -> Transaction:
        row = (await connection.execute(select(tables.counters).with_for_update())).mappings().one()
        return Transaction(connection, self.clock(), row["version"], row["seq"], tells=tells)

    def tell(self) -> None:
        """Somebody has committed."""
        for callback in tuple(self._subscribers):
            callback()

    async def create_schema(self) -> None:
        """Make the tables, once, or bring an older schema up to this one's. Two processes that start together
        are serialized by the write lock. A crash in the middle leaves what stood before: it is one transaction.

        Whoever serves from PostgreSQL owns no table: there they are looked at (`tenants.sql.owner` makes them).
        """
        if self.dialect == "postgresql":
            with unavailable():
                async with self._reading.connect() as connection:
                    await connection.run_sync(examine)
            return
        with unavailable():
            async with self.engine.begin() as connection:
                await connection.run_sync(tables.schema.create, checkfirst=True)
                found = await connection.scalar(select(tables.schema.c.version))
                if found is None:
                    await connection.run_sync(tables.metadata.create_all)
                    await connection.execute(insert(tables.schema).values(id=1, version=SCHEMA_VERSION))
                    await connection.execute(insert(tables.counters).values(id=1, version=0, seq=0))
                else:
                    refuse_newer(found)
                    if found < SCHEMA_VERSION:
                        await connection.run_sync(migrate, tables.metadata)
                        await connection.execute(update(tables.schema).values(version=SCHEMA_VERSION))
