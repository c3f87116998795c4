"""The control store as a worker reads it while the bus is silent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tenants.snapshot import Snapshot
from tenants.sql.reader import StoreReader


class Fallback:
    """Opened when first needed."""

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        """`now`: Unix seconds."""
        self._path = path
        self._now = now
        self._reader: StoreReader | None = None

    def data_version(self) -> int:
        return self._opened().data_version()

    def load(self) -> Snapshot:
        version, records, revocations = self._opened().load()
        return Snapshot(version, records, revocations)

    def _opened(self) -> StoreReader:
        if self._reader is None:
            self._reader = StoreReader(self._path, clock=self._now)
        return self._reader
