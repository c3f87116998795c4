"""What a worker reads from PostgreSQL while the bus is down. Loaded when that is first needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import RowMaker

from tenants.sql.connecting import EVERY_ORG, SETTING, connect_parameters
from tenants.sql.reader import StoreReader
from tenants.sql.version import refuse_newer
from tenants.store import StoreUnavailableError

TIMEOUT_MS: Final = 2_000
_BEGIN: Final = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL {SETTING} = '{EVERY_ORG}'"


class PostgresReader(StoreReader):
    """A connection that can only read. For one thread, which may wait; it connects anew after a fault. Errors:
    `StoreUnavailableError`."""

    def __init__(
        self, url: str, password: Callable[[], str] | None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._connection = _Connection(url, password)  # type: ignore[assignment]  # the part of one that is used
        try:
            refuse_newer(int(self._connection.execute("SELECT version FROM control_schema").fetchone()[0]))
        except BaseException:
            self._connection.close()
            raise

    def data_version(self) -> int:
        """The store's version: it rises with every commit that the data plane should see."""
        return int(self._connection.execute("SELECT version FROM control_counters").fetchone()[0])


class _Connection:
    """The part of `sqlite3.Connection` that `StoreReader` uses."""

    def __init__(self, url: str, password: Callable[[], str] | None) -> None:
        self._told = connect_parameters(url, timeout_ms=TIMEOUT_MS, application="orgate worker")
        self._told["options"] += " -c default_transaction_read_only=on"
        self._password = password
        self._open: psycopg.Connection[_Row] | None = None

    def execute(self, statement: str, values: Sequence[int] = ()) -> psycopg.Cursor[_Row]:
        with self._asking() as connection:
            if statement == "BEGIN":
                statement = _BEGIN
            return connection.execute(statement.replace("?", "%s"), values or None)

    def close(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    @contextmanager
    def _asking(self) -> Iterator[psycopg.Connection[_Row]]:
        try:
            if self._open is None:
                secret = self._password() if self._password is not None else ""
                self._open = psycopg.connect(
                    make_conninfo("", **self._told),
                    password=secret or None,
                    autocommit=True,
                    prepare_threshold=None,
                    row_factory=_rows,
                )
            yield self._open
        except psycopg.Error as error:
            self.close()
            said = str(error).partition("\n")[0]
            raise StoreUnavailableError(f"the control store cannot be read now: {said}") from None


class _Row(dict[str, Any]):
    """By name, and by place as `sqlite3.Row` has it."""

    def __getitem__(self, key: str | int) -> Any:
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


def _rows(cursor: psycopg.Cursor[Any]) -> RowMaker[_Row]:
    names = [column.name for column in cursor.description or ()]
    return lambda values: _Row(zip(names, values, strict=True))
