"""Personal tokens in SQL. Of a key its digest is here, and nothing that could be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from tenants.ids import OrgId
from tenants.models import Member, Service, State
from tenants.sql import rows, tables
from tenants.sql.client_tables import services
from tenants.sql.database import SYSTEM, Database, Transaction, uninterrupted
from tenants.sql.dialect import key_text
from tenants.sql.paging import conditions, page
from tenants.statickeys import MOST_OF_ONE, MOST_OF_ORG, Owner, ServedKey, StaticKey, faults_of, served
from tenants.store import (
    Actor,
    InUseError,
    InvalidItemError,
    InvalidReferenceError,
    KeysOffError,
    NotFoundError,
)

static_keys = Table(
    "static_keys",
    tables.metadata,
    Column("org", key_text(40), ForeignKey("orgs.id", ondelete="CASCADE"), primary_key=True),
    Column("id", key_text(64), primary_key=True),
    Column("digest", key_text(64), nullable=False, unique=True),
    Column("subject", key_text(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("actions", Text, nullable=False),
    Column("models", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Index("static_keys_by_subject", "org", "subject"),
)
_KEYS = static_keys.c


class StaticKeys:
    """`tenants.store.StaticKeyRepository`."""

    def __init__(self, database: Database, org: OrgId) -> None:
        self._database = database
        self._org = org

    @uninterrupted
    async def get(self, key: str) -> StaticKey:
        async with self._database.read() as connection:
            return await self._find(connection, key)

    @uninterrupted
    async def page(
        self, *, after: str = "", limit: int = 100, filters: Mapping[str, str] | None = None
    ) -> tuple[tuple[StaticKey, ...], str]:
        wanted = conditions(StaticKey, static_keys, filters, self._database.dialect)
        statement = select(static_keys).where(_KEYS.org == self._org, *wanted)
        return await page(self._database, statement, StaticKey, _KEYS.id, after=after, limit=limit)

    @uninterrupted
    async def create(self, item: StaticKey, digest: str, by: Actor) -> StaticKey:
        if item.org != self._org:
            raise InvalidItemError([("org", f"is not '{self._org}'")])
        if faults := faults_of(item):
            raise InvalidItemError(faults)
        async with self._database.write() as transaction:
            await transaction.touch(self._org)
            await self._may_have(transaction, item)
            await transaction.connection.execute(insert(static_keys).values(**rows.encode(item), digest=digest))
            await transaction.queue(
                self._org,
                "personal_token.create",
                item.id,
                by,
                {
                    "subject": item.subject,
                    "actions": list(item.actions),
                    "models": list(item.models),
                    "expires_at": item.expires_at,
                },
            )
        return item

    @uninterrupted
    async def revoke(self, key: str, by: Actor) -> None:
        async with self._database.write() as transaction:
            found = await self._find(transaction.connection, key)
            await transaction.touch(self._org)
            await transaction.connection.execute(delete(static_keys).where(*self._one(key)))
            await transaction.queue(self._org, "personal_token.revoke", key, by, {"subject": found.subject})

    @uninterrupted
    async def revoke_all(self, subject: str, by: Actor) -> int:
        async with self._database.write() as transaction:
            return await end(transaction, self._org, subject, by=by)

    @uninterrupted
    async def used(self, times: Mapping[str, int]) -> None:
        async with self._database.write(tell=False) as transaction:
            for key, at in sorted(times.items()):
                await transaction.connection.execute(
                    update(static_keys).where(*self._one(key), _KEYS.used_at < at).values(used_at=at)
                )

    async def served(self, connection: AsyncConnection, now: float) -> tuple[ServedKey, ...]:
        """What workers are told, as part of the reading of `connection`."""
        found = await connection.execute(
            select(static_keys)
            .join(tables.orgs, tables.orgs.c.id == _KEYS.org)
            .where(_KEYS.org == self._org, tables.orgs.c.personal_tokens == 1)
            .order_by(_KEYS.id)
        )
        keys = [(row["digest"], rows.decode(StaticKey, row)) for row in found.mappings()]
        if not keys:
            return ()
        return served(keys, await self._owners(connection, sorted({key.subject for _, key in keys})), now)

    async def _owners(self, connection: AsyncConnection, subjects: Sequence[str]) -> dict[str, Owner]:
        people, joined = tables.members.c, tables.team_members.c
        teams: dict[str, list[str]] = {}
        for row in await connection.execute(
            select(joined.member, joined.team)
            .where(joined.org == self._org, joined.member.in_(subjects))
            .order_by(joined.team)
        ):
            teams.setdefault(row.member, []).append(row.team)
        owners: dict[str, Owner] = {}
        found = await connection.execute(
            select(tables.members).where(people.org == self._org, people.id.in_(subjects))
        )
        for one in (rows.decode(Member, row) for row in found.mappings()):
            owners[one.id] = Owner(one.roles, one.state is State.ACTIVE, tuple(teams.get(one.id, ())))
        found = await connection.execute(
            select(services).where(services.c.org == self._org, services.c.id.in_(subjects))
        )
        for account in (rows.decode(Service, row) for row in found.mappings()):
            owners[account.id] = Owner(account.roles, account.state is State.ACTIVE)
        return owners

    async def _may_have(self, transaction: Transaction, item: StaticKey) -> None:
        connection = transaction.connection
        on = await connection.scalar(select(tables.orgs.c.personal_tokens).where(tables.orgs.c.id == self._org))
        if not on:
            raise KeysOffError(
                "personal tokens are turned off in this organization; an owner or admin turns them on"
            )
        owner = (await self._owners(connection, [item.subject])).get(item.subject)
        if owner is None or not owner.active:
            raise InvalidReferenceError(f"no active member or service account '{item.subject}'")
        # Those that have expired are worth nothing, and are forgotten when there is a new one.
        await connection.execute(
            delete(static_keys).where(_KEYS.org == self._org, _KEYS.expires_at <= transaction.at)
        )
        count = select(func.count()).select_from(static_keys).where(_KEYS.org == self._org)
        theirs = await connection.scalar(count.where(_KEYS.subject == item.subject))
        if int(theirs or 0) >= MOST_OF_ONE:
            raise InUseError(f"there are {MOST_OF_ONE} personal tokens, and that is the most: revoke one first")
        if int(await connection.scalar(count) or 0) >= MOST_OF_ORG:
            raise InUseError(f"an organization has {MOST_OF_ORG} personal tokens at most: revoke one first")

    async def _find(self, connection: AsyncConnection, key: str) -> StaticKey:
        row = None
        if rows.storable(key):
            row = (await connection.execute(select(static_keys).where(*self._one(key)))).mappings().first()
        if row is None:
            raise NotFoundError(f"no personal token '{key}'")
        return rows.decode(StaticKey, row)

    def _one(self, key: str) -> tuple[ColumnElement[bool], ...]:
        return _KEYS.org == self._org, _KEYS.id == key


async def end(transaction: Transaction, org: OrgId, subject: str = "", *, by: Actor = SYSTEM) -> int:
    """Take back every key of `subject`, or of the whole of `org`, as part of `transaction`; how many there were.

    A key that is revoked is gone, so that nothing which changes later can bring it back to life.
    """
    wanted = (_KEYS.org == org, *([_KEYS.subject == subject] if subject else []))
    gone = await transaction.connection.execute(delete(static_keys).where(*wanted))
    if gone.rowcount:
        await transaction.touch(org)
        await transaction.queue(org, "personal_token.revoke", subject or org, by, {"count": gone.rowcount})
    return int(gone.rowcount)


async def forget(transaction: Transaction, org: OrgId, member: str) -> None:
    """Who made a key for somebody else is gone, and may want to be forgotten, as part of `transaction`."""
    theirs = (_KEYS.org == org, _KEYS.created_by == member)
    await transaction.connection.execute(update(static_keys).where(*theirs).values(created_by=""))


async def changed(transaction: Transaction, org: OrgId, *subjects: str) -> None:
    """What `subjects` may do has changed: workers that know keys of theirs are told, as part of `transaction`."""
    theirs = select(_KEYS.id).where(_KEYS.org == org, _KEYS.subject.in_(subjects)).limit(1)
    if (await transaction.connection.execute(theirs)).first() is not None:
        await transaction.touch(org)
