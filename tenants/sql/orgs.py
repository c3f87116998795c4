"""The organizations themselves: the one repository that is not within one."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from policies.rules import starting_rules
from tenants.ids import PLATFORM, OrgId
from tenants.models import Org, OrgRule, State
from tenants.revocations import revoke_tokens
from tenants.sql import rows, statickeys, tables
from tenants.sql.database import SYSTEM, Database, Transaction, uninterrupted
from tenants.sql.dialect import contains
from tenants.sql.paging import conditions, page
from tenants.store import (
    Actor,
    AlreadyExistsError,
    InUseError,
    InvalidItemError,
    NotFoundError,
    VersionMismatchError,
)
from tenants.validate import validate

_TABLE = tables.orgs
_OWNED = (
    tables.upstream_keys,
    tables.budget_uses,
    tables.budget_notices,
    tables.webhooks,
    tables.audit_stream_places,
    tables.audit_streams,
    tables.prices,
    tables.price_imports,
    tables.models,
    tables.upstreams,
    tables.limits,
    tables.rules,
    statickeys.static_keys,
    tables.members,
    tables.revocations,
)


class OrgRepository:
    """`tenants.store.Repository[Org]`. Its key is the organization's id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @uninterrupted
    async def get(self, key: str) -> Org:
        async with self._database.read() as connection:
            return await find(connection, OrgId(key))

    @uninterrupted
    async def page(
        self, *, after: str = "", limit: int = 100, filters: Mapping[str, str] | None = None
    ) -> tuple[tuple[Org, ...], str]:
        wanted = conditions(Org, _TABLE, filters, self._database.dialect)
        statement = select(_TABLE).where(*wanted)
        return await page(self._database, statement, Org, _TABLE.c.id, after=after, limit=limit)

    @uninterrupted
    async def create(self, item: Org, by: Actor) -> Org:
        _check(item)
        async with self._database.write() as transaction:
            await self._create(transaction, item, by)
        return structs.replace(item, version=1, created_at=transaction.at)

    @uninterrupted
    async def create_platform(self) -> None:
        """The operators' organization, at the first start."""
        async with self._database.read() as connection:
            if await _taken(connection, PLATFORM):
                return
        async with self._database.write() as transaction:
            if not await _taken(transaction.connection, PLATFORM):
                await self._create(transaction, Org(id=PLATFORM, name="Platform"), SYSTEM)

    @uninterrupted
    async def replace(self, item: Org, expected: int, by: Actor) -> Org:
        _check(item)
        async with self._database.write() as transaction:
            old = await _expect(transaction, item.id, expected)
            made = structs.replace(item, version=expected + 1, created_at=old.created_at)
            await self._hosts_free(transaction, made)
            await transaction.touch(item.id)
            await transaction.connection.execute(
                update(_TABLE).where(_TABLE.c.id == item.id).values(rows.encode(made))
            )
            if old.state is State.ACTIVE and made.state is not State.ACTIVE:
                await transaction.revoke(revoke_tokens(item.id, transaction.now))
                await statickeys.end(transaction, item.id)
            elif old.personal_tokens and not made.personal_tokens:
                await statickeys.end(transaction, item.id)
            await transaction.queue(item.id, "org.update", item.id, by, rows.describe(old, made))
        return made

    @uninterrupted
    async def delete(self, key: str, expected: int, by: Actor) -> None:
        """Deletes all it has but its queued changes. A tombstone keeps the id taken, so that whoever comes
        later can never be mistaken for whom an old token, path or audit log belonged to."""
        org = OrgId(key)
        if org == PLATFORM:
            raise InUseError("the platform's own organization cannot be deleted")
        async with self._database.write() as transaction:
            old = await _expect(transaction, org, expected)
            if old.audit_hold:
                raise InUseError("its audit log is under a legal hold: clear that first")
            for table in _OWNED:
                await transaction.connection.execute(delete(table).where(table.c.org == org))
            await transaction.connection.execute(delete(_TABLE).where(_TABLE.c.id == org))
            await transaction.connection.execute(
                insert(tables.tombstones).values(
                    org=org, removed_at=transaction.at, removed_in=transaction.raise_version()
                )
            )
            await transaction.revoke(revoke_tokens(org, transaction.now))
            await transaction.queue(org, "org.delete", org, by, {"version": expected})

    async def _create(self, transaction: Transaction, item: Org, by: Actor) -> None:
        if await _taken(transaction.connection, item.id):
            raise AlreadyExistsError(f"organization '{item.id}' exists already, or did once")
        await self._hosts_free(transaction, item)
        made = structs.replace(item, version=1, created_at=transaction.at)
        await transaction.connection.execute(
            insert(_TABLE).values(**rows.encode(made), touched=transaction.raise_version())
        )
        first = () if item.id == PLATFORM else starting_rules()
        for rule in first:
            stored = OrgRule(
                org=item.id,
                name=rule.id,
                effect=rule.effect,
                roles=rule.roles,
                actions=rule.actions,
                models=rule.models,
            )
            await transaction.connection.execute(insert(tables.rules).values(rows.encode(stored)))
        detail = {**rows.describe(None, made), "rules": [rule.id for rule in first]}
        await transaction.queue(item.id, "org.create", item.id, by, detail)

    async def _hosts_free(self, transaction: Transaction, item: Org) -> None:
        """A host name narrows to one organization: claimed by a second, it would shut the first one out."""
        for host in item.hosts:
            claimed = contains(_TABLE.c.hosts, rows.json_text(host), self._database.dialect)
            found = await transaction.connection.execute(
                select(_TABLE.c.id).where(claimed, _TABLE.c.id != item.id).limit(1)
            )
            if found.first() is not None:
                raise AlreadyExistsError(f"host '{host}' is taken")


async def find(connection: AsyncConnection, org: OrgId) -> Org:
    """The organization, or `NotFoundError`."""
    row = None
    if rows.storable(org):
        row = (await connection.execute(select(_TABLE).where(_TABLE.c.id == org))).mappings().first()
    if row is None:
        raise NotFoundError(f"no organization '{org}'")
    return rows.decode(Org, row)


async def _taken(connection: AsyncConnection, org: OrgId) -> bool:
    living = await connection.execute(select(_TABLE.c.id).where(_TABLE.c.id == org))
    buried = await connection.execute(select(tables.tombstones.c.org).where(tables.tombstones.c.org == org))
    return living.first() is not None or buried.first() is not None


async def _expect(transaction: Transaction, org: OrgId, expected: int) -> Org:
    old = await find(transaction.connection, org)
    if old.version != expected:
        raise VersionMismatchError(old.version)
    return old


def _check(item: Org) -> None:
    faults = validate(item)
    if faults:
        raise InvalidItemError(faults)
