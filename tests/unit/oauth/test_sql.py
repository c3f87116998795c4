"""The OAuth store over the tables of an older Orgate."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from gateway.oauth.sql import SqlOAuthStore
from gateway.oauth.store import Family
from gateway.oauth.tables import metadata
from tenants.ids import MemberId, OrgId
from tenants.sql.store import open_store, sqlite_url

OLD = Family("f1", OrgId("acme"), MemberId("mem_ada"), "orgate-cli", "t0", created_at=1.0, expires_at=9e9)


def schema(file: Path) -> set[tuple[str, ...]]:
    """Every column and every index that is no part of its table's definition."""
    other = sqlite3.connect(file)
    tables = [table.name for table in metadata.sorted_tables]
    columns = {(name, row[1]) for name in tables for row in other.execute(f"PRAGMA table_info({name})")}
    indexes = set(
        other.execute("SELECT tbl_name, 'index', name FROM sqlite_master WHERE sql LIKE 'CREATE INDEX%'")
    )
    other.close()
    return columns | indexes


async def test_older_tables_are_brought_up_with_all_they_hold(tmp_path: Path) -> None:
    file = tmp_path / "control.db"
    control = await open_store(sqlite_url(file))
    store = await SqlOAuthStore.open(control.engine)
    assert await store.password(OLD.org, OLD.member) is None
    await control.close()
    made = schema(file)

    other = sqlite3.connect(file)
    row = ["f1", "acme", "mem_ada", "orgate-cli", "t0", "1.0", "9000000000.0", "[]", "0.0"]
    other.execute(
        "INSERT INTO oauth_families (id, org, member, client, current, created_at, expires_at, recent, ended_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    )
    other.execute("DROP INDEX oauth_families_member")
    other.execute("DROP TABLE oauth_codes")
    for table in metadata.sorted_tables:  # the columns that came later
        for column in table.columns:
            if column.server_default is not None and table.name != "oauth_codes":
                for index in table.indexes:
                    if column.name in index.columns:
                        other.execute(f"DROP INDEX IF EXISTS {index.name}")
                other.execute(f'ALTER TABLE {table.name} DROP COLUMN "{column.name}"')
    other.commit()
    other.close()
    assert schema(file) < made

    control = await open_store(sqlite_url(file))
    store = await SqlOAuthStore.open(control.engine)
    assert schema(file) == made
    assert await store.family("f1") == OLD
    await control.close()
