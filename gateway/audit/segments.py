"""A worker's spool folder: preallocated segment files, and the lock that says its worker is alive.

`<spools>/<boot>/lock` is held (flock) for as long as the worker lives, kill -9 included: whoever can take it
knows that the worker is dead. `<spools>/<boot>/<number>.seg` hold records, in order; what lies beside them is
`gateway.audit.intents`.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from gateway.audit.disk import Disk, sync_folder
from gateway.audit.record import RECORD_MAX

SUFFIX = ".seg"
GONE = ".gone-"


class Segment:
    """One preallocated file. `end` is where the next record goes, `sealed` when nothing more will be written."""

    __slots__ = ("end", "fd", "number", "path", "read", "sealed", "size")

    def __init__(self, folder: Path, number: int, size: int, disk: Disk) -> None:
        """Reserve the file on disk; raises OSError (ENOSPC) and leaves nothing behind."""
        self.path = folder / f"{number:08}{SUFFIX}"
        self.number = number
        self.size = size
        self.end = 0
        self.read = 0
        self.sealed = False
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            disk.allocate(self.fd, size)
            disk.sync(self.fd)
            sync_folder(folder)
        except OSError:
            self.remove()
            raise

    @property
    def room(self) -> int:
        """How many more records fit for certain."""
        return 0 if self.sealed else (self.size - self.end) // RECORD_MAX

    @property
    def forwarded(self) -> bool:
        return self.read >= self.end

    def remove(self) -> None:
        """Every record in it is an entry now. Crash before: the records are sent again, and known as repeats."""
        os.close(self.fd)
        self.path.unlink()


def make_folder(spools: Path, boot: str) -> tuple[Path, int]:
    """A locked folder for `boot`, and the lock's descriptor.

    It is locked under a name that nobody looks at and renamed then: whoever sees it sees it locked. Crash
    before the rename: an empty folder with a dot is left, and means nothing.
    """
    spools.mkdir(mode=0o700, parents=True, exist_ok=True)
    hidden, folder = spools / f".{boot}", spools / boot
    hidden.mkdir(mode=0o700)
    fd = os.open(hidden / "lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    hidden.rename(folder)
    sync_folder(spools)
    return folder, fd


def take_over(folder: Path) -> int | None:
    """Take the lock of a dead worker's folder; None when its worker lives or the folder is just going away."""
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def folders(spools: Path) -> list[Path]:
    """The spools there are, of the living and the dead, the oldest first: a log remembers only so many workers,
    and those that it knows were there before those that came while it was away."""
    if not spools.is_dir():
        return []
    return sorted((path for path in spools.iterdir() if path.is_dir() and not path.name.startswith(".")), key=_age)


def _age(folder: Path) -> tuple[int, str]:
    """When its worker made it: its lock is never written to."""
    with suppress(OSError):
        return (folder / "lock").stat().st_mtime_ns, folder.name
    return 0, folder.name


def names(folder: Path) -> list[Path]:
    """The segments of a folder in the order in which they were written."""
    return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)


def remove_folder(folder: Path) -> None:
    """Forget a spool whose records are all entries now.

    Crash before the rename: all of it is there, and all repeats. After it nobody reads it again: an intent
    could not be judged without the receipts that may have gone before it. `sweep` removes what is left.
    """
    _delete(folder.rename(folder.with_name(f"{GONE}{folder.name}")))


def sweep(spools: Path) -> None:
    """Remove what a crash in `remove_folder` left: it names members, who may have to be erased."""
    if spools.is_dir():
        for folder in spools.glob(f"{GONE}*"):
            _delete(folder)


def _delete(folder: Path) -> None:
    """Two may do it at a time."""
    for path in [*folder.glob("*")]:
        path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        folder.rmdir()
