"""The places where a `LogStore` is found, for the contract suite; as a program, a second process at one of them.

`python -m tests.contract.log_store KIND ARGUMENT…` opens the log of `acme` there and appends a line; it prints
what came of it.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from gateway.audit.files import FileLogs
from gateway.audit.log_store import FencedError, InUseError, LogStore, LogStores
from tests.fakes.audit import ACME, FaultyDisk, lines


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


def started(stores: LogStores, size: int = 0) -> LogStore:
    """The log of `acme`, ready to be written; `size` entries are expected in it."""
    log = stores.open(ACME)
    assert len(list(log.replay(0, {}))) == size
    log.ready()
    assert log.size == size
    return log


KINDS: dict[str, Callable[..., Backend]] = {"files": lambda folder: Files(Path(folder))}


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
