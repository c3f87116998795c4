"""Whether PostgreSQL is as whoever serves from it needs it: asked at each start, before anything else."""

from __future__ import annotations

from sqlalchemy import Connection, select

from tenants.sql import tables
from tenants.sql.migrate import MIGRATE, require
from tenants.sql.rowlevel import ROLE, USABLE, RoleFacts, role_fault
from tenants.sql.version import SCHEMA_VERSION, refuse_newer
from tenants.store import StoreUnavailableError


def examine(connection: Connection) -> None:
    """Raise `StoreUnavailableError`, or `NewerSchemaError`, for what is wrong."""
    row = connection.exec_driver_sql(ROLE).one()
    facts = RoleFacts(*row)
    if fault := role_fault(facts):
        raise StoreUnavailableError(f"{fault[0]}; {fault[1]}")
    if not connection.exec_driver_sql(USABLE).scalar_one():
        raise StoreUnavailableError(f"the database has no tables that role {facts.role} may use; {MIGRATE}")
    found = connection.scalar(select(tables.schema.c.version)) or 0
    refuse_newer(found)
    if found < SCHEMA_VERSION:
        raise StoreUnavailableError(f"the database has schema {found}, not {SCHEMA_VERSION} yet; {MIGRATE}")
    require(connection, tables.metadata)
