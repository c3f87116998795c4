"""`tenants.refusals.Refusals` over SQL, in a table that the data plane never reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import delete, insert, select

from tenants.ids import PLATFORM
from tenants.refusals import Counts
from tenants.sql import rows, tables
from tenants.sql.database import SYSTEM, Database, uninterrupted

_TAKEN = tables.refused_minutes
KEPT_MINUTES: Final = 24 * 60
"""So long is it known which minutes have been taken: workers forget them much earlier."""


def minute_text(minute: int) -> str:
    """`2026-11-21T11:07Z` of minutes since 1970-01-01."""
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%dT%H:%MZ")


class SqlRefusals:
    def __init__(self, database: Database) -> None:
        self._database = database

    @uninterrupted
    async def add(self, minute: int, counted: Mapping[str, Counts]) -> None:
        async with self._database.write() as transaction:
            connection = transaction.connection
            taken = set(
                (await connection.execute(select(_TAKEN.c.boot).where(_TAKEN.c.minute == minute))).scalars()
            )
            fresh = {boot: counts for boot, counts in counted.items() if boot not in taken}
            if not fresh:
                return
            await connection.execute(delete(_TAKEN).where(_TAKEN.c.minute < minute - KEPT_MINUTES))
            await connection.execute(insert(_TAKEN), [{"minute": minute, "boot": boot} for boot in sorted(fresh)])
            total: Counter[str] = Counter()
            for counts in fresh.values():
                total.update(counts)
            detail: rows.Detail = {"minute": minute_text(minute), **dict(sorted(total.items()))}
            await transaction.queue(PLATFORM, "request.refused", minute_text(minute), SYSTEM, detail)
