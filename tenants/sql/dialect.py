"""What differs from one database to the next: how transactions begin, what text is, what failures are called.

SQLite and PostgreSQL: the engine of the second, and what only it has, are in `tenants.sql.postgres`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Function, String, event, func
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.types import TypeEngine

from tenants.sql.address import SQLITE, is_postgres, sqlite_path
from tenants.sql.connecting import EVERY_ORG
from tenants.store import ServerAwayError, StoreUnavailableError

TRUNCATE_TRIES: Final = 3
CONNECTIONS: Final = 8

READS: Final = "orgate_reads"
ORG: Final = "orgate_org"

READ_ONLY: Final[Mapping[str, Any]] = {READS: True}
"""Execution options of a transaction that only reads: it waits for no writer and sees one instant."""


def within(engine: AsyncEngine, org: str) -> AsyncEngine:
    """An engine whose transactions reach the rows of `org` alone, whatever their statements say. SQLite has
    nothing of the kind: there, and for '*', it is `engine` itself."""
    if org == EVERY_ORG or engine.dialect.name == "sqlite":
        return engine
    return engine.execution_options(**{ORG: org})


def sqlite_url(path: Path) -> str:
    """The store's URL for a database file, as `settings.store.url` spells it."""
    return f"{SQLITE}{path}"


def key_text(length: int) -> TypeEngine[str]:
    """Text compared byte by byte: SQLite's default; elsewhere the collation must say so, or pages differ."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def contains(column: ColumnElement[str], text: str, dialect: str) -> ColumnElement[bool]:
    """Whether `text` is part of `column`, with case (SQLite's LIKE ignores it)."""
    position: Function[int] = func.instr(column, text) if dialect == "sqlite" else func.strpos(column, text)
    return position > 0


def create_engine(
    url: str,
    *,
    busy_timeout_ms: int,
    password: Callable[[], str] | None = None,
    connections: int = CONNECTIONS,
) -> AsyncEngine:
    """An engine whose transactions begin with the one write lock unless they have the options `READ_ONLY`.

    SQLite begins DEFERRED by itself: two writers that have both read then fail with SQLITE_BUSY without
    waiting, whatever the busy timeout. Taking the write lock at BEGIN makes the second one wait instead.

    The file is made with mode 0600 (its WAL inherits the mode). Errors: `StoreUnavailableError`; ValueError for
    a URL that is none.
    """
    if is_postgres(url):
        # Who has SQLite does not pay for a second driver.
        from tenants.sql.postgres import create_postgres_engine  # noqa: PLC0415

        return create_postgres_engine(url, timeout_ms=busy_timeout_ms, password=password, connections=connections)
    path = Path(sqlite_path(url))
    _private_file(path)
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        hide_parameters=True,  # an error's text must not carry an e-mail address into a log
        pool_size=connections,
        max_overflow=0,
        pool_timeout=busy_timeout_ms / 1000,
    )

    def connected(dbapi: Any, record: object) -> None:
        # Autocommit as far as the driver is concerned: `begun` below says BEGIN.
        dbapi.isolation_level = None
        cursor = dbapi.cursor()
        for pragma in (
            f"busy_timeout = {int(busy_timeout_ms)}",
            "journal_mode = WAL",
            "synchronous = FULL",  # NORMAL may lose the last commits on power loss; an acknowledged write may not
            "foreign_keys = ON",
            "trusted_schema = OFF",
            "secure_delete = ON",  # what is deleted is overwritten: erasing a person leaves no page with them
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get(READS, False)
        connection.exec_driver_sql("BEGIN DEFERRED" if reads else "BEGIN IMMEDIATE")

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", begun)
    return engine


async def scrub(engine: AsyncEngine) -> None:
    """Write the file anew without the remains of what was deleted, and empty the write-ahead log, whose frames
    stay as they were written until then. Others wait meanwhile, as for any writer. Errors:
    `StoreUnavailableError` when somebody else writes, or reads, for longer than the busy timeout.

    PostgreSQL has nothing of this for a role that owns no table: its own vacuum overwrites what was deleted.
    """
    if engine.dialect.name != "sqlite":
        return
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        try:
            if driver is None:
                raise sqlite3.OperationalError("there is no connection")
            await driver.execute("VACUUM")
            for _ in range(TRUNCATE_TRIES):
                cursor = await driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                busy, _, _ = await cursor.fetchone()
                await cursor.close()
                if not busy:
                    return
        except sqlite3.Error as error:  # the driver's own: no statement of SQLAlchemy's was it
            raise StoreUnavailableError(f"the control store cannot be written anew now: {error}") from error
    raise StoreUnavailableError("the control store is being read all the time: its log could not be emptied")


def _private_file(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreUnavailableError(f"the database {path} cannot be opened: {error.strerror}") from None


@contextmanager
def unavailable() -> Iterator[None]:
    """Say a database's failure in the store's words. A wrong statement or value is a fault of ours: it stays."""
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):
        raise
    except DBAPIError as error:
        # Of PostgreSQL's only the first line: the others repeat the connection or the row.
        said = str(error.orig).partition("\n")[0]
        kind = ServerAwayError if _away(error.orig) else StoreUnavailableError
        raise kind(f"the control store cannot be used now: {said}") from error
    except PoolTimeoutError as error:
        raise StoreUnavailableError("the control store is busy: no connection became free in time") from error


def _away(error: object) -> bool:
    """Whether PostgreSQL is not there: no connection (libpq has no code for that), or one that it ended itself."""
    code = getattr(error, "sqlstate", "here")
    return code is None or code.startswith(("08", "57P"))
