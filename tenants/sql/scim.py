"""What SCIM keeps, in SQL: each write is one transaction with the member or the team it is about."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import structs
from sqlalchemy import ColumnElement, Select, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from policies.facts import Role
from tenants.ids import MemberId, OrgId
from tenants.models import Member, State, Team
from tenants.scim import GroupChange, ScimGroup, ScimSettings, ScimUser, UserFacts, UserLookup
from tenants.sql import rows, tables
from tenants.sql.database import Database, Transaction, uninterrupted
from tenants.sql.dialect import contains
from tenants.sql.kinds import Members
from tenants.sql.scim_tables import scim_groups, scim_users
from tenants.sql.scim_tokens import SqlScimTokens
from tenants.sql.teams import Teams
from tenants.store import Actor, AlreadyExistsError, NotFoundError, VersionMismatchError

_MEMBERS = tables.members.c
_TEAMS = tables.teams.c
_IN = tables.team_members.c
_USERS = scim_users.c
_GROUPS = scim_groups.c


class SqlScimBook(SqlScimTokens):
    """`tenants.scim.ScimBook`."""

    def __init__(self, database: Database, org: OrgId, members: Members, teams: Teams) -> None:
        super().__init__(database, org)
        self._members = members
        self._teams = teams

    @uninterrupted
    async def user(self, member: MemberId) -> ScimUser:
        async with self._database.read() as connection:
            return await self._user(connection, member)

    @uninterrupted
    async def count_users(self) -> int:
        async with self._database.read() as connection:
            counted = select(func.count()).select_from(tables.members).where(_MEMBERS.org == self._org)
            return int((await connection.execute(counted)).scalar_one())

    @uninterrupted
    async def users(
        self, lookup: UserLookup, *, after: str = "", offset: int = 0, limit: int = 100
    ) -> tuple[ScimUser, ...]:
        if not all(map(rows.storable, (lookup.id, lookup.user_name, lookup.external_id, lookup.email))):
            return ()
        statement = self._joined().where(*self._wanted(lookup), _MEMBERS.id > after)
        async with self._database.read() as connection:
            return await self._found(connection, statement.order_by(_MEMBERS.id).offset(offset).limit(limit))

    @uninterrupted
    async def create_user(self, item: Member, facts: UserFacts, by: Actor) -> ScimUser:
        async with self._database.write() as transaction:
            await self._free(transaction, item.id, facts.user_name)
            made = await self._members.create_in(transaction, item, by)
            await self._keep(transaction, made, facts)
            return await self._user(transaction.connection, made.id)

    @uninterrupted
    async def replace_user(
        self, item: Member, facts: UserFacts, expected: int, changed: Sequence[str], by: Actor
    ) -> ScimUser:
        async with self._database.write() as transaction:
            await self._free(transaction, item.id, facts.user_name)
            made = await self._members.replace_in(transaction, item, expected, by, {"scim": list(changed)})
            await self._keep(transaction, made, facts)
            return await self._user(transaction.connection, made.id)

    @uninterrupted
    async def group(self, team: str) -> ScimGroup:
        async with self._database.read() as connection:
            return await self._group(connection, team)

    @uninterrupted
    async def groups(self) -> tuple[ScimGroup, ...]:
        async with self._database.read() as connection:
            found = await connection.execute(self._teams_joined().order_by(_TEAMS.name))
            return tuple(_group(row) for row in found.mappings())

    @uninterrupted
    async def members_of(self, teams: Collection[str]) -> Mapping[str, tuple[MemberId, ...]]:
        async with self._database.read() as connection:
            return await self._members_of(connection, teams)

    @uninterrupted
    async def create_group(self, change: GroupChange, roles: Collection[Role], by: Actor) -> ScimGroup:
        async with self._database.write() as transaction:
            made = await self._teams.create_in(transaction, change.team, by)
            await self._keep_group(transaction, made, change.external_id)
            await self._teams.join_in(transaction, made.name, change.join, by)
            for member in change.join if roles else ():
                await self._shift(transaction, member, roles, (), by)
            return await self._group(transaction.connection, made.name)

    @uninterrupted
    async def replace_group(
        self, change: GroupChange, expected: int, settings: ScimSettings, by: Actor
    ) -> tuple[ScimGroup, frozenset[MemberId]]:
        name = change.team.name
        async with self._database.write() as transaction:
            before = await self._group(transaction.connection, name)
            if before.team.version != expected:
                raise VersionMismatchError(before.team.version)
            made = before.team
            if change.team.title != made.title:
                made = await self._teams.replace_in(transaction, change.team, expected, by)
            if change.external_id != before.external_id:
                detail = {"changed": ["external_id"]}
                await transaction.queue(self._org, "team.update", name, by, detail)
            await self._keep_group(transaction, made, change.external_id)
            await self._teams.join_in(transaction, name, change.join, by)
            await self._teams.leave_in(transaction, name, change.leave, by)  # whoever had left already has left
            after = await self._group(transaction.connection, name)
            lost = await self._reassign(transaction, before, after, settings, by)
        return after, lost

    @uninterrupted
    async def delete_group(self, team: Team, settings: ScimSettings, by: Actor) -> frozenset[MemberId]:
        async with self._database.write() as transaction:
            before = await self._group(transaction.connection, team.name)
            await self._teams.delete_in(transaction, team.name, team.version, by)
            after = structs.replace(before, members=())
            return await self._reassign(transaction, before, after, settings, by)

    async def _reassign(
        self, transaction: Transaction, before: ScimGroup, after: ScimGroup, settings: ScimSettings, by: Actor
    ) -> frozenset[MemberId]:
        """Give and take the roles that being in a group brings. Who stays in a group that brings what it did
        is not touched: a role that somebody gave them by hand stays theirs."""
        brought, brings = settings.roles_of(before.display_name), settings.roles_of(after.display_name)
        was, now = set(before.members or ()), set(after.members or ())
        lost = set()
        touched = (was | now) if brought != brings else (was ^ now) if brings else ()
        for member in sorted(touched):
            gained = brings if member in now else frozenset()
            left = (brought if member in was else frozenset()) - gained
            if left:
                left -= await self._elsewhere(transaction, member, settings)
            if await self._shift(transaction, member, gained, left, by):
                lost.add(member)
        return frozenset(lost)

    async def _elsewhere(
        self, transaction: Transaction, member: MemberId, settings: ScimSettings
    ) -> frozenset[Role]:
        """What the groups that the member is in now bring."""
        statement = (
            select(_TEAMS.name, _TEAMS.title)
            .join(tables.team_members, and_(_IN.org == _TEAMS.org, _IN.team == _TEAMS.name))
            .where(_TEAMS.org == self._org, _IN.member == member)
        )
        found = await transaction.connection.execute(statement)
        return frozenset(role for name, title in found for role in settings.roles_of(title or name))

    async def _shift(
        self,
        transaction: Transaction,
        member: MemberId,
        gained: Collection[Role],
        left: Collection[Role],
        by: Actor,
    ) -> bool:
        """Whether the member lost a role. An owner's are never changed so; and one role stays to
        everybody."""
        if not gained and not left:
            return False
        current = await self._members.get_in(transaction, member)
        if Role.OWNER in current.roles:
            return False
        held = (set(current.roles) | set(gained)) - set(left)
        roles = tuple(role for role in Role if role in held) or (Role.MEMBER,)
        if set(roles) == set(current.roles):
            return False
        await self._members.replace_in(transaction, structs.replace(current, roles=roles), current.version, by)
        return bool(set(current.roles) - set(roles))

    async def _free(self, transaction: Transaction, member: MemberId, user_name: str) -> None:
        """A userName is one member's. Of whom SCIM has never written, it is the e-mail address."""
        statement = self._joined().where(self._named(user_name), _MEMBERS.id != member).limit(1)
        if (await transaction.connection.execute(statement)).first() is not None:
            raise AlreadyExistsError("another user has this userName")

    async def _keep(self, transaction: Transaction, member: Member, facts: UserFacts) -> None:
        values = {
            "user_name": facts.user_name,
            "user_name_key": rows.email_key(facts.user_name),
            "external_id": facts.external_id,
            "email_keys": _email_keys(facts.profile),
            "profile": rows.json_text(facts.profile),
            "modified_at": transaction.at,
            "seen": member.version,
        }
        mine = and_(_USERS.org == self._org, _USERS.member == member.id)
        changed = await transaction.connection.execute(update(scim_users).where(mine).values(values))
        if not changed.rowcount:
            key = {"org": self._org, "member": member.id}
            await transaction.connection.execute(insert(scim_users).values({**key, **values}))

    async def _keep_group(self, transaction: Transaction, team: Team, external_id: str) -> None:
        values = {"external_id": external_id, "modified_at": transaction.at}
        mine = and_(_GROUPS.org == self._org, _GROUPS.team == team.name)
        changed = await transaction.connection.execute(update(scim_groups).where(mine).values(values))
        if not changed.rowcount:
            key = {"org": self._org, "team": team.name}
            await transaction.connection.execute(insert(scim_groups).values({**key, **values}))

    def _joined(self) -> Select[Any]:
        kept = (_USERS.user_name, _USERS.external_id, _USERS.profile, _USERS.modified_at, _USERS.seen)
        both = and_(_USERS.org == _MEMBERS.org, _USERS.member == _MEMBERS.id)
        return (
            select(tables.members, *kept)
            .select_from(tables.members.outerjoin(scim_users, both))
            .where(_MEMBERS.org == self._org)
        )

    def _teams_joined(self) -> Select[Any]:
        both = and_(_GROUPS.org == _TEAMS.org, _GROUPS.team == _TEAMS.name)
        return (
            select(tables.teams, _GROUPS.external_id, _GROUPS.modified_at)
            .select_from(tables.teams.outerjoin(scim_groups, both))
            .where(_TEAMS.org == self._org)
        )

    def _named(self, user_name: str) -> ColumnElement[bool]:
        key = rows.email_key(user_name)
        return or_(_USERS.user_name_key == key, and_(_USERS.member.is_(None), _MEMBERS.email_key == key))

    def _wanted(self, lookup: UserLookup) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if lookup.id:
            found.append(_MEMBERS.id == lookup.id)
        if lookup.user_name:
            found.append(self._named(lookup.user_name))
        if lookup.external_id:
            found.append(_USERS.external_id == lookup.external_id)
        if lookup.email:
            key = rows.email_key(lookup.email)
            among = contains(_USERS.email_keys, f"\n{key}\n", self._database.dialect)
            found.append(or_(_MEMBERS.email_key == key, among))
        if lookup.active is not None:
            found.append(_MEMBERS.state == (State.ACTIVE if lookup.active else State.SUSPENDED).value)
        return found

    async def _user(self, connection: AsyncConnection, member: MemberId) -> ScimUser:
        found = await self._found(connection, self._joined().where(_MEMBERS.id == member))
        if not found:
            raise NotFoundError(f"no member '{member}'")
        return found[0]

    async def _found(self, connection: AsyncConnection, statement: Select[Any]) -> tuple[ScimUser, ...]:
        found = [_user(row) for row in (await connection.execute(statement)).mappings()]
        teams = await self._teams_of(connection, [one.member.id for one in found])
        return tuple(structs.replace(one, teams=tuple(teams.get(one.member.id, ()))) for one in found)

    async def _teams_of(self, connection: AsyncConnection, members: Sequence[str]) -> dict[str, list[Team]]:
        statement = (
            select(tables.teams, _IN.member)
            .join(tables.team_members, and_(_IN.org == _TEAMS.org, _IN.team == _TEAMS.name))
            .where(_TEAMS.org == self._org, _IN.member.in_(members))
            .order_by(_TEAMS.name)
        )
        found: dict[str, list[Team]] = {}
        for row in (await connection.execute(statement)).mappings() if members else ():
            found.setdefault(row["member"], []).append(rows.decode(Team, row))
        return found

    async def _group(self, connection: AsyncConnection, team: str) -> ScimGroup:
        row = None
        if rows.storable(team):
            row = (await connection.execute(self._teams_joined().where(_TEAMS.name == team))).mappings().first()
        if row is None:
            raise NotFoundError(f"no team '{team}'")
        members = await self._members_of(connection, [team])
        return structs.replace(_group(row), members=members.get(team, ()))

    async def _members_of(
        self, connection: AsyncConnection, teams: Collection[str]
    ) -> dict[str, tuple[MemberId, ...]]:
        statement = (
            select(_IN.team, _IN.member)
            .where(_IN.org == self._org, _IN.team.in_(list(teams)))
            .order_by(_IN.team, _IN.member)
        )
        found: dict[str, list[MemberId]] = {}
        for team, member in await connection.execute(statement) if teams else ():
            found.setdefault(team, []).append(MemberId(member))
        return {team: tuple(members) for team, members in found.items()}


def _email_keys(profile: Mapping[str, Any]) -> str:
    found = [rows.email_key(one["value"]) for one in profile.get("emails", ()) if "value" in one]
    return "\n".join(["", *found, ""])


def _user(row: Mapping[Any, Any]) -> ScimUser:
    member = rows.decode(Member, row)
    if row["user_name"] is None:
        return ScimUser(member, modified_at=member.created_at if member.version == 1 else 0)
    profile = msgspec.json.decode(row["profile"], type=dict[str, Any])
    facts = UserFacts(row["user_name"], row["external_id"], profile)
    return ScimUser(member, facts, row["modified_at"] if row["seen"] == member.version else 0)


def _group(row: Mapping[Any, Any]) -> ScimGroup:
    return ScimGroup(rows.decode(Team, row), row["external_id"] or "", row["modified_at"] or row["created_at"])
