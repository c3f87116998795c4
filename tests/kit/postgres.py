"""PostgreSQL for tests: Debian's server in a folder of its own, over a Unix socket, never as root.

One server for the whole run, emptied for each test; servers of one's own where one is to be killed. Whoever signs
in is neither superuser nor past row-level security.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path

import psycopg

from tests.kit.ports import free_port
from tests.kit.wait import until

_OPTIONS = (
    "max_connections=40",
    "shared_buffers=16MB",
    "listen_addresses=",
    "autovacuum=off",
    "logging_collector=off",
)


def programs() -> Path:
    """The folder of `initdb` and `postgres`. Fails where there is none: tests of the store would prove
    nothing."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    path = shutil.which("postgres")
    assert path, "there is no PostgreSQL: install Debian's package postgresql"
    return Path(path).parent


def _somebody() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid():
        return []
    user = pwd.getpwnam("postgres")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


@dataclass
class Database:
    """A database of its own, and the role that owns it."""

    server: PostgresServer
    name: str

    @property
    def dsn(self) -> str:
        return f"host={self.server.folder} port={self.server.port} dbname={self.name} user={self.name}"

    @contextmanager
    def admin(self) -> Iterator[psycopg.Connection]:
        """As the superuser: what an operator, or somebody who broke in, can do."""
        with self.server.admin(self.name) as connection:
            yield connection


@dataclass
class PostgresServer:
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    _names: Iterator[int] = field(default_factory=count)

    def make(self) -> None:
        if not os.geteuid():
            shutil.chown(self.folder, "postgres")
        initdb = [str(programs() / "initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust"]
        more = ["-N", "--no-locale", "-E", "UTF8", "--no-instructions"]
        subprocess.run([*_somebody(), *initdb, *more], check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        assert self.process is None
        options = [
            part for option in (*_OPTIONS, f"unix_socket_directories={self.folder}") for part in ("-c", option)
        ]
        server = [str(programs() / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *options]
        with Path(f"{self.folder}.log").open("ab") as log:
            # Not even a test run that is killed leaves one behind.
            command = ["setpriv", "--pdeathsig", "KILL", "--", *server]
            self.process = subprocess.Popen([*_somebody(), *command], stdout=log, stderr=log, cwd="/")
        until(self._answers, f"PostgreSQL answers: {self.folder}.log")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, Path(f"{self.folder}.log").read_text()
        try:
            psycopg.connect(self._dsn("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, *, kill: bool = False) -> None:
        """SIGINT, its fast shutdown; or SIGQUIT: all its processes end at once, and the next start recovers as
        after a power cut. (Of SIGKILL its children would hear a little later.)"""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT if kill else signal.SIGINT)
            self.process.wait(60)
            self.process = None

    def _dsn(self, database: str) -> str:
        return f"host={self.folder} port={self.port} dbname={database} user=postgres"

    @contextmanager
    def admin(self, database: str = "postgres") -> Iterator[psycopg.Connection]:
        with psycopg.connect(self._dsn(database), autocommit=True) as connection:
            yield connection

    def database(self) -> Database:
        name = f"orgate{next(self._names)}"
        with self.admin() as connection:
            connection.execute(f"CREATE ROLE {name} LOGIN NOSUPERUSER NOBYPASSRLS")
            connection.execute(f"CREATE DATABASE {name} OWNER {name} STRATEGY file_copy")
        return Database(self, name)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    # Not below pytest's folder: that one is closed to others, and a socket's path is short.
    with tempfile.TemporaryDirectory(prefix="orgate-pg-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder))
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()
            Path(f"{folder}.log").unlink(missing_ok=True)


_shared = ExitStack()
atexit.register(_shared.close)


@cache
def shared_postgres() -> PostgresServer:
    """One for the whole run, for tests that let it live."""
    return _shared.enter_context(postgres_server())


@cache
def _shared_database() -> Database:
    return shared_postgres().database()


def empty_database() -> Database:
    """A database of the shared server, as it was made: for one test at a time."""
    found = _shared_database()
    with found.admin() as connection:
        connection.execute("DROP SCHEMA IF EXISTS orgate_audit CASCADE")
    return found
