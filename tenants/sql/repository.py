"""Things of one kind in one organization. `_mine` is the only way to a row: it always says whose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from msgspec import Struct, structs
from sqlalchemy import ColumnElement, Table, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tenants.ids import OrgId
from tenants.sql import rows, tables
from tenants.sql.database import Database, Transaction, uninterrupted
from tenants.sql.paging import conditions, page
from tenants.store import (
    Actor,
    AlreadyExistsError,
    InvalidItemError,
    NotFoundError,
    VersionMismatchError,
)
from tenants.validate import validate

T = TypeVar("T", bound=Struct)


class Kind(Struct, Generic[T], frozen=True):
    """`noun` names it in actions and messages; `key` is the field that identifies it in its organization."""

    noun: str
    type: type[T]
    table: Table
    key: str = "name"


class ScopedRepository(Generic[T]):
    """`tenants.store.Repository` over one table, for one organization.

    A kind with rules of its own overrides `_admit` and `_release`; they run inside the transaction.
    """

    kind: Kind[T]
    served = True
    """Whether the data plane reads this kind, so that each write raises the store's version."""

    def __init__(self, database: Database, org: OrgId) -> None:
        self._database = database
        self._org = org
        self._table = self.kind.table
        self._key = self._table.c[self.kind.key]

    @uninterrupted
    async def get(self, key: str) -> T:
        async with self._database.read() as connection:
            return await self._find(connection, self._key == key, key)

    @uninterrupted
    async def page(
        self, *, after: str = "", limit: int = 100, filters: Mapping[str, str] | None = None
    ) -> tuple[tuple[T, ...], str]:
        wanted = conditions(self.kind.type, self._table, filters, self._database.dialect)
        statement = select(self._table).where(*self._mine(*wanted))
        return await page(self._database, statement, self.kind.type, self._key, after=after, limit=limit)

    @uninterrupted
    async def create(self, item: T, by: Actor) -> T:
        self._checked(item)
        async with self._database.write() as transaction:
            return await self.create_in(transaction, item, by)

    async def create_in(self, transaction: Transaction, item: T, by: Actor) -> T:
        """`create` as part of `transaction`."""
        key = self._checked(item)[self.kind.key]
        await self._open(transaction)
        if await self._exists(transaction, self._key == key):
            raise AlreadyExistsError(f"{self.kind.noun} '{key}' exists already")
        made = await self._admit(transaction, None, self._stamped(item, version=1, created_at=transaction.at))
        await transaction.connection.execute(insert(self._table).values(rows.encode(made)))
        await transaction.queue(self._org, f"{self.kind.noun}.create", key, by, rows.describe(None, made))
        return made

    @uninterrupted
    async def replace(self, item: T, expected: int, by: Actor) -> T:
        self._checked(item)
        async with self._database.write() as transaction:
            return await self.replace_in(transaction, item, expected, by)

    async def replace_in(
        self, transaction: Transaction, item: T, expected: int, by: Actor, also: rows.Detail | None = None
    ) -> T:
        """`replace` as part of `transaction`. `also`: what else its audit entry says."""
        key = self._checked(item)[self.kind.key]
        await self._open(transaction)
        old = await self._expect(transaction, key, expected)
        stamped = self._stamped(item, version=expected + 1, created_at=getattr(old, "created_at", 0))
        made = await self._admit(transaction, old, stamped)
        await transaction.connection.execute(
            update(self._table).where(*self._mine(self._key == key)).values(rows.encode(made))
        )
        detail = {**rows.describe(old, made), **(also or {})}
        await transaction.queue(self._org, f"{self.kind.noun}.update", key, by, detail)
        return made

    @uninterrupted
    async def delete(self, key: str, expected: int, by: Actor) -> None:
        async with self._database.write() as transaction:
            await self.delete_in(transaction, key, expected, by)

    async def delete_in(self, transaction: Transaction, key: str, expected: int, by: Actor) -> None:
        """`delete` as part of `transaction`."""
        await self._open(transaction)
        old = await self._expect(transaction, key, expected)
        await self._release(transaction, old)
        await transaction.connection.execute(delete(self._table).where(*self._mine(self._key == key)))
        await transaction.queue(self._org, f"{self.kind.noun}.delete", key, by, {"version": expected})

    async def _admit(self, transaction: Transaction, old: T | None, new: T) -> T:
        """Last checks before `new` is written, and what is written in the end."""
        return new

    async def _release(self, transaction: Transaction, old: T) -> None:
        """Last checks before `old` is deleted."""

    def _mine(self, *wanted: ColumnElement[bool]) -> tuple[ColumnElement[bool], ...]:
        return (self._table.c.org == self._org, *wanted)

    async def get_in(self, transaction: Transaction, key: str) -> T:
        """`get` as part of `transaction`."""
        return await self._find(transaction.connection, self._key == key, key)

    async def _find(self, connection: AsyncConnection, wanted: ColumnElement[bool], shown: str) -> T:
        row = None
        if rows.storable(shown):
            found = await connection.execute(select(self._table).where(*self._mine(wanted)))
            row = found.mappings().first()
        if row is None:
            raise NotFoundError(f"no {self.kind.noun} '{shown}'")
        return rows.decode(self.kind.type, row)

    async def _exists(self, transaction: Transaction, *wanted: ColumnElement[bool]) -> bool:
        found = await transaction.connection.execute(select(self._key).where(*self._mine(*wanted)).limit(1))
        return found.first() is not None

    async def _expect(self, transaction: Transaction, key: str, expected: int) -> T:
        old = await self._find(transaction.connection, self._key == key, key)
        current = rows.encode(old)["version"]
        if current != expected:
            raise VersionMismatchError(current)
        return old

    async def _open(self, transaction: Transaction) -> None:
        """The organization must exist; what its members may use changes only with kinds that are served."""
        if self.served:
            await transaction.touch(self._org)
            return
        found = await transaction.connection.execute(select(tables.orgs.c.id).where(tables.orgs.c.id == self._org))
        if found.first() is None:
            raise NotFoundError(f"no organization '{self._org}'")

    def _checked(self, item: T) -> dict[str, Any]:
        row = rows.encode(item)
        if row["org"] != self._org:
            raise InvalidItemError([("org", f"is not '{self._org}'")])
        faults = validate(item)
        if faults:
            raise InvalidItemError(faults)
        return row

    def _stamped(self, item: T, *, version: int, created_at: int) -> T:
        if "created_at" in self.kind.type.__struct_fields__:
            return structs.replace(item, version=version, created_at=created_at)
        return structs.replace(item, version=version)
