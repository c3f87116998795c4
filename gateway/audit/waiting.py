"""How far the audit log is behind, from the spools' files: for when no worker can tell."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.audit.record import decode
from gateway.audit.segments import folders, names


class Waiting:
    """Receipts in the spools below `folder` that were not known to be entries when the sequencer went away.

    Reads of each segment only what came since the last time. A folder or file that goes away meanwhile counts
    nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[int, int]] = {}

    def count(self) -> int:
        """Blocks while it reads: at most what the workers wrote since the last time."""
        read: dict[Path, tuple[int, int]] = {}
        for spool in folders(self._folder):
            try:
                for path in names(spool):
                    read[path] = _more(path, *self._read.get(path, (0, 0)))
            except FileNotFoundError:
                continue
        self._read = read
        return sum(count for _, count in read.values())


def _more(path: Path, offset: int, count: int) -> tuple[int, int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(fd, os.fstat(fd).st_size - offset, offset)
    finally:
        os.close(fd)
    ends = [end for _, end in decode(data)]
    return offset + (ends[-1] if ends else 0), count + len(ends)
