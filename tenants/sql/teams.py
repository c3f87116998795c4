"""Teams and their members, in SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
BATCH = 500


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
        table = tables.team_members
        async with self._database.write() as transaction:
            await self.join_in(transaction, team, (member,), by)
            found = await transaction.connection.execute(
                select(table).where(*self._in(team), table.c.member == member)
            )
            return rows.decode(TeamMember, found.mappings().one())

    async def join_in(self, transaction: Transaction, team: str, members: Sequence[MemberId], by: Actor) -> None:
        """`add` of each, as part of `transaction`."""
        await self._find(transaction.connection, self._key == team, team)
        for some in _batches(members):
            present = await self._present(transaction, team, some)
            new = [member for member in dict.fromkeys(some) if member not in present]
            if not new:
                continue
            await self._may_join(transaction, new)
            made = [rows.encode(TeamMember(self._org, team, member, transaction.at)) for member in new]
            await transaction.connection.execute(insert(tables.team_members), made)
            await statickeys.changed(transaction, self._org, *new)
            details = [{"member": member} for member in new]
            await transaction.queue(self._org, "team.add_member", team, by, *details)

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
            if not await self.leave_in(transaction, team, (member,), by):
                raise NotFoundError(f"no member '{member}' in team '{team}'")

    async def leave_in(self, transaction: Transaction, team: str, members: Sequence[MemberId], by: Actor) -> int:
        """`remove` of each that is in it, as part of `transaction`; how many those were."""
        await self._find(transaction.connection, self._key == team, team)
        left = 0
        for some in _batches(members):
            present = await self._present(transaction, team, some)
            gone = [member for member in some if member in present]
            if not gone:
                continue
            mine = (*self._in(team), tables.team_members.c.member.in_(gone))
            await transaction.connection.execute(delete(tables.team_members).where(*mine))
            await statickeys.changed(transaction, self._org, *gone)
            details = [{"member": member} for member in gone]
            await transaction.queue(self._org, "team.remove_member", team, by, *details)
            left += len(gone)
        return left

    async def _present(self, transaction: Transaction, team: str, members: Sequence[MemberId]) -> set[str]:
        table = tables.team_members
        found = await transaction.connection.execute(
            select(table.c.member).where(*self._in(team), table.c.member.in_(members))
        )
        return set(found.scalars())

    async def _may_join(self, transaction: Transaction, members: Sequence[MemberId]) -> None:
        people, table = tables.members.c, tables.team_members.c
        found = await transaction.connection.execute(
            select(people.id).where(people.org == self._org, people.id.in_(members))
        )
        known = set(found.scalars())
        for member in members:
            if member not in known:
                raise InvalidReferenceError(f"no member '{member}'")
        full = await transaction.connection.execute(
            select(table.member)
            .where(table.org == self._org, table.member.in_(members))
            .group_by(table.member)
            .having(func.count() >= MOST_TEAMS)
            .limit(1)
        )
        if (most := full.scalar()) is not None:
            raise InvalidReferenceError(f"member '{most}' is in {MOST_TEAMS} teams, and that is the most")

    async def _release(self, transaction: Transaction, old: Team) -> None:
        await refuse_named(transaction, self._org, LimitScope.TEAM, old.name)
        table = tables.team_members
        found = await transaction.connection.execute(select(table.c.member).where(*self._in(old.name)))
        await statickeys.changed(transaction, self._org, *found.scalars())

    def _in(self, team: str) -> tuple[ColumnElement[bool], ...]:
        table = tables.team_members
        return (table.c.org == self._org, table.c.team == team)


def _batches(members: Sequence[MemberId]) -> Iterator[Sequence[MemberId]]:
    """As many at a time as a statement may name."""
    for start in range(0, len(members), BATCH):
        yield members[start : start + BATCH]
