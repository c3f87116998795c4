"""What `orgate store` does."""

from __future__ import annotations

from pathlib import Path

from cli.errors import RefusedError, UsageError
from cli.migrate import standing_still
from cli.output import Column
from cli.progress import progress
from cli.session import Session
from cli.store import Prepared
from gateway.settings import Settings, SettingsError, load
from gateway.storework import make_tables, move_store
from tenants.sql.address import parameters, shown
from tenants.sql.version import SCHEMA_VERSION
from tenants.store import StoreError


def prepare(file: Path, owner: str, password: str) -> Prepared:
    settings = _loaded(file)
    try:
        before = make_tables(settings, owner, password)
    except StoreError as error:
        raise RefusedError(str(error), "see PostgreSQL in docs/guides/operator.md") from None
    url = settings.store.url
    return Prepared(shown(url), parameters(url)["user"], before, SCHEMA_VERSION)


def move(session: Session, file: Path, source: Path) -> None:
    settings = _loaded(file)
    with standing_still(settings), progress("rows", 0) as bar:
        total = 0

        def began(rows: int) -> None:
            nonlocal total
            total = rows

        try:
            copied = move_store(settings, source, began, lambda rows: bar.advance(rows, total))
        except StoreError as error:
            raise RefusedError(str(error), "nothing was copied: mend that, and run it again") from None
    columns = [Column("TABLE", "table"), Column("ROWS", "rows")]
    session.out.items([one for one in copied if one.rows], columns, empty="nothing to copy")
    session.out.say(f"{source} is not used any more: keep it until the server has run, then remove it")


def _loaded(file: Path) -> Settings:
    try:
        settings = load(file)
    except SettingsError as error:
        raise UsageError(str(error)) from None
    if settings.database is not None:
        raise UsageError(
            f"store.url in {file} names an embedded store", "write postgresql://ROLE@HOST/DATABASE there first"
        )
    return settings
