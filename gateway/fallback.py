"""The control store as a worker reads it while the bus is silent."""

from __future__ import annotations

from collections.abc import Callable

from gateway.settings import Settings
from gateway.store_settings import store_password
from tenants.snapshot import Snapshot
from tenants.sql.reader import StoreReader


def store_reader(settings: Settings, now: Callable[[], float]) -> StoreReader:
    """The control store, for reading alone; `now`: Unix seconds. Raises `StoreUnavailableError`."""
    if (file := settings.database) is not None:
        return StoreReader(file, clock=now)
    # Only who needs the driver pays for it.
    from tenants.sql.reader_postgres import PostgresReader  # noqa: PLC0415

    return PostgresReader(settings.store.url, store_password(settings.store, settings.home), clock=now)


class Fallback:
    """Opened when first needed."""

    def __init__(self, settings: Settings, now: Callable[[], float]) -> None:
        self._settings = settings
        self._now = now
        self._reader: StoreReader | None = None

    def data_version(self) -> int:
        return self._opened().data_version()

    def load(self) -> Snapshot:
        version, records, revocations = self._opened().load()
        return Snapshot(version, records, revocations)

    def _opened(self) -> StoreReader:
        if self._reader is None:
            self._reader = store_reader(self._settings, self._now)
        return self._reader
