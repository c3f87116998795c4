"""`tenants.persons.PersonBook` over SQL, in tables that the data plane never reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Column, String, delete, insert, or_, select

from tenants.ids import OrgId
from tenants.persons import Person, WaitingError, WrappedDataKey
from tenants.sql import rows, tables
from tenants.sql.database import Database, Transaction, uninterrupted
from tenants.sql.dialect import contains, scrub, unavailable
from tenants.store import Actor, InUseError, NotFoundError

LATE_S: Final = 86_400
"""How long it is known that somebody was erased: a spool that was away longer comes from another life."""

_AT_ONCE: Final = 500
"""Bound variables of one statement; SQLite has had room for 999 since ever."""

_CONFIGURED: Final = frozenset(
    table.name
    for table in (
        tables.members,
        tables.upstreams,
        tables.upstream_keys,
        tables.models,
        tables.limits,
        tables.rules,
        tables.revocations,
        tables.outbox,
        tables.persons,
    )
)
"""Tables that a person is not deleted from by the way: it was asked before that they are in none, or they have to
stay in it for a while (`held_until`)."""

_keys, _people, _gone = tables.data_keys, tables.persons, tables.erased_persons


class SqlPersonBook:
    """Every statement names the organization, but for `any_data_key`, `purge` and `scrub`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @uninterrupted
    async def data_key(self, org: OrgId) -> WrappedDataKey | None:
        return await self._one_key(_keys.c.org == org)

    @uninterrupted
    async def any_data_key(self) -> WrappedDataKey | None:
        return await self._one_key()

    @uninterrupted
    async def add_data_key(self, item: WrappedDataKey) -> WrappedDataKey:
        async with self._database.of(item.org).write(tell=False) as transaction:
            found = await transaction.connection.execute(select(_keys).where(_keys.c.org == item.org))
            row = found.mappings().first()
            if row is not None:
                return rows.decode(WrappedDataKey, row)
            await transaction.connection.execute(insert(_keys).values(rows.encode(item)))
        return item

    @uninterrupted
    async def by_finder(self, org: OrgId, finders: Collection[str]) -> tuple[Person, ...]:
        return await self._people(org, _people.c.finder, finders)

    @uninterrupted
    async def by_id(self, org: OrgId, ids: Collection[str]) -> tuple[Person, ...]:
        return await self._people(org, _people.c.id, ids)

    @uninterrupted
    async def page(self, org: OrgId, *, after: str = "", limit: int = 100) -> tuple[tuple[Person, ...], str]:
        wanted = select(_people).where(_people.c.org == org, _people.c.id > after)
        async with self._database.of(org).read() as connection:
            found = (await connection.execute(wanted.order_by(_people.c.id).limit(limit + 1))).mappings().all()
        items = tuple(rows.decode(Person, row) for row in found[:limit])
        return items, items[-1].id if len(found) > limit else ""

    @uninterrupted
    async def erased(self, org: OrgId, finders: Collection[str]) -> frozenset[str]:
        found: set[str] = set()
        async with self._database.of(org).read() as connection:
            for some in _parts(finders):
                statement = select(_gone.c.finder).where(_gone.c.org == org, _gone.c.finder.in_(some))
                found.update((await connection.execute(statement)).scalars())
        return frozenset(found)

    @uninterrupted
    async def add(self, persons: Sequence[Person]) -> None:
        if persons:
            async with self._database.write(tell=False) as transaction:
                await transaction.connection.execute(insert(_people), [rows.encode(one) for one in persons])

    @uninterrupted
    async def erase(self, org: OrgId, member: str, finder: str, by: Actor) -> str:
        mine = (_people.c.org == org, _people.c.finder == finder)
        gone = (_gone.c.org == org, _gone.c.finder == finder)
        async with self._database.write() as transaction:
            run = transaction.connection.execute
            person: str | None = (await run(select(_people.c.id).where(*mine))).scalar()
            if person is None and (await run(select(_gone.c.finder).where(*gone))).first() is not None:
                return ""
            await _refuse_what_holds(
                transaction, org, member, self._database.dialect, everywhere=person is not None
            )
            if person is None:
                raise NotFoundError("nobody of that id is in this organization's log")
            await _forget(transaction, org, member)
            await run(delete(_people).where(*mine))
            await run(delete(_gone).where(*gone))
            await run(insert(_gone).values(org=org, finder=finder, erased_at=transaction.at))
            await transaction.queue(org, "person.erase", person, by, {})
        return person

    @uninterrupted
    async def held_until(self, org: OrgId, member: str) -> int:
        table = tables.revocations.c
        wanted = select(table.expires_at).where(table.org == org, table.member == member)
        async with self._database.read() as connection:
            return max((await connection.execute(wanted)).scalars(), default=0)

    @uninterrupted
    async def purge(self, now: int) -> bool:
        ended = (
            (tables.revocations, tables.revocations.c.expires_at <= now),
            (_gone, _gone.c.erased_at <= now - LATE_S),
        )
        async with self._database.read() as connection:
            there = [select(table.c.org).where(wanted).limit(1) for table, wanted in ended]
            found = [(await connection.execute(statement)).first() for statement in there]
            somebody = (await connection.execute(select(_gone.c.org).limit(1))).first() is not None
        if not any(found):
            return False
        async with self._database.write(tell=False) as transaction:
            for table, wanted in ended:
                await transaction.connection.execute(delete(table).where(wanted))
        return somebody

    @uninterrupted
    async def scrub(self) -> None:
        with unavailable():
            await scrub(self._database.engine)

    async def _one_key(self, *wanted: Any) -> WrappedDataKey | None:
        async with self._database.read() as connection:
            row = (await connection.execute(select(_keys).where(*wanted).limit(1))).mappings().first()
        return None if row is None else rows.decode(WrappedDataKey, row)

    async def _people(self, org: OrgId, column: Column[str], values: Collection[str]) -> tuple[Person, ...]:
        found: list[Person] = []
        async with self._database.of(org).read() as connection:
            for some in _parts(values):
                statement = select(_people).where(_people.c.org == org, column.in_(some))
                found += [rows.decode(Person, row) for row in (await connection.execute(statement)).mappings()]
        return tuple(found)


async def _refuse_what_holds(
    transaction: Transaction, org: OrgId, member: str, dialect: str, *, everywhere: bool
) -> None:
    """Raise `InUseError` for the first thing that says `member` in clear and is not the store's to take.

    Changes are looked at `everywhere`, for an operator acts in all organizations; but of somebody who is not known
    in `org` only those of it, or the answer would tell that they exist elsewhere.
    """
    members, limits, outbox = tables.members.c, tables.limits.c, tables.outbox.c
    run = transaction.connection.execute
    if (await run(select(members.id).where(members.org == org, members.id == member))).first() is not None:
        raise InUseError("they are a member still: delete them first")
    limit = (await run(select(limits.name).where(limits.org == org, limits.subject == member))).scalar()
    if limit is not None:
        raise InUseError(f"limit '{limit}' is about them: delete it first")
    told = or_(*(contains(column, member, dialect) for column in (outbox.target, outbox.actor, outbox.detail)))
    where = (told,) if everywhere else (told, outbox.org == org)
    if (await run(select(outbox.seq).where(*where).limit(1))).first() is not None:
        raise WaitingError("changes about them are not in the audit log yet: try again")


async def _forget(transaction: Transaction, org: OrgId, member: str) -> None:
    """Delete what is kept of them by the way: places in teams, what they used. Tables that are added later are
    looked at too, unless they are named here."""
    for table in tables.metadata.sorted_tables:
        if "org" not in table.c or table.name in _CONFIGURED:
            continue
        said = [column == member for column in table.c if isinstance(column.type, String) and column.name != "org"]
        if said:
            await transaction.connection.execute(delete(table).where(table.c.org == org, or_(*said)))


def _parts(values: Collection[str]) -> Iterator[list[str]]:
    all_of_them = list(values)
    for start in range(0, len(all_of_them), _AT_ONCE):
        yield all_of_them[start : start + _AT_ONCE]
