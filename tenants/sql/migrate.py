"""From an older schema to this one: columns are only ever added, each with the value that older rows mean."""

from __future__ import annotations

from sqlalchemy import Connection, inspect
from sqlalchemy.schema import CreateColumn

from tenants.sql import tables


def migrate(connection: Connection) -> None:
    """Add what is missing. Part of the caller's transaction; running it again changes nothing."""
    found = inspect(connection)
    known = set(found.get_table_names())
    tables.metadata.create_all(connection)
    for table in tables.metadata.sorted_tables:
        if table.name not in known:
            continue
        present = {column["name"] for column in found.get_columns(table.name)}
        for column in table.columns:
            if column.name not in present:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
