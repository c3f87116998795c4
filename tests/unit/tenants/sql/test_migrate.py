"""What a later schema adds reaches tables that an earlier one made, with what their rows mean."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Index, Integer, MetaData, String, Table, create_engine, insert, inspect, select
from sqlalchemy.exc import OperationalError

from tenants.sql.migrate import migrate


def first() -> MetaData:
    metadata = MetaData()
    Table("things", metadata, Column("id", String(8), primary_key=True))
    return metadata


def second(*more: Column[str]) -> MetaData:
    metadata = MetaData()
    Table(
        "things",
        metadata,
        Column("id", String(8), primary_key=True),
        Column("kind", String(8), nullable=False, server_default="plain"),
        Column("limit", Integer, nullable=False, server_default="0"),
        Index("things_kind", "kind"),
        *more,
    )
    Table("others", metadata, Column("id", String(8), primary_key=True))
    return metadata


def test_tables_columns_and_indexes_are_added_once() -> None:
    engine, before, now = create_engine("sqlite://"), first(), second()
    with engine.begin() as connection:
        migrate(connection, before)
        connection.execute(insert(before.tables["things"]).values(id="old"))
        for _ in range(2):
            migrate(connection, now)
        connection.execute(insert(now.tables["things"]).values(id="new", kind="odd", limit=3))
        assert list(connection.execute(select(now.tables["things"]).order_by("id"))) == [
            ("new", "odd", 3),
            ("old", "plain", 0),
        ]
        found = inspect(connection)
        assert found.get_table_names() == ["others", "things"]
        assert [index["name"] for index in found.get_indexes("things")] == ["things_kind"]
    engine.dispose()


def test_a_column_that_older_rows_have_no_value_for_is_refused() -> None:
    engine, before = create_engine("sqlite://"), first()
    with engine.begin() as connection:
        migrate(connection, before)
        connection.execute(insert(before.tables["things"]).values(id="old"))
        with pytest.raises(OperationalError, match="NOT NULL"):
            migrate(connection, second(Column("owner", String(8), nullable=False)))
    engine.dispose()
