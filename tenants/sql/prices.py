"""`tenants.prices.PriceBook` over SQL: every version of every table, each written once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import structs
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tenants.ids import OrgId
from tenants.models import Price
from tenants.prices import PriceImport, PriceTable, table_faults
from tenants.sql import rows, tables
from tenants.sql.database import Database, uninterrupted
from tenants.sql.paging import MAX_NUMBER, MAX_PAGE
from tenants.store import Actor, InvalidItemError, InvalidQueryError, NotFoundError, VersionMismatchError

_IMPORTS = tables.price_imports
_PRICES = tables.prices
SHOWN = 50
"""Models that an audit entry names."""


class Prices:
    """One organization's. Every statement names it."""

    def __init__(self, database: Database, org: OrgId) -> None:
        self._database = database
        self._org = org

    @uninterrupted
    async def table(self, version: int = 0) -> PriceTable:
        async with self._database.read() as connection:
            return await self._table(connection, version)

    @uninterrupted
    async def versions(self, *, before: int = 0, limit: int = 100) -> tuple[PriceImport, ...]:
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidQueryError("limit", f"is 1 to {MAX_PAGE}")
        mine = select(_IMPORTS).where(_IMPORTS.c.org == self._org)
        if before:
            mine = mine.where(_IMPORTS.c.version < min(before, MAX_NUMBER))
        async with self._database.read() as connection:
            found = await connection.execute(mine.order_by(_IMPORTS.c.version.desc()).limit(limit))
            return tuple(rows.decode(PriceImport, row) for row in found.mappings())

    @uninterrupted
    async def put(self, prices: Sequence[Price], expected: int, by: Actor) -> PriceImport:
        faults = [
            (f"prices[{n}].org", f"is not '{self._org}'") for n, p in enumerate(prices) if p.org != self._org
        ]
        faults += table_faults(prices)
        if faults:
            raise InvalidItemError(faults)
        async with self._database.write() as transaction:
            await transaction.touch(self._org)
            old = await self._table(transaction.connection, 0)
            version = old.imported.version
            if version != expected:
                raise VersionMismatchError(version)
            was, will = ({p.model: (p.input, p.output) for p in table} for table in (old.prices, prices))
            if version and was == will:
                return old.imported
            made = PriceImport(self._org, version + 1, transaction.at, by.member, by.org, len(prices))
            await transaction.connection.execute(insert(_IMPORTS).values(rows.encode(made)))
            if prices:
                stored = [rows.encode(structs.replace(price, version=made.version)) for price in prices]
                await transaction.connection.execute(insert(_PRICES), stored)
            await transaction.queue(self._org, "price.import", f"v{made.version}", by, _detail(made, was, will))
        return made

    async def of_record(self, connection: AsyncConnection) -> tuple[Price, ...]:
        """The table in force, as part of what the data plane reads."""
        return (await self._table(connection, 0)).prices

    async def _table(self, connection: AsyncConnection, version: int) -> PriceTable:
        mine = select(_IMPORTS).where(_IMPORTS.c.org == self._org)
        if version:
            mine = mine.where(_IMPORTS.c.version == min(version, MAX_NUMBER))
        newest = await connection.execute(mine.order_by(_IMPORTS.c.version.desc()).limit(1))
        row = newest.mappings().first()
        if row is None:
            if version:
                raise NotFoundError(f"no version {version} of the prices")
            return PriceTable(PriceImport(self._org))
        imported = rows.decode(PriceImport, row)
        found = await connection.execute(
            select(_PRICES)
            .where(_PRICES.c.org == self._org, _PRICES.c.version == imported.version)
            .order_by(_PRICES.c.model)
        )
        return PriceTable(imported, tuple(rows.decode(Price, row) for row in found.mappings()))


def _detail(made: PriceImport, was: dict[str, Any], will: dict[str, Any]) -> rows.Detail:
    changed = sorted(model for model in was.keys() | will.keys() if was.get(model) != will.get(model))
    return {
        "version": made.version,
        "prices": made.count,
        "added": len(will.keys() - was.keys()),
        "removed": len(was.keys() - will.keys()),
        "changed": len([model for model in was.keys() & will.keys() if was[model] != will[model]]),
        "models": changed[:SHOWN],
    }
