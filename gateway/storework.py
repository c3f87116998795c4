"""What `orgate store` does to the control store: tables made by their owner, and an embedded store moved over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import MetaData

from gateway.oauth.sql import SqlOAuthStore
from gateway.oauth.tables import metadata as oauth_metadata
from gateway.secret_source import SecretSourceError, read_secret
from gateway.settings import Settings
from gateway.store_settings import store_password
from tenants.sql import tables
from tenants.sql.address import parameters, with_role
from tenants.sql.copying import CopiedTable, copy, count_rows
from tenants.sql.owner import prepare
from tenants.sql.store import open_store, sqlite_url
from tenants.store import StoreUnavailableError

METADATAS: Final[Sequence[MetaData]] = (tables.metadata, oauth_metadata)
"""Of every table in the control store: the stores imported above import the modules that add some."""


def make_tables(settings: Settings, owner: str, password: str) -> int:
    """As `owner`, whose password is in the source `password`; returns the schema's version before, 0 for none.
    Raises `StoreUnavailableError`."""
    url = settings.store.url

    def secret() -> str:
        try:
            found = read_secret(password, Path())
        except SecretSourceError as error:
            raise StoreUnavailableError(str(error)) from None
        return "" if found is None else found.reveal().decode()

    return prepare(with_role(url, owner), METADATAS, runtime=parameters(url)["user"], password=secret)


def move_store(
    settings: Settings, source: Path, began: Callable[[int], None], done: Callable[[int], None]
) -> tuple[CopiedTable, ...]:
    """Copy the embedded store in `source`, brought up to this Orgate's schema first. Raises `StoreError`."""
    if not source.is_file():
        raise StoreUnavailableError(f"{source} does not exist")
    asyncio.run(_brought_up(source))
    began(count_rows(source, METADATAS))
    return copy(
        source, settings.store.url, METADATAS, password=store_password(settings.store, settings.home), done=done
    )


async def _brought_up(source: Path) -> None:
    store = await open_store(sqlite_url(source))
    try:
        await SqlOAuthStore.open(store.engine)
    finally:
        await store.close()
