"""From an older schema to this one: columns are only ever added, each with the value that older rows mean."""

from __future__ import annotations

from sqlalchemy import Connection, MetaData, inspect
from sqlalchemy.schema import CreateColumn


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
