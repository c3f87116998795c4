"""Where full hash tiles are kept, by their C2SP paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from gateway.audit.disk import Disk


class Blobs(Protocol):
    """Called from several threads. Nothing in it is believed: whoever reads a tile verifies it, and can make one
    anew from the log's lines for as long as those are kept.

    Both raise OSError, its `strerror` in words, when the place cannot be asked now.
    """

    def get(self, path: str) -> bytes | None:
        """What was put under `path`, None for nothing."""

    def put(self, path: str, data: bytes) -> None:
        """Keep `data`, durable when it returns. Atomic. A path is put again only with the same bytes, or because
        what is there is damaged: the last one is right."""


class FileBlobs:
    """Implements `Blobs`: files below `folder`, which is made with the first of them (0700, files 0600).

    Crash in a `put`: a `.tmp` is left, written over next time. A power cut may take the name of a file away whose
    bytes were synced: such a tile is missing, and is made anew.
    """

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._folder = folder
        self._disk = disk or Disk()

    def get(self, path: str) -> bytes | None:
        try:
            return (self._folder / path).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, path: str, data: bytes) -> None:
        place = self._folder / path
        temporary = place.with_name(place.name + ".tmp")
        try:
            fd = self._create(temporary)
        except FileNotFoundError:
            for folder in reversed(place.relative_to(self._folder).parents):
                (self._folder / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = self._create(temporary)
        try:
            self._disk.write(fd, data, 0)
            self._disk.sync(fd)
        finally:
            os.close(fd)
        temporary.replace(place)

    def _create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
