"""`tenants.store.KeyBook` over SQL: one row an upstream, in a table that the data plane never reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, insert, or_, select, update

from tenants.ids import OrgId
from tenants.models import KeyState, UpstreamKey
from tenants.sql import rows, tables
from tenants.sql.database import Database, Transaction, uninterrupted
from tenants.store import Actor, NotFoundError

_TABLE = tables.upstream_keys


class SqlKeyBook:
    """Every statement names the organization, but for `due`, which is the gateway's own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @uninterrupted
    async def get(self, org: OrgId, name: str) -> UpstreamKey:
        async with self._database.of(org).read() as connection:
            row = (await connection.execute(select(_TABLE).where(_at(org, name)))).mappings().first()
        return UpstreamKey(org, name) if row is None else rows.decode(UpstreamKey, row)

    @uninterrupted
    async def put(self, item: UpstreamKey, *notes: tuple[str, rows.Detail], by: Actor) -> None:
        async with self._database.of(item.org).write() as transaction:
            upstream = tables.upstreams.c
            there = select(upstream.name).where(upstream.org == item.org, upstream.name == item.name)
            if (await transaction.connection.execute(there)).first() is None:
                raise NotFoundError(f"no upstream '{item.name}'")
            await _write(transaction, item.org, item.name, rows.encode(item))
            for action, detail in notes:
                await transaction.queue(item.org, action, item.name, by, detail)

    @uninterrupted
    async def used(self, times: Mapping[tuple[OrgId, str], int]) -> None:
        if not times:
            return
        async with self._database.write(tell=False) as transaction:
            for (org, name), at in times.items():
                await transaction.connection.execute(
                    update(_TABLE).where(_at(org, name), _TABLE.c.used_at < at).values(used_at=at)
                )

    @uninterrupted
    async def forget(self, org: OrgId, name: str) -> None:
        async with self._database.of(org).write(tell=False) as transaction:
            await transaction.connection.execute(delete(_TABLE).where(_at(org, name)))

    @uninterrupted
    async def due(self, now: int) -> tuple[UpstreamKey, ...]:
        ended = and_(_TABLE.c.state == KeyState.OVERLAP, _TABLE.c.overlap_ends_at <= now)
        scheduled = and_(_TABLE.c.every_s > 0, _TABLE.c.next_at <= now)
        wanted = or_(_TABLE.c.state == KeyState.PENDING, ended, scheduled)
        async with self._database.read() as connection:
            found = await connection.execute(select(_TABLE).where(wanted).order_by(_TABLE.c.next_at, _TABLE.c.org))
            return tuple(rows.decode(UpstreamKey, row) for row in found.mappings())

    @uninterrupted
    async def all(self, org: OrgId) -> tuple[UpstreamKey, ...]:
        async with self._database.of(org).read() as connection:
            found = await connection.execute(select(_TABLE).where(_TABLE.c.org == org).order_by(_TABLE.c.name))
            return tuple(rows.decode(UpstreamKey, row) for row in found.mappings())


def _at(org: OrgId, name: str) -> ColumnElement[bool]:
    return and_(_TABLE.c.org == org, _TABLE.c.name == name)


async def _write(transaction: Transaction, org: OrgId, name: str, row: dict[str, Any]) -> None:
    changed = await transaction.connection.execute(update(_TABLE).where(_at(org, name)).values(row))
    if changed.rowcount == 0:
        await transaction.connection.execute(insert(_TABLE).values(row))
