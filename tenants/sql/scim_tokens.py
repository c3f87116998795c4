"""SCIM tokens and settings in SQL. Of a token its digest is here, and nothing that could be used."""

from __future__ import annotations

from msgspec import structs
from sqlalchemy import ColumnElement, delete, func, insert, select, update

from tenants.ids import PLATFORM, OrgId
from tenants.scim import DAY_S, MOST_DAYS, MOST_TOKENS, USED_EVERY_S, ScimSettings, ScimToken, settings_faults
from tenants.sql import orgs, rows
from tenants.sql.database import Database, Transaction, uninterrupted
from tenants.sql.scim_tables import scim_settings, scim_tokens
from tenants.store import Actor, InUseError, InvalidItemError, NotFoundError, VersionMismatchError

_TOKENS = scim_tokens.c
KEPT_S = 90 * DAY_S
"""How long a token that has expired is still listed."""


class SqlScimTokens:
    """The part of `tenants.scim.ScimBook` that decides who may speak SCIM to an organization, and how far."""

    def __init__(self, database: Database, org: OrgId) -> None:
        self._database = database
        self._org = org

    @uninterrupted
    async def tokens(self) -> tuple[ScimToken, ...]:
        statement = select(scim_tokens).where(_TOKENS.org == self._org)
        async with self._database.read() as connection:
            found = await connection.execute(statement.order_by(_TOKENS.created_at, _TOKENS.id))
            return tuple(rows.decode(ScimToken, row) for row in found.mappings())

    @uninterrupted
    async def add_token(self, token: ScimToken, digest: str, by: Actor) -> ScimToken:
        async with self._database.write() as transaction:
            await orgs.find(transaction.connection, self._org)
            made = structs.replace(token, org=self._org, created_at=transaction.at, used_at=0)
            if faults := _faults(made):
                raise InvalidItemError(faults)
            await self._make_room(transaction)
            await transaction.connection.execute(insert(scim_tokens).values(**rows.encode(made), digest=digest))
            detail: rows.Detail = {"name": made.name, "expires_at": made.expires_at}
            await transaction.queue(self._org, "scim_token.create", made.id, by, detail)
        return made

    async def _make_room(self, transaction: Transaction) -> None:
        connection, now = transaction.connection, transaction.at
        await connection.execute(delete(scim_tokens).where(*self._mine(_TOKENS.expires_at < now - KEPT_S)))
        alive = select(func.count()).select_from(scim_tokens).where(*self._mine(_TOKENS.expires_at > now))
        if int((await connection.execute(alive)).scalar_one()) >= MOST_TOKENS:
            raise InUseError(f"an organization has {MOST_TOKENS} SCIM tokens at most: revoke one first")

    @uninterrupted
    async def token(self, digest: str) -> ScimToken | None:
        alive = self._mine(_TOKENS.digest == digest, _TOKENS.expires_at > int(self._database.clock()))
        async with self._database.read() as connection:
            row = (await connection.execute(select(scim_tokens).where(*alive))).mappings().first()
        return None if row is None else rows.decode(ScimToken, row)

    @uninterrupted
    async def used(self, token: ScimToken) -> None:
        """To the minute: a provider that asks a thousand times a minute writes once."""
        now = int(self._database.clock())
        if now - token.used_at < USED_EVERY_S:
            return
        async with self._database.write(tell=False) as transaction:
            mine = self._mine(_TOKENS.id == token.id, _TOKENS.used_at < now)
            await transaction.connection.execute(update(scim_tokens).where(*mine).values(used_at=now))

    @uninterrupted
    async def revoke_token(self, key: str, by: Actor) -> None:
        async with self._database.write() as transaction:
            gone = None
            if rows.storable(key):
                mine = self._mine(_TOKENS.id == key)
                gone = await transaction.connection.execute(delete(scim_tokens).where(*mine))
            if gone is None or not gone.rowcount:
                raise NotFoundError(f"no SCIM token '{key}'")
            await transaction.queue(self._org, "scim_token.delete", key, by, {})

    @uninterrupted
    async def settings(self) -> ScimSettings:
        async with self._database.read() as connection:
            found = await connection.execute(select(scim_settings).where(scim_settings.c.org == self._org))
            row = found.mappings().first()
        return ScimSettings(self._org) if row is None else rows.decode(ScimSettings, row)

    @uninterrupted
    async def put_settings(self, item: ScimSettings, expected: int, by: Actor) -> ScimSettings:
        if faults := settings_faults(item):
            raise InvalidItemError(faults)
        mine = scim_settings.c.org == self._org
        async with self._database.write() as transaction:
            await orgs.find(transaction.connection, self._org)
            connection = transaction.connection
            version = await connection.scalar(select(scim_settings.c.version).where(mine)) or 0
            if version != expected:
                raise VersionMismatchError(version)
            made = structs.replace(item, org=self._org, version=version + 1)
            if version:
                await connection.execute(update(scim_settings).where(mine).values(rows.encode(made)))
            else:
                await connection.execute(insert(scim_settings).values(rows.encode(made)))
            roles = [f"{one.group}={one.role}" for one in made.group_roles]
            await transaction.queue(
                self._org, "scim.update", self._org, by, {"owners": made.owners, "group_roles": roles}
            )
        return made

    def _mine(self, *wanted: ColumnElement[bool]) -> tuple[ColumnElement[bool], ...]:
        return (_TOKENS.org == self._org, *wanted)


def _faults(token: ScimToken) -> list[tuple[str, str]]:
    faults = []
    if token.org == PLATFORM:
        faults.append(("org", "is the platform's own: operators are no directory's to manage"))
    if len(token.name) > 100 or not token.name.isprintable():
        faults.append(("name", "is at most 100 printable characters"))
    if not token.created_at < token.expires_at <= token.created_at + MOST_DAYS * DAY_S:
        faults.append(("days", f"are 1 to {MOST_DAYS}"))
    return faults
