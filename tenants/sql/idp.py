"""`tenants.idp.IdentityProviderBook` in SQL."""

from __future__ import annotations

from hashlib import sha256

import msgspec
from msgspec import structs
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tenants.idp import IdentityProvider
from tenants.idprules import top_role
from tenants.ids import MemberId, OrgId
from tenants.models import State
from tenants.sql import rows, tables
from tenants.sql.database import Database, Transaction, uninterrupted
from tenants.sql.idp_tables import break_glass, identity_links, identity_providers
from tenants.store import Actor, InvalidItemError, InvalidReferenceError, NotFoundError, VersionMismatchError
from tenants.validate import validate

_ITEM = identity_providers
_LINKS = identity_links
_SHOWN = ("issuer", "client_id", "domains", "jit", "default_roles", "only", "emails_verified", "groups_claim")


class SqlIdentityProvider:
    """Every statement names the organization."""

    def __init__(self, database: Database, org: OrgId) -> None:
        self._database = database
        self._org = org

    @uninterrupted
    async def get(self) -> IdentityProvider | None:
        async with self._database.read() as connection:
            return await self._read(connection)

    @uninterrupted
    async def put(self, item: IdentityProvider, expected: int, by: Actor) -> IdentityProvider:
        if item.org != self._org:
            raise InvalidItemError([("org", f"is not '{self._org}'")])
        if faults := validate(item):
            raise InvalidItemError(faults)
        async with self._database.write() as transaction:
            run = transaction.connection.execute
            old = await self._expect(transaction, expected)
            await self._refer(transaction, item)
            same = old is not None and (old.issuer, old.client_id) == (item.issuer, item.client_id)
            set_at = old.set_at if old is not None and same else transaction.at
            made = structs.replace(item, set_at=set_at, version=expected + 1)
            values = {name: value for name, value in rows.encode(made).items() if name in _ITEM.c}
            await run(
                insert(_ITEM).values(values)
                if old is None
                else update(_ITEM).where(_ITEM.c.org == self._org).values(values)
            )
            await run(delete(break_glass).where(break_glass.c.org == self._org))
            for member in item.break_glass:
                await run(insert(break_glass).values(org=self._org, member=member))
            await transaction.queue(self._org, "idp.set", self._org, by, _told(old, made))
        return made

    @uninterrupted
    async def delete(self, expected: int, by: Actor) -> None:
        async with self._database.write() as transaction:
            if await self._expect(transaction, expected) is None:
                raise NotFoundError("no identity provider")
            for table in (_ITEM, _LINKS, break_glass):
                await transaction.connection.execute(delete(table).where(table.c.org == self._org))
            await transaction.queue(self._org, "idp.delete", self._org, by, {"version": expected})

    @uninterrupted
    async def linked(self, issuer: str, subject: str) -> MemberId | None:
        if not rows.storable(subject):
            return None
        mine = (_LINKS.c.org == self._org, _LINKS.c.issuer == _digest(issuer), _LINKS.c.subject == subject)
        async with self._database.read() as connection:
            found: str | None = (await connection.execute(select(_LINKS.c.member).where(*mine))).scalar()
        return None if found is None else MemberId(found)

    @uninterrupted
    async def link(self, issuer: str, subject: str, member: MemberId, by: Actor) -> bool:
        people = tables.members.c
        there = select(people.id).where(people.org == self._org, people.id == member)
        taken = select(_LINKS.c.member).where(
            _LINKS.c.org == self._org,
            _LINKS.c.issuer == _digest(issuer),
            (_LINKS.c.subject == subject) | (_LINKS.c.member == member),
        )
        async with self._database.write() as transaction:
            if (await transaction.connection.execute(there)).first() is None:
                raise NotFoundError(f"no member '{member}'")
            if (await transaction.connection.execute(taken)).first() is not None:
                return False
            values = {"issuer": _digest(issuer), "subject": subject, "linked_at": transaction.at}
            await transaction.connection.execute(insert(_LINKS).values(org=self._org, member=member, **values))
            # Who they are there is a person's own, and is not written down.
            await transaction.queue(self._org, "member.link", member, by, {"issuer": issuer})
        return True

    @uninterrupted
    async def unlink(self, member: MemberId, by: Actor) -> None:
        mine = (_LINKS.c.org == self._org, _LINKS.c.member == member)
        async with self._database.write() as transaction:
            gone = None
            if rows.storable(member):
                gone = await transaction.connection.execute(delete(_LINKS).where(*mine))
            if gone is None or gone.rowcount == 0:
                raise NotFoundError(f"member '{member}' is not linked")
            await transaction.queue(self._org, "member.unlink", member, by, {})

    @uninterrupted
    async def is_linked(self, member: MemberId) -> bool:
        mine = (_LINKS.c.org == self._org, _LINKS.c.member == member)
        async with self._database.read() as connection:
            return (await connection.execute(select(_LINKS.c.member).where(*mine).limit(1))).first() is not None

    async def _read(self, connection: AsyncConnection) -> IdentityProvider | None:
        row = (await connection.execute(select(_ITEM).where(_ITEM.c.org == self._org))).mappings().first()
        if row is None:
            return None
        glass = select(break_glass.c.member).where(break_glass.c.org == self._org)
        found = (await connection.execute(glass.order_by(break_glass.c.member))).scalars()
        return rows.decode(IdentityProvider, {**row, "break_glass": rows.json_text(list(found))})

    async def _expect(self, transaction: Transaction, expected: int) -> IdentityProvider | None:
        living = select(tables.orgs.c.id).where(tables.orgs.c.id == self._org)
        if (await transaction.connection.execute(living)).first() is None:
            raise NotFoundError(f"no organization '{self._org}'")
        old = await self._read(transaction.connection)
        current = 0 if old is None else old.version
        if current != expected:
            raise VersionMismatchError(current)
        return old

    async def _refer(self, transaction: Transaction, item: IdentityProvider) -> None:
        teams, people = tables.teams.c, tables.members.c
        run = transaction.connection.execute
        known = set((await run(select(teams.name).where(teams.org == self._org))).scalars())
        for one in item.group_teams:
            if one.team not in known:
                raise InvalidReferenceError(f"no team '{one.team}'")
        for member in item.break_glass:
            wanted = select(people.roles).where(
                people.org == self._org, people.id == member, people.state == State.ACTIVE.value
            )
            roles: str | None = (await run(wanted)).scalar()
            top = top_role(self._org)
            if roles is None or top not in msgspec.json.decode(roles):
                raise InvalidReferenceError(f"member '{member}' is no active {top}")


def _told(old: IdentityProvider | None, new: IdentityProvider) -> rows.Detail:
    """What the audit entry says: the names of what changed, and the values of what decides who gets in."""
    detail = dict(rows.describe(old, new))
    shown = {name: value for name, value in detail.items() if name in _SHOWN}
    changed = [name for name in detail if name not in ("changed", "set_at")] if old is None else detail["changed"]
    said = {"changed": [str(name) for name in changed if name != "set_at"]} if isinstance(changed, list) else {}
    return {**said, **shown, "version": new.version}


def _digest(issuer: str) -> str:
    return sha256(issuer.encode()).hexdigest()
