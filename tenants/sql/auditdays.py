"""`tenants.auditdays.AuditDays` over SQL, in tables that the data plane never reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import structs
from sqlalchemy import and_, delete, insert, select, update

from tenants.auditdays import DayEntry, Tally, Verdict
from tenants.budgets import BudgetUse
from tenants.ids import OrgId
from tenants.sql import rows, tables
from tenants.sql.database import SYSTEM, Database, Transaction, uninterrupted
from tenants.sql.paging import MAX_NUMBER

_DAYS = tables.audit_days
_TALLIES = tables.audit_tallies
_VERDICTS = tables.audit_verdicts
_USES = tables.budget_uses
_FIGURES: Final = ("requests", "prompt_tokens", "completion_tokens", "nanodollars", "at")
DAY_S: Final = 86_400


def day_text(day: int) -> str:
    """`2026-11-21` of days since 1970-01-01."""
    return datetime.fromtimestamp(day * DAY_S, UTC).strftime("%Y-%m-%d")


class SqlAuditDays:
    """Every statement names the organization; what has none is the gateway's own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @uninterrupted
    async def last(self, org: OrgId) -> DayEntry | None:
        newest = select(_DAYS).where(_DAYS.c.org == org).order_by(_DAYS.c.day.desc()).limit(1)
        async with self._database.of(org).read() as connection:
            row = (await connection.execute(newest)).mappings().first()
        return None if row is None else rows.decode(DayEntry, row)

    @uninterrupted
    async def around(self, org: OrgId, day: int) -> tuple[int, int | None]:
        mine = _DAYS.c.org == org
        before = select(_DAYS.c.start).where(mine, _DAYS.c.day < day).order_by(_DAYS.c.day.desc()).limit(1)
        after = select(_DAYS.c.end).where(mine, _DAYS.c.day > day).order_by(_DAYS.c.day).limit(1)
        async with self._database.of(org).read() as connection:
            start = (await connection.execute(before)).scalar()
            end = (await connection.execute(after)).scalar()
        return int(start or 0), None if end is None else int(end)

    @uninterrupted
    async def add(self, entry: DayEntry) -> bool:
        async with self._database.of(entry.org).write() as transaction:
            mine = and_(_DAYS.c.org == entry.org, _DAYS.c.day == entry.day)
            if (await transaction.connection.execute(select(_DAYS.c.day).where(mine))).first() is not None:
                return False
            made = structs.replace(entry, at=transaction.at)
            await transaction.connection.execute(insert(_DAYS).values(rows.encode(made)))
            detail: rows.Detail = {
                "day": day_text(entry.day),
                "start": entry.start,
                "end": entry.end,
                "requests": entry.requests,
            }
            await transaction.queue(entry.org, "audit.day", day_text(entry.day), SYSTEM, detail)
        return True

    @uninterrupted
    async def put(self, tallies: Sequence[Tally]) -> None:
        async with self._database.write(tell=False) as transaction:
            for tally in tallies:
                await _raise(transaction, tally)

    @uninterrupted
    async def tallies(self, org: OrgId, first: int, last: int) -> tuple[Tally, ...]:
        wanted = and_(_TALLIES.c.org == org, _TALLIES.c.day >= first, _TALLIES.c.day <= last)
        async with self._database.of(org).read() as connection:
            found = await connection.execute(
                select(_TALLIES).where(wanted).order_by(_TALLIES.c.day, _TALLIES.c.boot)
            )
            return tuple(rows.decode(Tally, row) for row in found.mappings())

    @uninterrupted
    async def verdict(self, org: OrgId, day: int) -> Verdict | None:
        mine = and_(_VERDICTS.c.org == org, _VERDICTS.c.day == day)
        async with self._database.of(org).read() as connection:
            row = (await connection.execute(select(_VERDICTS).where(mine))).mappings().first()
        return None if row is None else rows.decode(Verdict, row)

    @uninterrupted
    async def judged(self, verdict: Verdict, detail: Mapping[str, str | int | bool]) -> None:
        mine = and_(_VERDICTS.c.org == verdict.org, _VERDICTS.c.day == verdict.day)
        async with self._database.of(verdict.org).write() as transaction:
            row = (await transaction.connection.execute(select(_VERDICTS).where(mine))).mappings().first()
            if row is not None and row["differences"] == verdict.differences:
                return
            values = rows.encode(structs.replace(verdict, at=transaction.at))
            await transaction.connection.execute(
                insert(_VERDICTS).values(values) if row is None else update(_VERDICTS).where(mine).values(values)
            )
            await transaction.queue(verdict.org, "audit.reconcile", day_text(verdict.day), SYSTEM, detail)

    @uninterrupted
    async def told(self, org: OrgId, day: int) -> None:
        async with self._database.of(org).write(tell=False) as transaction:
            await transaction.connection.execute(
                update(_VERDICTS).where(_VERDICTS.c.org == org, _VERDICTS.c.day == day).values(told=1)
            )

    @uninterrupted
    async def ended(self, org: OrgId, after: int, upto: int) -> tuple[BudgetUse, ...]:
        wanted = and_(_USES.c.org == org, _USES.c.subject == "", _USES.c.ends_s > after, _USES.c.ends_s <= upto)
        async with self._database.of(org).read() as connection:
            found = await connection.execute(select(_USES).where(wanted).order_by(_USES.c.limit))
            return tuple(rows.decode(BudgetUse, row) for row in found.mappings())

    @uninterrupted
    async def prune(self, before: int) -> None:
        async with self._database.write(tell=False) as transaction:
            for table in (_TALLIES, _VERDICTS):
                await transaction.connection.execute(delete(table).where(table.c.day < before))


async def _raise(transaction: Transaction, tally: Tally) -> None:
    mine = and_(_TALLIES.c.org == tally.org, _TALLIES.c.day == tally.day, _TALLIES.c.boot == tally.boot)
    row = (await transaction.connection.execute(select(_TALLIES).where(mine))).mappings().first()
    values = rows.encode(tally)
    for name in _FIGURES:
        values[name] = min(max(values[name], 0 if row is None else row[name]), MAX_NUMBER)
    values["ended"] = max(values["ended"], 0 if row is None else row["ended"])
    await transaction.connection.execute(
        insert(_TALLIES).values(values) if row is None else update(_TALLIES).where(mine).values(values)
    )
