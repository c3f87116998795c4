"""The few calls by which the audit log touches a disk, so that tests can make each of them fail."""

from __future__ import annotations

import os


class Disk:
    """The real disk. Every call may raise OSError (ENOSPC, EIO); none is retried here."""

    def allocate(self, fd: int, size: int) -> None:
        """Reserve `size` bytes: writes within them cannot meet a full disk (posix_fallocate)."""
        os.posix_fallocate(fd, 0, size)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`. In the page cache then: outlives kill -9, not a power cut."""
        done = os.pwrite(fd, data, offset)
        while done < len(data):
            done += os.pwrite(fd, memoryview(data)[done:], offset + done)

    def sync(self, fd: int) -> None:
        """On stable storage when it returns."""
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Make names created, renamed or removed in `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: str | os.PathLike[str], data: bytes, disk: Disk) -> None:
    """Replace a small file as a whole, mode 0600.

    Crash before the rename: the old file stands and a `.tmp` is left, overwritten next time. Crash after it:
    either the old or the new one stands, whole, for the data is synced before the name moves.
    """
    temporary = f"{os.fspath(path)}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        disk.write(fd, data, 0)
        disk.sync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)
    sync_folder(os.path.dirname(os.fspath(path)) or ".")
