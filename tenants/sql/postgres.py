"""The engine for PostgreSQL: how connections are made, and how transactions on them begin.

One writer at a time, as with SQLite: a transaction that may write begins with an advisory lock of the whole store,
of every table in it and every node. Rules that look before they write (no host name for two organizations, one
invitation a member, one successor of a refresh token) need nothing else to hold, and versions and sequence numbers
rise in the order of the commits. Readers take no lock and see one instant (REPEATABLE READ). A process that dies
lets go of the lock with its connection, one that stands still in the middle is cut off by
`idle_in_transaction_session_timeout`; either way nothing of its transaction is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Integer, String, event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles

from tenants.sql.connecting import EVERY_ORG, SETTING, connect_parameters
from tenants.sql.dialect import ORG, READS

WRITE_LOCK: Final = 0x6F72_6761_7465_0001  # "orgate" and a number, for pg_advisory_xact_lock

_RECYCLE_S: Final = 600
_ID: Final = re.compile(r"[a-z0-9-]{1,40}")


@compiles(String, "postgresql")
def _text(kind: String, compiler: Any, **_: Any) -> str:
    """SQLite knows no longest text: what is too long is judged before it gets here, by rules that say so."""
    return f'TEXT COLLATE "{kind.collation}"' if kind.collation else "TEXT"


@compiles(Integer, "postgresql")
def _integer(kind: Integer, compiler: Any, **_: Any) -> str:
    """SQLite's have 64 bits."""
    return "BIGINT"


def create_postgres_engine(
    url: str, *, timeout_ms: int, password: Callable[[], str] | None, connections: int
) -> AsyncEngine:
    """See `tenants.sql.dialect.create_engine`. `password` is asked for each connection: a new one in its file
    needs no restart. A connection that a restart of the server has cut is noticed before it is used."""
    told = connect_parameters(url, timeout_ms=timeout_ms, application="orgate control store")
    engine = create_async_engine(
        URL.create("postgresql+psycopg"),
        hide_parameters=True,  # an error's text must not carry an e-mail address into a log
        use_native_hstore=False,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout_ms / 1000,
        pool_pre_ping=True,
        pool_recycle=_RECYCLE_S,
        # `begun` below says BEGIN and what belongs to it in one message, which cannot be prepared.
        connect_args={"autocommit": True, "prepare_threshold": None},
    )

    def connecting(dialect: object, record: object, arguments: object, named: dict[str, Any]) -> None:
        named.update(told)
        if password is not None and (secret := password()):
            named["password"] = secret

    event.listen(engine.sync_engine, "do_connect", connecting)
    event.listen(engine.sync_engine, "begin", _begun)
    event.listen(engine.sync_engine, "handle_error", _failed, retval=True)
    return engine


def _begun(connection: Connection) -> None:
    options = connection.get_execution_options()
    org = options.get(ORG, EVERY_ORG)
    if org != EVERY_ORG and not _ID.fullmatch(org):
        org = ""  # nobody's rows
    told = f"SET LOCAL {SETTING} = '{org}'"
    if options.get(READS, False):
        connection.exec_driver_sql(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {told}")
    else:
        # READ COMMITTED: the statement after the lock sees what its last holder has committed.
        connection.exec_driver_sql(
            f"BEGIN ISOLATION LEVEL READ COMMITTED; {told}; SELECT pg_advisory_xact_lock({WRITE_LOCK})"
        )


def _failed(context: ExceptionContext) -> BaseException | None:
    """PostgreSQL's DETAIL quotes the row ("Key (email_key)=(ada@…) already exists."): it goes no further."""
    found, error = context.sqlalchemy_exception, context.original_exception
    if not isinstance(found, IntegrityError) or not isinstance(error, psycopg.Error):
        return None
    error.args = (error.diag.message_primary or type(error).__name__,)
    return IntegrityError(None, None, error, hide_parameters=True)
