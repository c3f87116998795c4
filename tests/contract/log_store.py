"""The places where a `LogStore` is found, for the contract suite; as a program, a second process at one of them.

`python -m tests.contract.log_store KIND ARGUMENT…` opens the log of `acme` there and appends a line; it prints
what came of it.
"""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest

from gateway.audit.files import FileLogs
from gateway.audit.log_store import FencedError, InUseError, LogStore, LogStores, Rule
from gateway.audit.mover import Sizes
from gateway.audit.objects import Objects
from gateway.audit.postgres import PostgresLogs
from gateway.audit.postgres_server import PostgresServer, ServerError
from gateway.secret import Secret
from tenants.ids import OrgId
from tests.fakes.audit import ACME, FaultyDisk, lines
from tests.fakes.s3 import KEY_ID, SECRET, fake_s3
from tests.kit.postgres import empty_database


class Backend(ABC):
    """One place. `open` is what a process does when it starts there."""

    arguments: tuple[str, ...]
    """From which another process makes the same place."""

    @abstractmethod
    def open(self) -> LogStores: ...

    @abstractmethod
    def fail(self, *, written: bool) -> None:
        """Until `mend`, appends and saves fail; `written`: after they have done their work, so that only the
        answer is missing."""

    @abstractmethod
    def mend(self) -> None: ...

    def tear(self) -> None:  # noqa: B027  # a store whose writes are transactions leaves nothing torn
        """Leave what a power cut within an append leaves."""

    @abstractmethod
    def age(self, log: LogStore) -> None:
        """Make what was written until now old enough to be dropped, as far as the store's own time goes."""


class Files(Backend):
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = FaultyDisk()
        self.arguments = ("files", str(folder))

    def open(self) -> LogStores:
        return FileLogs(self.folder, disk=self.disk, segment_bytes=4_000)

    def fail(self, *, written: bool) -> None:
        self.disk.torn = 10**9 if written else 100
        self.disk.broken("write", "sync")

    def mend(self) -> None:
        self.disk.mend()

    def tear(self) -> None:
        last = max(self.folder.glob("orgs/acme/log-*"))
        with last.open("ab") as file:
            file.write(b'{"torn')

    def age(self, log: LogStore) -> None:
        for path in self.folder.glob("orgs/acme/log-*"):
            os.utime(path, (1_763_690_100, 1_763_690_100))


class FaultyServer(PostgresServer):
    """The real one, at the end of a connection that breaks when told."""

    failing = ""

    @contextmanager
    def use(self, org: OrgId | None) -> Iterator[psycopg.Connection]:
        if self.failing == "before":
            raise ServerError("PostgreSQL: the connection is broken")
        with super().use(org) as connection:
            yield connection
        if self.failing == "after":
            raise ServerError("PostgreSQL: the connection broke before the answer")


class PostgresAndObjects(Backend):
    """`dsn` of a database of its own, `url` and `bucket` of the objects, `folder`: what the machine remembers."""

    def __init__(self, dsn: str, url: str, bucket: str, key: str, folder: str, prefix: str = "orgate") -> None:
        self.arguments = ("postgres+s3", dsn, url, bucket, key, folder, prefix)
        self.prefix = prefix
        self.dsn, self.url, self.bucket, self.key, self.folder = dsn, url, bucket, key, Path(folder)
        self.failing = ""
        self.ahead_s = 0.0
        self.sizes = Sizes(12_000, 3_600)
        self.servers: list[FaultyServer] = []

    def open(self) -> PostgresLogs:
        server = FaultyServer(Secret(self.dsn), patience_s=0.3)
        server.failing = self.failing
        self.servers.append(server)
        return PostgresLogs(server, self.objects(), self.folder, self.sizes, lambda: time.time() + self.ahead_s)

    def objects(self) -> Objects:
        return Objects(self.bucket, self.prefix, endpoint=self.url, key=Secret(self.key), tries=1)

    def fail(self, *, written: bool) -> None:
        self.failing = "after" if written else "before"
        for server in self.servers:
            server.failing = self.failing

    def mend(self) -> None:
        self.failing = ""
        for server in self.servers:
            server.failing = ""

    def age(self, log: LogStore) -> None:
        log.tend(Rule(1_000, held=False), log.checkpoint(), time.time_ns() // 10**6)
        self.ahead_s += 10 * 86_400


@contextmanager
def on_files(folder: Path) -> Iterator[Backend]:
    yield Files(folder)


@contextmanager
def on_postgres(folder: Path) -> Iterator[Backend]:
    with fake_s3() as s3:
        dsn = empty_database().dsn
        backend = PostgresAndObjects(dsn, s3.url, "audit", f"{KEY_ID}:{SECRET}", str(folder))
        yield backend
        for server in backend.servers:
            server.close()


@contextmanager
def on_a_real_bucket(folder: Path) -> Iterator[Backend]:
    """`ORGATE_TEST_S3=URL,BUCKET,ID:SECRET`: a bucket with Object Lock. What is put there stays for a day."""
    where = os.environ.get("ORGATE_TEST_S3", "")
    if not where:
        pytest.skip(
            "no S3-compatible server: the fake stands for it; ORGATE_TEST_S3=URL,BUCKET,ID:SECRET names one"
        )
    url, bucket, key = where.split(",", 2)
    dsn, prefix = empty_database().dsn, f"test-{token_hex(8)}"
    backend = PostgresAndObjects(dsn, url, bucket, key, str(folder), prefix)
    yield backend
    for server in backend.servers:
        server.close()


def started(stores: LogStores, size: int = 0) -> LogStore:
    """The log of `acme`, ready to be written; `size` entries are expected in it."""
    log = stores.open(ACME)
    assert len(list(log.replay(0, {}))) == size
    log.ready()
    assert log.size == size
    return log


PLACES: dict[str, Callable[[Path], AbstractContextManager[Backend]]] = {
    "files": on_files,
    "postgres+s3": on_postgres,
    "postgres+real-s3": on_a_real_bucket,
}
KINDS: dict[str, Callable[..., Backend]] = {
    "files": lambda folder: Files(Path(folder)),
    "postgres+s3": PostgresAndObjects,
}


def second(kind: str, *arguments: str) -> str:
    """What a second process meets."""
    stores = KINDS[kind](*arguments).open()
    try:
        log = stores.open(ACME)
        size = len(list(log.replay(0, {})))
        log.ready()
        log.append(lines(size + 1)[0][size:])
    except (FencedError, InUseError) as error:
        return type(error).__name__
    return "appended"


if __name__ == "__main__":
    print(second(*sys.argv[1:]))
