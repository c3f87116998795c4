"""Teams and their members, in SQL."""

from __future__ import annotations

from msgspec import structs
from sqlalchemy import ColumnElement, delete, func, insert, select, update

from tenants.ids import MemberId
from tenants.models import LimitScope, Team, TeamMember
from tenants.sql import rows, statickeys, tables
from tenants.sql.database import Transaction, uninterrupted
from tenants.sql.naming import refuse_named
from tenants.sql.paging import page
from tenants.sql.repository import Kind, ScopedRepository
from tenants.store import Actor, InvalidReferenceError, NotFoundError

MOST_TEAMS = 32
"""Of one member: every token of theirs names them all."""


class Teams(ScopedRepository[Team]):
    """Not served to the data plane: a token says which teams its member is in."""

    kind = Kind("team", Team, tables.teams)
    served = False

    @uninterrupted
    async def members(self, team: str, *, after: str = "", limit: int = 100) -> tuple[tuple[TeamMember, ...], str]:
        await self.get(team)
        table = tables.team_members
        statement = select(table).where(*self._in(team))
        return await page(self._database, statement, TeamMember, table.c.member, after=after, limit=limit)

    @uninterrupted
    async def of(self, member: MemberId) -> tuple[str, ...]:
        table = tables.team_members
        async with self._database.read() as connection:
            found = await connection.execute(
                select(table.c.team)
                .where(table.c.org == self._org, table.c.member == member)
                .order_by(table.c.team)
            )
            return tuple(found.scalars())

    @uninterrupted
    async def add(self, team: str, member: MemberId, by: Actor) -> TeamMember:
        async with self._database.write() as transaction:
            return await self.add_in(transaction, team, member, by)

    async def add_in(self, transaction: Transaction, team: str, member: MemberId, by: Actor) -> TeamMember:
        """`add` as part of `transaction`."""
        table = tables.team_members
        await self._find(transaction.connection, self._key == team, team)
        found = await transaction.connection.execute(
            select(table).where(*self._in(team), table.c.member == member)
        )
        if (row := found.mappings().first()) is not None:
            return rows.decode(TeamMember, row)
        await self._may_join(transaction, member)
        made = TeamMember(self._org, team, member, transaction.at)
        await transaction.connection.execute(insert(table).values(rows.encode(made)))
        await statickeys.changed(transaction, self._org, member)
        await transaction.queue(self._org, "team.add_member", team, by, {"member": member})
        return made

    @uninterrupted
    async def set_lead(self, team: str, member: MemberId, by: Actor, *, lead: bool) -> TeamMember:
        table = tables.team_members
        async with self._database.write() as transaction:
            await self._find(transaction.connection, self._key == team, team)
            mine = (*self._in(team), table.c.member == member)
            row = (await transaction.connection.execute(select(table).where(*mine))).mappings().first()
            if row is None:
                raise NotFoundError(f"no member '{member}' in team '{team}'")
            found = rows.decode(TeamMember, row)
            if found.lead is lead:
                return found
            await transaction.connection.execute(update(table).where(*mine).values(lead=int(lead)))
            await transaction.queue(self._org, "team.set_lead", team, by, {"member": member, "lead": lead})
        return structs.replace(found, lead=lead)

    @uninterrupted
    async def membership(self, team: str, member: MemberId) -> TeamMember | None:
        table = tables.team_members
        if not rows.storable(team):
            return None
        async with self._database.read() as connection:
            found = await connection.execute(select(table).where(*self._in(team), table.c.member == member))
            row = found.mappings().first()
        return None if row is None else rows.decode(TeamMember, row)

    @uninterrupted
    async def memberships(self, member: MemberId) -> tuple[TeamMember, ...]:
        table = tables.team_members
        mine = (table.c.org == self._org, table.c.member == member)
        async with self._database.read() as connection:
            found = await connection.execute(select(table).where(*mine).order_by(table.c.team))
            return tuple(rows.decode(TeamMember, row) for row in found.mappings())

    @uninterrupted
    async def remove(self, team: str, member: MemberId, by: Actor) -> None:
        async with self._database.write() as transaction:
            await self.remove_in(transaction, team, member, by)

    async def remove_in(self, transaction: Transaction, team: str, member: MemberId, by: Actor) -> None:
        """`remove` as part of `transaction`."""
        table = tables.team_members
        await self._find(transaction.connection, self._key == team, team)
        gone = await transaction.connection.execute(delete(table).where(*self._in(team), table.c.member == member))
        if not gone.rowcount:
            raise NotFoundError(f"no member '{member}' in team '{team}'")
        await statickeys.changed(transaction, self._org, member)
        await transaction.queue(self._org, "team.remove_member", team, by, {"member": member})

    async def _may_join(self, transaction: Transaction, member: MemberId) -> None:
        people, table = tables.members, tables.team_members
        known = await transaction.connection.execute(
            select(people.c.id).where(people.c.org == self._org, people.c.id == member)
        )
        if known.first() is None:
            raise InvalidReferenceError(f"no member '{member}'")
        counted = await transaction.connection.execute(
            select(func.count()).where(table.c.org == self._org, table.c.member == member)
        )
        if counted.scalar_one() >= MOST_TEAMS:
            raise InvalidReferenceError(f"member '{member}' is in {MOST_TEAMS} teams, and that is the most")

    async def _release(self, transaction: Transaction, old: Team) -> None:
        await refuse_named(transaction, self._org, LimitScope.TEAM, old.name)
        table = tables.team_members
        found = await transaction.connection.execute(select(table.c.member).where(*self._in(old.name)))
        await statickeys.changed(transaction, self._org, *found.scalars())

    def _in(self, team: str) -> tuple[ColumnElement[bool], ...]:
        table = tables.team_members
        return (table.c.org == self._org, table.c.team == team)
