"""`tenants.budgets.BudgetBook` and `WebhookBook` over SQL, in tables that the data plane never reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import structs
from sqlalchemy import ColumnElement, Table, and_, delete, func, insert, select, update

from tenants.budgets import BudgetUse, Notice, NoticeState, Webhook
from tenants.ids import OrgId
from tenants.sql import rows, tables
from tenants.sql.database import SYSTEM, Database, Transaction, uninterrupted
from tenants.sql.paging import MAX_NUMBER
from tenants.store import Actor, InvalidItemError, NotFoundError
from tenants.validate import validate

_USES = tables.budget_uses
_NOTICES = tables.budget_notices
_WEBHOOKS = tables.webhooks


class SqlBudgetBook:
    """Every write names the organization; what reads all of them is the gateway's own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @uninterrupted
    async def current(self, now: int) -> tuple[BudgetUse, ...]:
        async with self._database.read() as connection:
            found = await connection.execute(select(_USES).where(_USES.c.ends_s > now))
            return tuple(rows.decode(BudgetUse, row) for row in found.mappings())

    @uninterrupted
    async def write(self, used: Sequence[BudgetUse], crossed: Sequence[Notice]) -> tuple[Notice, ...]:
        named = {item.org for item in used} | {notice.org for notice in crossed}
        async with self._database.write(tell=bool(crossed)) as transaction:
            living = select(tables.orgs.c.id).where(tables.orgs.c.id.in_(sorted(named)))
            there = set((await transaction.connection.execute(living)).scalars())
            for item in used:
                if item.org in there and abs(item.used) <= MAX_NUMBER:
                    await _put(transaction, _USES, _window(_USES, item), item)
            made = [await _first(transaction, notice) for notice in crossed if notice.org in there]
        return tuple(notice for notice in made if notice is not None)

    @uninterrupted
    async def forget(self, org: OrgId, limit: str, subject: str | None = None) -> None:
        of_limit = and_(_USES.c.org == org, _USES.c.limit == limit)
        wanted = of_limit if subject is None else and_(of_limit, _USES.c.subject == subject)
        async with self._database.of(org).write(tell=False) as transaction:
            await transaction.connection.execute(delete(_USES).where(wanted))

    @uninterrupted
    async def prune(self, before: int) -> int:
        async with self._database.write(tell=False) as transaction:
            await transaction.connection.execute(delete(_NOTICES).where(_NOTICES.c.ends_s < before))
            return (await transaction.connection.execute(delete(_USES).where(_USES.c.ends_s < before))).rowcount

    @uninterrupted
    async def due(self, now: int, limit: int = 100) -> tuple[Notice, ...]:
        wanted = and_(_NOTICES.c.state == NoticeState.PENDING, _NOTICES.c.next_at <= now)
        turn = func.row_number().over(
            partition_by=_NOTICES.c.org, order_by=(_NOTICES.c.next_at, _NOTICES.c.percent, _NOTICES.c.limit)
        )
        found = select(_NOTICES, turn.label("turn")).where(wanted).subquery()
        first = select(found).where(found.c.turn == 1).order_by(found.c.next_at, found.c.org).limit(limit)
        async with self._database.read() as connection:
            return tuple(rows.decode(Notice, row) for row in (await connection.execute(first)).mappings())

    @uninterrupted
    async def settle(self, notice: Notice, failure: str = "") -> None:
        async with self._database.write(tell=False) as transaction:
            await transaction.connection.execute(
                update(_NOTICES)
                .where(_one(notice), _NOTICES.c.state == NoticeState.PENDING)
                .values(state=notice.state.value, attempts=notice.attempts, next_at=notice.next_at)
            )
            went: dict[str, object] = {"failure": failure}
            if not failure:
                went["delivered_at"] = transaction.at
            await transaction.connection.execute(
                update(_WEBHOOKS).where(_WEBHOOKS.c.org == notice.org).values(**went)
            )


class SqlWebhookBook:
    """One row an organization."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @uninterrupted
    async def get(self, org: OrgId) -> Webhook | None:
        async with self._database.of(org).read() as connection:
            row = (await connection.execute(select(_WEBHOOKS).where(_WEBHOOKS.c.org == org))).mappings().first()
        return None if row is None else rows.decode(Webhook, row)

    @uninterrupted
    async def put(self, item: Webhook, by: Actor) -> Webhook:
        if faults := validate(item):
            raise InvalidItemError(faults)
        async with self._database.of(item.org).write() as transaction:
            living = select(tables.orgs.c.id).where(tables.orgs.c.id == item.org)
            if (await transaction.connection.execute(living)).first() is None:
                raise NotFoundError(f"no organization '{item.org}'")
            mine = _WEBHOOKS.c.org == item.org
            row = (await transaction.connection.execute(select(_WEBHOOKS).where(mine))).mappings().first()
            version = 1 if row is None else int(row["version"]) + 1
            made = Webhook(item.org, item.url, item.ca_pem, set_at=transaction.at, version=version)
            await _put(transaction, _WEBHOOKS, mine, made)
            # A URL may carry a token of the receiver's own: the log has the origin alone.
            detail: rows.Detail = {"origin": origin_of(item.url), "version": version, "ca_pem": bool(item.ca_pem)}
            await transaction.queue(item.org, "webhook.set", item.org, by, detail)
        return made

    @uninterrupted
    async def delete(self, org: OrgId, by: Actor) -> None:
        async with self._database.of(org).write() as transaction:
            gone = await transaction.connection.execute(delete(_WEBHOOKS).where(_WEBHOOKS.c.org == org))
            if gone.rowcount == 0:
                raise NotFoundError("no webhook")
            await transaction.connection.execute(
                update(_NOTICES)
                .where(_NOTICES.c.org == org, _NOTICES.c.state == NoticeState.PENDING)
                .values(state=NoticeState.NONE)
            )
            await transaction.queue(org, "webhook.delete", org, by, {})


_HOST_END: Final = "/?#"


def origin_of(url: str) -> str:
    """`scheme://host:port` of a URL that has been judged."""
    scheme, _, rest = url.partition("://")
    end = min((place for mark in _HOST_END if (place := rest.find(mark)) >= 0), default=len(rest))
    return f"{scheme}://{rest[:end]}"


def _window(table: Table, item: BudgetUse | Notice) -> ColumnElement[bool]:
    columns = table.c
    return and_(
        columns.org == item.org,
        columns.limit == item.limit,
        columns.subject == item.subject,
        columns.starts_s == item.starts_s,
    )


def _one(notice: Notice) -> ColumnElement[bool]:
    return and_(_window(_NOTICES, notice), _NOTICES.c.percent == notice.percent)


async def _first(transaction: Transaction, notice: Notice) -> Notice | None:
    """Write it and its audit entry, unless somebody was told already of the same unit. The webhook follows from
    the row: a crash after the commit leaves it PENDING, and it is sent at the next start."""
    connection = transaction.connection
    told = (await connection.execute(select(_NOTICES.c.unit).where(_one(notice)))).scalar()
    if told == notice.unit:
        return None
    if told is not None:  # the limit counted something else then
        await connection.execute(delete(_NOTICES).where(_one(notice)))
    hooked = await connection.execute(select(_WEBHOOKS.c.org).where(_WEBHOOKS.c.org == notice.org))
    state = NoticeState.NONE if hooked.first() is None else NoticeState.PENDING
    made = structs.replace(notice, at=transaction.at, state=state, attempts=0, next_at=transaction.at)
    await connection.execute(insert(_NOTICES).values(rows.encode(made)))
    detail: rows.Detail = {
        "percent": made.percent,
        "subject": made.subject,
        "unit": made.unit.value,
        "amount": made.amount,
        "used": made.used,
        "starts_at": made.starts_s,
        "ends_at": made.ends_s,
    }
    await transaction.queue(made.org, "limit.threshold", made.limit, SYSTEM, detail)
    return made


async def _put(
    transaction: Transaction, table: Table, where: ColumnElement[bool], item: BudgetUse | Webhook
) -> None:
    row = rows.encode(item)
    changed = await transaction.connection.execute(update(table).where(where).values(row))
    if changed.rowcount == 0:
        await transaction.connection.execute(insert(table).values(row))
