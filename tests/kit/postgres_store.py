"""A control store in PostgreSQL for tests: tables of their owner's, a role that serves, emptied between tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import count
from urllib.parse import quote

import psycopg

from gateway.storework import METADATAS
from tenants.sql.owner import prepare
from tests.kit.postgres import PostgresServer, shared_postgres

_numbers = count()


@dataclass(frozen=True)
class ControlDatabase:
    """`owner` owns the tables, `role` serves."""

    server: PostgresServer
    name: str
    owner: str
    role: str

    @property
    def url(self) -> str:
        return self._url(self.role)

    @property
    def owner_url(self) -> str:
        return self._url(self.owner)

    def _url(self, role: str) -> str:
        return f"postgresql://{role}@/{self.name}?host={quote(str(self.server.folder))}&port={self.server.port}"

    def prepare(self) -> None:
        prepare(self.owner_url, METADATAS, runtime=self.role)

    def empty(self) -> None:
        """As it was just made. Deleting rows of what is small is several times faster than TRUNCATE."""
        with self.server.admin(self.name) as admin:
            admin.execute("SET session_replication_role = replica; SET synchronous_commit = off")
            admin.execute(
                "".join([f"DELETE FROM orgate.{table};" for table in _tables() if table != "control_schema"])
            )
            admin.execute("INSERT INTO orgate.control_counters VALUES (1, 0, 0)")


def control_database(server: PostgresServer, *, prepared: bool = True) -> ControlDatabase:
    """A database of its own."""
    number = next(_numbers)
    made = ControlDatabase(server, f"control{number}", f"control{number}_owner", f"control{number}_serves")
    with server.admin() as admin:
        for role in (made.owner, made.role):
            admin.execute(f"CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS")
        admin.execute(f"CREATE DATABASE {made.name} OWNER {made.owner} STRATEGY file_copy")
    if prepared:
        made.prepare()
    return made


@cache
def _shared() -> ControlDatabase:
    return control_database(shared_postgres())


def empty_control_database() -> ControlDatabase:
    """One of the shared server, as it was made: for one test at a time."""
    found = _shared()
    found.empty()
    return found


def as_role(database: ControlDatabase) -> psycopg.Connection:
    """A connection of the role that serves, without anything that Orgate says at its begin."""
    server = database.server
    return psycopg.connect(
        f"host={server.folder} port={server.port} dbname={database.name} user={database.role}", autocommit=True
    )


def _tables() -> list[str]:
    return [table.name for metadata in METADATAS for table in metadata.sorted_tables]
