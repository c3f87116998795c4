"""The PostgreSQL server of the audit log: connections, the tables, and the lock that keeps a second writer out.

Synchronous, for threads. Whoever signs in owns the tables and is neither superuser nor past row-level security,
which is forced: a statement reaches the rows of the one organization that its connection was told, and no
others. Connections carry that with them: between here and PostgreSQL no pooler may hand one to several clients
in turn.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from gateway.audit.log_store import InUseError, StoreAwayError
from gateway.loopback import is_loopback
from gateway.secret import Secret
from tenants.ids import OrgId

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
LOCK: Final = 0x6F72_6761_7465  # "orgate", for pg_try_advisory_lock
IDLE_MAX: Final = 8
PATIENCE_S: Final = 5.0
PAUSE_S: Final = 0.05
_TIMES: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}

_TABLES: Final = """
CREATE TABLE orgate_audit.schema_version (version int NOT NULL);
-- Which organizations have a log, and nothing else of them: what a start must know before it knows any.
CREATE TABLE orgate_audit.names (org text PRIMARY KEY);
CREATE TABLE orgate_audit.logs (
    org text PRIMARY KEY,
    writer text NOT NULL,
    size bigint NOT NULL DEFAULT 0,
    begin bigint NOT NULL DEFAULT 0,
    base bytea NOT NULL DEFAULT '',
    checkpoint bytea NOT NULL DEFAULT '',
    state bytea NOT NULL DEFAULT '',
    CHECK (0 <= begin AND begin <= size)
);
CREATE TABLE orgate_audit.lines (
    org text NOT NULL REFERENCES orgate_audit.logs,
    first bigint NOT NULL,
    count int NOT NULL CHECK (count > 0),
    bytes int NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lines bytea NOT NULL,
    PRIMARY KEY (org, first)
);
CREATE TABLE orgate_audit.tiles (
    org text NOT NULL,
    path text NOT NULL,
    hashes bytea NOT NULL,
    PRIMARY KEY (org, path)
);
CREATE TABLE orgate_audit.objects (
    org text NOT NULL REFERENCES orgate_audit.logs,
    name text NOT NULL,
    version text NOT NULL,
    sha256 bytea NOT NULL,
    first bigint,
    count int,
    newest_ms bigint NOT NULL,
    until bigint NOT NULL,
    held boolean NOT NULL,
    PRIMARY KEY (org, name)
);
CREATE UNIQUE INDEX objects_first ON orgate_audit.objects (org, first) WHERE first IS NOT NULL;
"""
_ROWS: Final = ("logs", "lines", "tiles", "objects")


class ServerError(StoreAwayError):
    """PostgreSQL cannot be asked now, or not with this role."""


class PostgresServer:
    """`dsn`: a connection string or URL. `patience_s`: how long another writer has to go."""

    def __init__(self, dsn: Secret, *, patience_s: float = PATIENCE_S) -> None:
        """Raises `ServerError` for one that cannot be meant."""
        try:
            found = {key: str(value) for key, value in conninfo_to_dict(dsn.reveal().decode()).items()}
        except (psycopg.Error, UnicodeDecodeError):
            raise ServerError("audit.dsn is no connection string of PostgreSQL") from None
        hosts = [host for host in found.get("host", "").split(",") if host]
        away = [host for host in hosts if not host.startswith(("/", "@")) and not is_loopback(host)]
        if away and found.get("sslmode") not in ("verify-full", "verify-ca"):
            raise ServerError(
                f"audit.dsn leads to {away[0]} and does not ask who that is: add sslmode=verify-full"
            )
        self._dsn = dsn
        self._patience_s = patience_s
        self._times = {key: value for key, value in _TIMES.items() if key not in found}
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._guard: Connection | None = None
        self._closed = False

    # -- the writer's lock ----------------------------------------------------------------------------------

    def take(self) -> None:
        """Become the one writer, and make the tables or bring them up to date. Harmless when repeated: a lock
        that went with its connection is taken again. Raises `InUseError`, `ServerError`."""
        with self._lock:
            guard, self._guard = self._guard, None
        if guard is not None:
            with suppress(psycopg.Error):
                guard.connection.execute("SELECT 1")
                self._guard = guard
                return
            guard.close()
        guard = self._connect()
        try:
            with asking():
                self._lock_out_others(guard.connection)
                self._migrate(guard.connection)
        except BaseException:
            guard.close()
            raise
        self._guard = guard

    def _lock_out_others(self, connection: psycopg.Connection) -> None:
        """One that has just been killed holds the lock until PostgreSQL has seen that."""
        end = time.monotonic() + self._patience_s
        while connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone() != (True,):
            if time.monotonic() > end:
                raise InUseError("another process writes the audit log in this PostgreSQL database")
            time.sleep(PAUSE_S)

    def _migrate(self, connection: psycopg.Connection) -> None:
        facts = connection.execute(
            "SELECT rolsuper OR rolbypassrls, current_setting('fsync'), current_user FROM pg_roles"
            " WHERE rolname = current_user"
        ).fetchone()
        if facts is None or facts[0]:
            role = facts[2] if facts else "?"
            raise ServerError(f"role {role} is a superuser or passes row-level security: it needs one of its own")
        if facts[1] != "on":
            raise ServerError("fsync is off in this PostgreSQL: a power cut would lose what was acknowledged")
        with connection.transaction():
            connection.execute("CREATE SCHEMA IF NOT EXISTS orgate_audit")
            there = connection.execute("SELECT to_regclass('orgate_audit.schema_version') IS NOT NULL").fetchone()
            if there == (False,):
                connection.execute(_TABLES)
                for table in _ROWS:
                    for statement in (
                        "ALTER TABLE orgate_audit.{} ENABLE ROW LEVEL SECURITY",
                        "ALTER TABLE orgate_audit.{} FORCE ROW LEVEL SECURITY",
                        "CREATE POLICY one_org ON orgate_audit.{}"
                        " USING (org = current_setting('orgate.org', true))",
                    ):
                        connection.execute(psycopg.sql.SQL(statement).format(psycopg.sql.Identifier(table)))
                connection.execute("INSERT INTO orgate_audit.schema_version VALUES (%s)", (SCHEMA_VERSION,))
            found = connection.execute("SELECT version FROM orgate_audit.schema_version").fetchone()
        if found is None or found[0] > SCHEMA_VERSION:
            raise ServerError(f"the tables are of a newer Orgate ({found}): this one knows {SCHEMA_VERSION}")

    # -- connections ----------------------------------------------------------------------------------------

    @contextmanager
    def use(self, org: OrgId | None) -> Iterator[psycopg.Connection]:
        """A connection that reaches the rows of `org` (None: of nobody). Each statement is its own transaction
        unless one is begun. Raises `ServerError`: whether the last statement took place is not known then."""
        with self._lock:
            held = self._idle.pop() if self._idle else None
        if held is None:
            held = self._connect()
        try:
            with asking():
                held.tell(org or "")
                yield held.connection
        except BaseException as error:
            held.close()
            if isinstance(error, ServerError):
                self.forget()
            raise
        with self._lock:
            if len(self._idle) < IDLE_MAX and not self._closed:
                self._idle.append(held)
                return
        held.close()

    def _connect(self) -> Connection:
        with asking():
            connection = psycopg.connect(
                self._dsn.reveal().decode(),
                autocommit=True,
                application_name="orgate audit log",
                **self._times,  # type: ignore[arg-type]  # parameters of libpq, all texts
            )
            connection.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') IN ('off', 'local')"
            )
            connection.execute("SET statement_timeout = '60s'; SET lock_timeout = '15s'")
        return Connection(connection)

    def forget(self) -> None:
        """Close what is idle: after a fault, connections to a server that is gone."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.close()

    def close(self) -> None:
        self._closed = True
        self.forget()
        with self._lock:
            guard, self._guard = self._guard, None
        if guard is not None:
            guard.close()


class Connection:
    __slots__ = ("_org", "connection")

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self._org = ""

    def tell(self, org: str) -> None:
        if org != self._org:
            self.connection.execute("SELECT set_config('orgate.org', %s, false)", (org,))
            self._org = org

    def close(self) -> None:
        with suppress(psycopg.Error):
            self.connection.close()


@contextmanager
def asking() -> Iterator[None]:
    """What the driver raises, in words; they hold no secret and no row."""
    try:
        yield
    except psycopg.Error as error:
        told = error.diag.message_primary or str(error).partition("\n")[0] or type(error).__name__
        raise ServerError(f"PostgreSQL: {told}") from None
