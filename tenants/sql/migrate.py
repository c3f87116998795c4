"""From an older schema to this one: columns are only ever added, each with the value that older rows mean."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, MetaData, inspect
from sqlalchemy.schema import CreateColumn

from tenants.store import StoreUnavailableError

MIGRATE: Final = "run `orgate store migrate`"

_COLUMNS: Final = """
SELECT c.relname, a.attname FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND c.relnamespace = to_regnamespace(current_schema())
"""


def bring_up(connection: Connection, metadata: MetaData) -> None:
    """`migrate` where whoever serves owns the tables, `require` where they don't."""
    (require if connection.dialect.name == "postgresql" else migrate)(connection, metadata)


def require(connection: Connection, metadata: MetaData) -> None:
    """Raise `StoreUnavailableError` when a table or a column of `metadata` is missing."""
    found = {(table, column) for table, column in connection.exec_driver_sql(_COLUMNS)}
    for table in metadata.sorted_tables:
        for column in table.columns:
            if (table.name, column.name) not in found:
                raise StoreUnavailableError(
                    f"the database is of an older Orgate: it has no {table.name}.{column.name}; {MIGRATE}"
                )


def migrate(connection: Connection, metadata: MetaData) -> None:
    """Add the tables, columns and indexes of `metadata` that are missing. Part of the caller's transaction;
    running it again changes nothing. What rows there are get a new column's `server_default`."""
    found = inspect(connection)
    known = set(found.get_table_names())
    metadata.create_all(connection)
    for table in metadata.sorted_tables:
        if table.name not in known:
            continue
        present = {column["name"] for column in found.get_columns(table.name)}
        for column in table.columns:
            if column.name not in present:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
        indexed = {index["name"] for index in found.get_indexes(table.name)}
        for index in table.indexes:
            if index.name not in indexed:
                index.create(connection)
