"""What `orgate doctor` sees of PostgreSQL: the same that a start asks for, without an engine."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg.conninfo import make_conninfo

from tenants.sql.address import shown
from tenants.sql.connecting import connect_parameters
from tenants.sql.migrate import MIGRATE
from tenants.sql.rowlevel import ROLE, USABLE, RoleFacts, role_fault
from tenants.sql.version import SCHEMA_VERSION
from tenants.store import StoreUnavailableError

TIMEOUT_MS = 2_000


def look(url: str, password: Callable[[], str] | None) -> tuple[str, str, str]:
    """What is there, what is wrong ('' for nothing), and what to do. Changes nothing. Raises
    `StoreUnavailableError` when it cannot be asked."""
    told = make_conninfo("", **connect_parameters(url, timeout_ms=TIMEOUT_MS, application="orgate doctor"))
    secret = password() if password is not None else ""
    try:
        with psycopg.connect(told, password=secret or None, autocommit=True) as connection:
            row = connection.execute(ROLE).fetchone()
            if row is None:
                raise StoreUnavailableError("PostgreSQL does not say who is signed in")
            facts = RoleFacts(*row)
            if fault := role_fault(facts):
                return "", *fault
            if connection.execute(USABLE).fetchone() != (True,):
                return "", f"there are no tables that role {facts.role} may use", MIGRATE
            schema = connection.execute("SELECT version FROM control_schema").fetchone()
            found = 0 if schema is None else int(schema[0])
            if found != SCHEMA_VERSION:
                fix = MIGRATE if found < SCHEMA_VERSION else "run the newer Orgate"
                return "", f"the database has schema {found}, this Orgate knows {SCHEMA_VERSION}", fix
            private = "TLS" if connection.pgconn.ssl_in_use else "no TLS"
            major = connection.info.server_version // 10_000
            return f"{shown(url)}: PostgreSQL {major}, role {facts.role}, schema {found}, {private}", "", ""
    except psycopg.Error as error:
        said = str(error).partition("\n")[0]
        raise StoreUnavailableError(f"{shown(url)}: {said}") from None
