"""From an older schema to this one: columns are only ever added, each with the value that older rows mean."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from sqlalchemy import Connection, MetaData
from sqlalchemy.schema import CreateColumn

from tenants.store import StoreUnavailableError

MIGRATE: Final = "run `orgate store migrate`"

_COLUMNS: Final = {
    "sqlite": """
SELECT m.name, c.name FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c WHERE m.type = 'table'
""",
    "postgresql": """
SELECT c.relname, a.attname FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND c.relnamespace = to_regnamespace(current_schema())
""",
}
_INDEXES: Final = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index'",
    "postgresql": "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()",
}


def bring_up(connection: Connection, metadata: MetaData) -> None:
    """`migrate` where whoever serves owns the tables, `require` where they don't."""
    (require if connection.dialect.name == "postgresql" else migrate)(connection, metadata)


def migrate(connection: Connection, metadata: MetaData) -> None:
    """Add the tables, columns and indexes of `metadata` that are missing. Part of the caller's transaction;
    running it again changes nothing. What rows there are get a new column's `server_default`."""
    present = _columns(connection)
    missing = [table for table in metadata.sorted_tables if table.name not in present]
    metadata.create_all(connection, missing, checkfirst=False)
    indexed = {name for (name,) in connection.exec_driver_sql(_INDEXES[connection.dialect.name])}
    for table in metadata.sorted_tables:
        if table.name not in present:
            continue
        for column in table.columns:
            if column.name not in present[table.name]:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
        for index in table.indexes:
            if index.name not in indexed:
                index.create(connection)


def require(connection: Connection, metadata: MetaData) -> None:
    """Raise `StoreUnavailableError` when a table or a column of `metadata` is missing."""
    present = _columns(connection)
    for table in metadata.sorted_tables:
        for column in table.columns:
            if column.name not in present.get(table.name, ()):
                raise StoreUnavailableError(
                    f"the database is of an older Orgate: it has no {table.name}.{column.name}; {MIGRATE}"
                )


def _columns(connection: Connection) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for table, column in connection.exec_driver_sql(_COLUMNS[connection.dialect.name]):
        found[table].add(column)
    return dict(found)
