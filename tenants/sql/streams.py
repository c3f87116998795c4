"""Streams of audit logs in SQL: their definitions, and how far each has come."""

from __future__ import annotations

from msgspec import structs
from sqlalchemy import and_, delete, func, insert, select, update

from tenants.ids import OrgId
from tenants.sql import rows, tables
from tenants.sql.database import Database, Transaction, uninterrupted
from tenants.sql.repository import Kind, ScopedRepository
from tenants.store import InUseError
from tenants.streams import MOST, AuditStream, StreamPlace

_STREAMS = tables.audit_streams
_PLACES = tables.audit_stream_places


class AuditStreams(ScopedRepository[AuditStream]):
    """Not served to the data plane."""

    kind = Kind("audit_stream", AuditStream, _STREAMS)
    served = False

    async def _admit(self, transaction: Transaction, old: AuditStream | None, new: AuditStream) -> AuditStream:
        if old is None:
            count = select(func.count()).select_from(_STREAMS).where(_STREAMS.c.org == self._org)
            if int((await transaction.connection.execute(count)).scalar_one()) >= MOST:
                raise InUseError(f"an organization has {MOST} streams at most: delete one first")
            return structs.replace(new, secret_version=0)
        return structs.replace(new, secret_version=max(old.secret_version, new.secret_version))

    async def _release(self, transaction: Transaction, old: AuditStream) -> None:
        # Left behind, it would be where the next stream of this name begins.
        mine = and_(_PLACES.c.org == self._org, _PLACES.c.name == old.name)
        await transaction.connection.execute(delete(_PLACES).where(mine))


class SqlStreamBook:
    """`tenants.streams.StreamBook`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @uninterrupted
    async def all(self) -> tuple[AuditStream, ...]:
        async with self._database.read() as connection:
            found = await connection.execute(select(_STREAMS).order_by(_STREAMS.c.org, _STREAMS.c.name))
            return tuple(rows.decode(AuditStream, row) for row in found.mappings())

    @uninterrupted
    async def place(self, org: OrgId, name: str) -> StreamPlace | None:
        mine = and_(_PLACES.c.org == org, _PLACES.c.name == name)
        async with self._database.of(org).read() as connection:
            row = (await connection.execute(select(_PLACES).where(mine))).mappings().first()
        return None if row is None else rows.decode(StreamPlace, row)

    @uninterrupted
    async def places(self, org: OrgId) -> tuple[StreamPlace, ...]:
        async with self._database.of(org).read() as connection:
            found = await connection.execute(select(_PLACES).where(_PLACES.c.org == org).order_by(_PLACES.c.name))
            return tuple(rows.decode(StreamPlace, row) for row in found.mappings())

    @uninterrupted
    async def moved(self, place: StreamPlace) -> bool:
        stream = and_(_STREAMS.c.org == place.org, _STREAMS.c.name == place.name)
        mine = and_(_PLACES.c.org == place.org, _PLACES.c.name == place.name)
        async with self._database.of(place.org).write(tell=False) as transaction:
            if (await transaction.connection.execute(select(_STREAMS.c.name).where(stream))).first() is None:
                return False
            values = rows.encode(place)
            changed = await transaction.connection.execute(update(_PLACES).where(mine).values(values))
            if changed.rowcount == 0:
                await transaction.connection.execute(insert(_PLACES).values(values))
        return True
