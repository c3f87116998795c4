"""`tenants.store.ControlStore` over SQL. Trusted: whoever can write the database decides for every org."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tenants.clients import org_of
from tenants.ids import OrgId, is_service_id
from tenants.models import Revocation
from tenants.snapshot import TenantRecord
from tenants.sql import orgs, rows, tables
from tenants.sql.auditdays import SqlAuditDays
from tenants.sql.budgets import SqlBudgetBook, SqlWebhookBook
from tenants.sql.clients import Clients
from tenants.sql.database import Database, uninterrupted
from tenants.sql.dialect import CONNECTIONS, create_engine, sqlite_url
from tenants.sql.idp import SqlIdentityProvider
from tenants.sql.keybook import SqlKeyBook
from tenants.sql.kinds import Limits, Members, Models, Rules, Upstreams
from tenants.sql.persons import SqlPersonBook
from tenants.sql.prices import Prices
from tenants.sql.refusals import SqlRefusals
from tenants.sql.repository import ScopedRepository, T
from tenants.sql.scim import SqlScimBook
from tenants.sql.services import Services
from tenants.sql.statickeys import StaticKeys
from tenants.sql.streams import AuditStreams, SqlStreamBook
from tenants.sql.teams import Teams
from tenants.sql.trusts import Trusts
from tenants.store import Actor, Change, InvalidItemError, InvalidQueryError

__all__ = ["SqlControlStore", "SqlOrgStore", "open_store", "sqlite_url"]


async def open_store(
    url: str,
    *,
    clock: Callable[[], float] = time.time,
    busy_timeout_ms: int = 5_000,
    password: Callable[[], str] | None = None,
    connections: int = CONNECTIONS,
) -> SqlControlStore:
    """Open the database at `url`: `sqlite:PATH`, making the file, the tables and the platform's org if missing; or
    `postgresql://ROLE@HOST/DATABASE`, whose tables are there and not the role's. `connections`: at most so many.

    Errors: `NewerSchemaError`; `ServerAwayError` when the server cannot be reached; `StoreUnavailableError` when
    it cannot be opened, is no database, stays locked for `busy_timeout_ms`, or the role may do more than serve.
    """
    engine = create_engine(url, busy_timeout_ms=busy_timeout_ms, password=password, connections=connections)
    database = Database(engine, clock)
    store = SqlControlStore(database)
    try:
        await database.create_schema()
        await store.orgs.create_platform()
    except BaseException:
        await store.close()
        raise
    return store


class SqlOrgStore:
    """One organization's part: each repository was made for this org and knows no other."""

    def __init__(self, database: Database, org: OrgId) -> None:
        self._database = database
        self._org = org
        self._members = Members(database, org)
        self._teams = Teams(database, org)
        self._upstreams = Upstreams(database, org)
        self._models = Models(database, org)
        self._limits = Limits(database, org)
        self._rules = Rules(database, org)
        self._prices = Prices(database, org)
        self._audit_streams = AuditStreams(database, org)
        self._idp = SqlIdentityProvider(database, org)
        self._static_keys = StaticKeys(database, org)
        self._clients = Clients(database, org)
        self._services = Services(database, org)
        self._trusts = Trusts(database, org)
        self._scim = SqlScimBook(database, org, self._members, self._teams)

    @property
    def org(self) -> OrgId:
        return self._org

    @property
    def members(self) -> Members:
        return self._members

    @property
    def teams(self) -> Teams:
        return self._teams

    @property
    def upstreams(self) -> Upstreams:
        return self._upstreams

    @property
    def models(self) -> Models:
        return self._models

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def rules(self) -> Rules:
        return self._rules

    @property
    def audit_streams(self) -> AuditStreams:
        return self._audit_streams

    @property
    def clients(self) -> Clients:
        return self._clients

    @property
    def services(self) -> Services:
        return self._services

    @property
    def trusts(self) -> Trusts:
        return self._trusts

    @property
    def idp(self) -> SqlIdentityProvider:
        return self._idp

    @property
    def prices(self) -> Prices:
        return self._prices

    @property
    def scim(self) -> SqlScimBook:
        return self._scim

    @property
    def static_keys(self) -> StaticKeys:
        return self._static_keys

    @uninterrupted
    async def record(self) -> TenantRecord:
        async with self._database.read() as connection:
            return TenantRecord(
                org=await orgs.find(connection, self._org),
                upstreams=await self._all(connection, self._upstreams),
                models=await self._all(connection, self._models),
                limits=await self._all(connection, self._limits),
                rules=await self._all(connection, self._rules),
                prices=await self._prices.of_record(connection),
                static_keys=await self._static_keys.served(connection, self._database.clock()),
            )

    async def _all(self, connection: AsyncConnection, repository: ScopedRepository[T]) -> tuple[T, ...]:
        kind = repository.kind
        found = await connection.execute(
            select(kind.table).where(kind.table.c.org == self._org).order_by(kind.table.c[kind.key])
        )
        return tuple(rows.decode(kind.type, row) for row in found.mappings())

    @uninterrupted
    async def revoke(self, revocation: Revocation, by: Actor) -> None:
        if revocation.org != self._org:
            raise InvalidItemError([("org", f"is not '{self._org}'")])
        async with self._database.write() as transaction:
            await orgs.find(transaction.connection, self._org)
            of_client = bool(org_of(revocation.member))
            if revocation.member and not revocation.token_id and not of_client:
                who = self._services if is_service_id(revocation.member) else self._members
                await who.bar(transaction, revocation.member, revocation.not_before)
            await transaction.revoke(revocation)
            whose = "client" if of_client else "member" if revocation.member else "org"
            if is_service_id(revocation.member):
                whose = "service"
            noun = "token" if revocation.token_id else whose
            target = revocation.token_id or revocation.member or self._org
            await transaction.queue(self._org, f"{noun}.revoke", target, by, {"not_before": revocation.not_before})

    @uninterrupted
    async def note(self, action: str, target: str, by: Actor, detail: rows.Detail) -> None:
        """Works for an organization that is gone too: what was tried on it is worth an entry."""
        async with self._database.write() as transaction:
            await transaction.queue(self._org, action, target, by, detail)


class SqlControlStore:
    """The whole of it. `engine` is there for stores with tables of their own in the same database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._orgs = orgs.OrgRepository(database)
        self._keys = SqlKeyBook(database)
        self._budgets = SqlBudgetBook(database)
        self._webhooks = SqlWebhookBook(database)
        self._persons = SqlPersonBook(database)
        self._audit_days = SqlAuditDays(database)
        self._streams = SqlStreamBook(database)
        self._refusals = SqlRefusals(database)
        self._streams = SqlStreamBook(database)

    @property
    def engine(self) -> AsyncEngine:
        """Transactions on it begin with the write lock, but for those with the options `dialect.READ_ONLY`."""
        return self._database.engine

    def for_org(self, org: OrgId) -> SqlOrgStore:
        return SqlOrgStore(self._database.of(org), org)

    @property
    def orgs(self) -> orgs.OrgRepository:
        return self._orgs

    @property
    def keys(self) -> SqlKeyBook:
        return self._keys

    @property
    def budgets(self) -> SqlBudgetBook:
        return self._budgets

    @property
    def webhooks(self) -> SqlWebhookBook:
        return self._webhooks

    @property
    def persons(self) -> SqlPersonBook:
        return self._persons

    @property
    def refusals(self) -> SqlRefusals:
        return self._refusals

    @property
    def streams(self) -> SqlStreamBook:
        return self._streams

    @property
    def audit_days(self) -> SqlAuditDays:
        return self._audit_days

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` (quick, never raises) after each committed write but `outbox_done`.

        Returns what ends it.
        """
        return self._database.subscribe(callback)

    def tell(self) -> None:
        """Another process has committed: whoever subscribed is called."""
        self._database.tell()

    @uninterrupted
    async def version(self) -> int:
        async with self._database.read() as connection:
            return await _version(connection)

    @uninterrupted
    async def changed_since(self, version: int) -> tuple[int, tuple[OrgId, ...], tuple[OrgId, ...]]:
        living, buried = tables.orgs, tables.tombstones
        async with self._database.read() as connection:
            now = await _version(connection)
            changed = await connection.execute(
                select(living.c.id).where(living.c.touched > version).order_by(living.c.id)
            )
            removed = await connection.execute(
                select(buried.c.org).where(buried.c.removed_in > version).order_by(buried.c.org)
            )
            return now, tuple(map(OrgId, changed.scalars())), tuple(map(OrgId, removed.scalars()))

    @uninterrupted
    async def revocations(self, now: int) -> tuple[Revocation, ...]:
        table = tables.revocations
        async with self._database.read() as connection:
            found = await connection.execute(
                select(table)
                .where(table.c.expires_at > now)
                .order_by(table.c.org, table.c.member, table.c.token_id)
            )
            return tuple(rows.decode(Revocation, row) for row in found.mappings())

    @uninterrupted
    async def outbox(self, limit: int = 500) -> tuple[Change, ...]:
        if limit < 1:
            raise InvalidQueryError("limit", "is at least 1")
        table = tables.outbox
        async with self._database.read() as connection:
            found = await connection.execute(select(table).order_by(table.c.seq).limit(limit))
            return tuple(_change(row) for row in found.mappings())

    @uninterrupted
    async def outbox_done(self, upto: int) -> None:
        table = tables.outbox
        async with self._database.write(tell=False) as transaction:
            await transaction.connection.execute(delete(table).where(table.c.seq <= upto))

    async def close(self) -> None:
        await self._database.engine.dispose()


async def _version(connection: AsyncConnection) -> int:
    return int((await connection.execute(select(tables.counters.c.version))).scalar_one())


def _change(row: Mapping[Any, Any]) -> Change:
    values = {name: row[name] for name in Change.__struct_fields__}
    values |= {name: msgspec.json.decode(values[name]) for name in ("actor", "detail")}
    return msgspec.convert(values, Change)
