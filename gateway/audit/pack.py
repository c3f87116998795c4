"""An export pack: a folder with a range of one organization's log and what is needed to verify it.

`entries.jsonl` (the lines), `checkpoint` (a signed note), `key` (its verifier key) and `manifest.json`, which
is written last: a folder without it is an export that did not finish. Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from gateway.audit.canonical import canonical

ENTRIES, CHECKPOINT, KEY, MANIFEST = "entries.jsonl", "checkpoint", "key", "manifest.json"
FILES = (ENTRIES, CHECKPOINT, KEY)
FORMAT = 1


def digest(manifest: Mapping[str, object]) -> str:
    """What the manifest's own member `digest` holds: SHA-256 of the canonical rest. It finds accidents; only
    the checkpoint's signature stops somebody who makes all of it anew."""
    return sha256(canonical({k: v for k, v in manifest.items() if k != "digest"})).hexdigest()


class PackWriter:
    """Writes a pack as its lines arrive; hashes them on the way.

    >>> with PackWriter(folder, org="acme", start=0) as pack:
    ...     for piece in download:
    ...         pack.write(piece)
    ...     pack.finish(checkpoint, key, made_at)
    """

    def __init__(self, folder: Path, *, org: str, start: int = 0) -> None:
        """Make `folder`. Raises FileExistsError when something is there: a pack is never written over."""
        folder.mkdir(mode=0o700, parents=True)
        self._folder = folder
        self._org = org
        self._start = start
        self._count = 0
        self._ragged = False
        self._hash = sha256()
        self._file = self._create(ENTRIES)

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        os.close(self._file)

    @property
    def count(self) -> int:
        """Whole entries so far."""
        return self._count

    def write(self, piece: bytes) -> None:
        """Add lines; a piece may end within one."""
        if piece:
            _write_all(self._file, piece)
            self._hash.update(piece)
            self._count += piece.count(b"\n")
            self._ragged = not piece.endswith(b"\n")

    def finish(self, checkpoint: str, key: str, made_at: int) -> None:
        """Add what verifies the lines, and the manifest. `made_at` in Unix seconds. Raises ValueError when the
        last line is cut off: the transfer did not end."""
        if self._ragged:
            raise ValueError("the export ends within an entry: the transfer was cut off")
        os.fsync(self._file)
        hashes = {ENTRIES: self._hash.hexdigest()}
        for name, text in ((CHECKPOINT, checkpoint), (KEY, key.rstrip("\n") + "\n")):
            hashes[name] = self._put(name, text.encode())
        manifest: dict[str, object] = {
            "format": FORMAT,
            "org": self._org,
            "start": self._start,
            "end": self._start + self._count,
            "count": self._count,
            "made_at": made_at,
            "sha256": hashes,
        }
        self._put(MANIFEST, canonical({**manifest, "digest": digest(manifest)}) + b"\n")

    def _put(self, name: str, data: bytes) -> str:
        fd = self._create(name)
        try:
            _write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        return sha256(data).hexdigest()

    def _create(self, name: str) -> int:
        return os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
