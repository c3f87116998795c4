"""From the settings `[audit]` to where logs are kept.

What speaks to PostgreSQL and S3 is half a second of imports and 20 MB: it is loaded only where it is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.audit.files import FileLogs
from gateway.audit.log_store import LogStores, StoreAwayError
from gateway.audit_settings import AuditStoreSettings
from gateway.secret import Secret
from gateway.secret_source import SecretSourceError, read_secret

if TYPE_CHECKING:
    from gateway.audit.objects import Objects
    from gateway.audit.postgres_server import PostgresServer


def open_stores(settings: AuditStoreSettings, folder: Path, home: Path, kind: str = "") -> LogStores:
    """The store that `settings` describe, or that of another `kind` with what they say of it. `folder` is
    `<audit>`; relative paths are below `home`. Raises `StoreAwayError`; connects when it is first asked."""
    if (kind or settings.store) == "files":
        return FileLogs(folder)
    from gateway.audit.mover import Sizes  # noqa: PLC0415
    from gateway.audit.postgres import PostgresLogs  # noqa: PLC0415

    sizes = Sizes(settings.segment_bytes, settings.segment_age_s)
    return PostgresLogs(_server(settings, home), _objects(settings, home), folder, sizes)


def check_server(settings: AuditStoreSettings, home: Path) -> None:
    """Ask PostgreSQL something, beside whoever writes there. Raises `StoreAwayError`."""
    server = _server(settings, home)
    with server.use(None) as connection:
        connection.execute("SELECT 1")
    server.close()


def check_bucket(settings: AuditStoreSettings, home: Path) -> None:
    """See whether the bucket locks. Raises `StoreAwayError`."""
    objects = _objects(settings, home)
    objects.check()
    objects.close()


def _server(settings: AuditStoreSettings, home: Path) -> PostgresServer:
    from gateway.audit.postgres_server import PostgresServer  # noqa: PLC0415

    dsn = read_source("audit.dsn", settings.dsn, home)
    if dsn is None:
        raise StoreAwayError("audit.dsn is empty: name the file that says how PostgreSQL is reached")
    return PostgresServer(dsn)


def _objects(settings: AuditStoreSettings, home: Path) -> Objects:
    from gateway.audit.objects import Objects  # noqa: PLC0415

    if not settings.bucket:
        raise StoreAwayError("audit.bucket is empty: name the bucket; it must have been made with Object Lock")
    return Objects(
        settings.bucket,
        settings.prefix,
        endpoint=settings.endpoint,
        region=settings.region,
        key=read_source("audit.s3_key", settings.s3_key, home),
        ca=str(home / settings.s3_ca) if settings.s3_ca else "",
    )


def read_source(name: str, source: str, home: Path) -> Secret | None:
    """As `read_secret`; `name` is the setting's. Raises `StoreAwayError`, without the secret."""
    try:
        return read_secret(source, home)
    except SecretSourceError as error:
        raise StoreAwayError(f"{name}: {error}") from None
