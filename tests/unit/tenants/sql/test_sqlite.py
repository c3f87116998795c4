"""What is SQLite's own: the file, its lock, its disk; and the reader that workers fall back to."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import AsyncExitStack
from pathlib import Path
from unittest.mock import ANY

import pytest
from msgspec import structs
from sqlalchemy import insert
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from tenants.budgets import BudgetUse, Notice, Webhook
from tenants.ids import PLATFORM, OrgId
from tenants.models import Limit, Member, ModelAlias, Org, OrgRule, Price, Revocation, State, Upstream
from tenants.prices import PriceImport
from tenants.sql import rows, tables
from tenants.sql.dialect import contains, unavailable
from tenants.sql.reader import StoreReader
from tenants.sql.store import open_store, sqlite_url
from tenants.store import NewerSchemaError, StoreUnavailableError
from tests.contract.control_store import OPERATOR, in_process, limit, model, org, price, upstream

ACME = OrgId("acme")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "control store.db"


async def test_the_file_is_its_owners_alone(file: Path) -> None:
    file.touch(mode=0o644)
    store = await open_store(sqlite_url(file))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    await store.close()
    assert modes == {file.name: 0o600, f"{file.name}-wal": 0o600, f"{file.name}-shm": 0o600}


async def test_every_connection_is_durable_and_checks_references(file: Path) -> None:
    store = await open_store(sqlite_url(file))
    async with store.engine.connect() as connection:
        found = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    await store.close()
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


async def test_a_locked_database_is_unavailable_and_then_well_again(file: Path) -> None:
    store = await open_store(sqlite_url(file), busy_timeout_ms=20)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        await store.orgs.create(org("acme"), OPERATOR)
    assert (await store.orgs.get("platform")).version == 1  # who only reads waits for nobody
    other.execute("ROLLBACK")
    other.close()
    await store.orgs.create(org("acme"), OPERATOR)
    await store.close()


async def test_a_full_disk_refuses_the_write_and_keeps_what_is_there(file: Path) -> None:
    store = await open_store(sqlite_url(file))
    await store.orgs.create(org("acme"), OPERATOR)
    limits = store.for_org(ACME).limits
    async with store.engine.connect() as connection:  # the pool has this one connection: it is used again
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
        await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    refused = None
    for number in range(1000):
        try:
            await limits.create(limit("acme", f"l{number:03}"), OPERATOR)
        except StoreUnavailableError as error:
            refused = (number, str(error))
            break
    assert refused is not None
    stored, message = refused
    assert "full" in message
    assert len((await limits.page(limit=500))[0]) == stored
    assert len(await store.outbox()) == stored + 2
    async with store.engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    await limits.create(limit("acme", f"l{stored:03}"), OPERATOR)
    await store.close()


async def test_what_is_no_database_is_unavailable(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"this is a text, not a database\n" * 200)
    with pytest.raises(StoreUnavailableError, match="not a database"):
        await open_store(sqlite_url(garbage))
    with pytest.raises(StoreUnavailableError, match="No such file"):
        await open_store(sqlite_url(tmp_path / "nowhere" / "control.db"))
    with pytest.raises(StoreUnavailableError):
        await open_store(sqlite_url(tmp_path))
    with pytest.raises(ValueError, match="sqlite:"):
        await open_store("mysql:x")


async def test_a_newer_schema_is_refused_and_left_alone(file: Path) -> None:
    store = await open_store(sqlite_url(file))
    await store.close()
    other = sqlite3.connect(file)
    other.execute("UPDATE control_schema SET version = 99")
    other.commit()
    with pytest.raises(NewerSchemaError, match="schema 99"):
        await open_store(sqlite_url(file))
    assert other.execute("SELECT version FROM control_schema").fetchall() == [(99,)]
    other.close()
    with pytest.raises(NewerSchemaError, match="schema 99"):
        StoreReader(file)


async def test_an_older_schema_is_brought_up_with_all_it_holds(file: Path) -> None:
    """Version 1 had none of the columns dropped here."""
    store = await open_store(sqlite_url(file))
    await store.orgs.create(org("acme"), OPERATOR)
    await store.for_org(ACME).upstreams.create(upstream("acme"), OPERATOR)
    await store.close()
    other = sqlite3.connect(file)
    for table, columns in (
        ("orgs", ("supersede", "deadline_ms", "holds", "durability")),
        ("upstreams", ("total_timeout_ms", "max_in_flight", "max_queue", "connection_age_s", "connection_resets")),
        ("upstreams", ("client_cert_version", "auth")),
    ):
        for column in columns:
            other.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    other.execute("UPDATE control_schema SET version = 1")
    other.commit()
    other.close()

    store = await open_store(sqlite_url(file))
    assert await store.orgs.get("acme") == structs.replace(org("acme"), created_at=ANY, version=1)
    assert await store.for_org(ACME).upstreams.get("main") == upstream("acme")
    held = structs.replace(await store.orgs.get("acme"), supersede=True, deadline_ms=900, holds=("vim/*=3",))
    assert await store.orgs.replace(held, 1, OPERATOR) == structs.replace(held, version=2)
    assert (await store.orgs.get("acme")).supersede is True
    await store.close()
    reader = StoreReader(file)
    assert reader.load()[1][0].org.holds == ("vim/*=3",)
    reader.close()


async def test_two_stores_on_one_file_keep_one_order(file: Path) -> None:
    """Two processes may hold it open while one replaces the other: versions and numbers stay unique."""
    first, second = await open_store(sqlite_url(file)), await open_store(sqlite_url(file))
    await first.orgs.create(org("acme"), OPERATOR)
    await second.for_org(ACME).limits.create(limit("acme"), OPERATOR)
    await first.for_org(ACME).limits.create(limit("acme", "second"), OPERATOR)
    assert [change.seq for change in await first.outbox()] == [1, 2, 3, 4]
    assert await first.version() == await second.version() == 4
    await first.close()
    await second.close()


async def test_when_every_connection_is_taken_the_store_is_busy(file: Path) -> None:
    store = await open_store(sqlite_url(file), busy_timeout_ms=20)
    async with AsyncExitStack() as taken:
        for _ in range(8):
            await taken.enter_async_context(store.engine.connect())
        with pytest.raises(StoreUnavailableError, match="busy"):
            await store.version()
    assert await store.version() == 1
    await store.close()


async def test_a_broken_reference_is_our_fault_and_not_the_databases(file: Path) -> None:
    """The last line of defence behind the checks: another's upstream cannot be named even by a wrong statement."""
    store = await open_store(sqlite_url(file))
    with pytest.raises(IntegrityError), unavailable():
        async with store.engine.begin() as connection:
            await connection.execute(insert(tables.models).values(rows.encode(model("platform"))))
    await store.close()


async def test_an_error_does_not_carry_values_into_a_log(file: Path) -> None:
    store = await open_store(sqlite_url(file))
    assert store.engine.sync_engine.hide_parameters
    await store.close()


async def test_the_reader_sees_what_the_store_committed(file: Path) -> None:
    store = await open_store(sqlite_url(file), clock=lambda: 1000.0)
    reader = StoreReader(file, clock=lambda: 1000.0)
    seen = reader.data_version()
    assert reader.data_version() == seen
    for name in ("acme", "globex"):
        await store.orgs.create(org(name), OPERATOR)
        mine = store.for_org(OrgId(name))
        await mine.upstreams.create(upstream(name), OPERATOR)
        await mine.models.create(model(name), OPERATOR)
        await mine.limits.create(limit(name), OPERATOR)
        await mine.prices.put([price(name, "b"), price(name, "a")], 0, OPERATOR)
    await store.for_org(ACME).prices.put([price("acme", "b", input=7), price("acme", "c")], 1, OPERATOR)
    await store.for_org(OrgId("globex")).prices.put([], 1, OPERATOR)
    await store.for_org(PLATFORM).prices.put([price("platform")], 0, OPERATOR)
    await store.orgs.replace(org("globex", state=State.SUSPENDED), 1, OPERATOR)
    assert reader.data_version() != seen
    priced = {record.org.id: [(p.model, p.input) for p in record.prices] for record in reader.load()[1]}
    assert priced == {"acme": [("b", 7), ("c", ANY)], "globex": [], "platform": [("gpt-code", ANY)]}
    _, changed, _ = await store.changed_since(0)
    records = tuple([await store.for_org(name).record() for name in changed])
    assert reader.load() == (await store.version(), records, await store.revocations(1000))
    assert reader.load()[2] == (Revocation(OrgId("globex"), 1001, 2861),)
    reader.close()
    await store.close()


def test_the_reader_says_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="unable to open"):
        StoreReader(tmp_path / "missing.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreUnavailableError, match="no such table"):
        StoreReader(tmp_path / "empty.db")


def test_the_reader_does_not_load_the_store() -> None:
    """A worker's memory is counted: SQLAlchemy has no business in it."""
    script = "import sys, tenants.sql.reader; sys.exit(any(m.startswith('sqlalchemy') for m in sys.modules))"
    assert in_process(script) == 0


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (Org, tables.orgs),
        (Member, tables.members),
        (Upstream, tables.upstreams),
        (ModelAlias, tables.models),
        (Limit, tables.limits),
        (OrgRule, tables.rules),
        (Price, tables.prices),
        (PriceImport, tables.price_imports),
        (BudgetUse, tables.budget_uses),
        (Notice, tables.budget_notices),
        (Webhook, tables.webhooks),
        (Revocation, tables.revocations),
    ],
)
def test_every_field_has_its_column(kind: type, table: object) -> None:
    assert isinstance(table, type(tables.orgs))
    assert set(rows.fields(kind)) == set(table.columns.keys()) - {"touched", "email_key"}


def test_the_schema_is_portable() -> None:
    for table in tables.metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
    assert "strpos" in str(contains(tables.orgs.c.hosts, "x", "postgresql"))


def test_an_owned_table_has_the_org_first_in_its_key() -> None:
    apart = {"orgs", "outbox", "control_schema", "control_counters", "refused_minutes"}  # the platform's own
    for table in tables.metadata.sorted_tables:
        if table.name not in apart:
            assert next(iter(table.primary_key.columns)).name == "org", table.name
