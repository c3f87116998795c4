"""From an embedded control store into an empty one in PostgreSQL, in one transaction, compared before its commit.

A crash anywhere before that leaves the target as empty as it was.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec
import psycopg
from msgspec import Struct
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, MetaData, Select, Table, create_engine, delete, func, insert, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from tenants.sql import tables
from tenants.sql.address import shown
from tenants.sql.connecting import EVERY_ORG, SETTING, connect_parameters
from tenants.sql.postgres import WRITE_LOCK
from tenants.sql.serving import examine
from tenants.store import AlreadyExistsError, StoreUnavailableError

BATCH: Final = 1_000
TIMEOUT_MS: Final = 60_000
_OWN: Final = (tables.schema.name,)


class CopiedTable(Struct, frozen=True):
    table: str
    rows: int


class CopyError(StoreUnavailableError):
    """What arrived is not what was sent. Nothing was kept."""


def count_rows(source: Path, metadatas: Sequence[MetaData]) -> int:
    with closing(_opened(source)) as file:
        counts = [select(func.count()).select_from(table) for table in _all(metadatas)]
        return sum(file.execute(_text(statement)).fetchone()[0] for statement in counts)


def copy(
    source: Path,
    url: str,
    metadatas: Sequence[MetaData],
    *,
    password: Callable[[], str] | None,
    done: Callable[[int], None],
) -> tuple[CopiedTable, ...]:
    """Copy every table. `source` has this Orgate's schema; `done` is told how many rows are there. Raises
    `AlreadyExistsError` when something is in the target, `CopyError`, `StoreUnavailableError`."""
    told = make_conninfo("", **connect_parameters(url, timeout_ms=TIMEOUT_MS, application="orgate store copy"))

    def connect() -> psycopg.Connection:
        return psycopg.connect(told, password=(password() if password is not None else "") or None)

    engine = create_engine(URL.create("postgresql+psycopg"), creator=connect, poolclass=NullPool)
    try:
        with closing(_opened(source)) as file, engine.begin() as connection:
            connection.exec_driver_sql(
                f"SET LOCAL {SETTING} = '{EVERY_ORG}'; SELECT pg_advisory_xact_lock({WRITE_LOCK})"
            )
            examine(connection)
            return tuple(_copy(file, connection, metadatas, done))
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"{source}: {error}") from None
    except (psycopg.Error, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        said = str(cause).partition("\n")[0]
        raise StoreUnavailableError(f"{shown(url)}: {said}") from None
    finally:
        engine.dispose()


def _copy(
    file: sqlite3.Connection, connection: Connection, metadatas: Sequence[MetaData], done: Callable[[int], None]
) -> Iterator[CopiedTable]:
    connection.execute(delete(tables.counters))
    for table in _all(metadatas):
        if connection.scalar(select(func.count()).select_from(table)):
            raise AlreadyExistsError(f"the target has rows in {table.name} already: copy into an empty one")
    count = 0
    for table in _all(metadatas):
        sent, before = _Sum(), count
        names = [column.name for column in table.columns]
        cursor = file.execute(_text(select(*table.columns)))
        while rows := cursor.fetchmany(BATCH):
            sent.add(rows)
            connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])
            count += len(rows)
            done(count)
        arrived = _Sum()
        with connection.execute(select(*table.columns).execution_options(yield_per=BATCH)) as found:
            arrived.add(tuple(row) for row in found)
        if sent != arrived:
            raise CopyError(f"what arrived in {table.name} is not what was sent: nothing was kept")
        yield CopiedTable(str(table.name), count - before)


class _Sum:
    """Of rows in any order: how many, and the sum of their digests."""

    def __init__(self) -> None:
        self.value = (0, 0)

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        count, total = self.value
        for row in rows:
            count += 1
            total += int.from_bytes(hashlib.sha256(msgspec.json.encode([_plain(value) for value in row])).digest())
        self.value = count, total % 2**256

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Sum) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]  # it changes


def _plain(value: object) -> object:
    """SQLite gives back 1 for a number that was written as 1.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _all(metadatas: Sequence[MetaData]) -> list[Table]:
    return [table for metadata in metadatas for table in metadata.sorted_tables if table.name not in _OWN]


def _text(statement: Select[Any]) -> str:
    return str(statement.compile(dialect=sqlite.dialect()))


def _opened(source: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"{source}: {error}") from None
