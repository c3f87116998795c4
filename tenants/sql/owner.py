"""What the owner of a PostgreSQL database does for the control store: schema, policies, grants.

One transaction: a crash in the middle leaves what stood before. Run again, it brings an older schema up to this
one's and generates policies and grants anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, MetaData, create_engine, insert, select, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from tenants.sql import tables
from tenants.sql.address import SCHEMA, parameters, shown
from tenants.sql.connecting import connect_parameters
from tenants.sql.migrate import migrate
from tenants.sql.postgres import WRITE_LOCK
from tenants.sql.rowlevel import grants, policies
from tenants.sql.version import SCHEMA_VERSION, refuse_newer
from tenants.store import StoreUnavailableError


def prepare(
    url: str,
    metadatas: Sequence[MetaData],
    *,
    runtime: str,
    password: Callable[[], str] | None = None,
    timeout_ms: int = 5_000,
) -> int:
    """Make the tables of `metadatas`, or bring them up; `runtime` is the role that serves. Returns the schema's
    version before, 0 for a new one.

    `url` and `password` are the owner's, who may create a schema in that database. Raises `StoreUnavailableError`,
    `NewerSchemaError`.
    """
    told = connect_parameters(url, timeout_ms=timeout_ms, application="orgate store migrate")

    def connect() -> psycopg.Connection:
        secret = password() if password is not None else ""
        return psycopg.connect(make_conninfo("", **told), password=secret or None)

    try:
        role = _role(connect, runtime, parameters(url)["user"])
        engine = create_engine(URL.create("postgresql+psycopg"), creator=connect, poolclass=NullPool)
        try:
            with engine.begin() as connection:
                return _prepare(connection, metadatas, role)
        finally:
            engine.dispose()
    except (psycopg.Error, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        said = str(cause).partition("\n")[0]
        raise StoreUnavailableError(f"the tables in {shown(url)} cannot be made: {said}") from None


def _role(connect: Callable[[], psycopg.Connection], runtime: str, owner: str) -> str:
    """The runtime role, quoted, once the schema is there."""
    with connect() as connection:
        found = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", (runtime,)).fetchone()
        if found is None:
            raise StoreUnavailableError(f"there is no role {runtime}: CREATE ROLE {runtime} LOGIN first")
        if runtime == owner:
            raise StoreUnavailableError(f"role {runtime} would own the tables it serves from: name another owner")
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
        return sql.Identifier(runtime).as_string(connection)


def _prepare(connection: Connection, metadatas: Sequence[MetaData], role: str) -> int:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")  # no server writes meanwhile
    tables.schema.create(connection, checkfirst=True)
    found = connection.scalar(select(tables.schema.c.version))
    refuse_newer(found or 0)
    for metadata in metadatas:
        migrate(connection, metadata)
    if found is None:
        connection.execute(insert(tables.schema).values(id=1, version=SCHEMA_VERSION))
        connection.execute(insert(tables.counters).values(id=1, version=0, seq=0))
    else:
        connection.execute(update(tables.schema).values(version=SCHEMA_VERSION))
    for statement in (*policies(metadatas), *grants(role)):
        connection.exec_driver_sql(statement)
    return found or 0
