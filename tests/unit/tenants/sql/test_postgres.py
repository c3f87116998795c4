"""What only PostgreSQL has: policies that hold whatever a statement says, roles, a server that goes away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError, ProgrammingError

from gateway.oauth.sql import SqlOAuthStore
from gateway.oauth.store import StoredInvitation
from gateway.storework import METADATAS
from tenants.ids import MemberId, OrgId
from tenants.sql import tables
from tenants.sql.database import Database
from tenants.sql.looking import look
from tenants.sql.postgres import WRITE_LOCK
from tenants.sql.reader_postgres import PostgresReader
from tenants.sql.rowlevel import column_of
from tenants.sql.store import SqlControlStore, open_store
from tenants.store import NewerSchemaError, ServerAwayError, StoreUnavailableError
from tests.contract.control_store import OPERATOR, limit, member, org, upstream
from tests.kit.postgres import postgres_server, shared_postgres
from tests.kit.postgres_store import ControlDatabase, as_role, control_database, empty_control_database

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
OWNED = [table.name for metadata in METADATAS for table in metadata.sorted_tables if "org" in table.c]


@pytest.fixture
def database() -> ControlDatabase:
    return empty_control_database()


@pytest.fixture
async def store(database: ControlDatabase) -> AsyncIterator[SqlControlStore]:
    opened = await open_store(database.url, busy_timeout_ms=300)
    yield opened
    await opened.close()


@pytest.fixture
async def two(store: SqlControlStore) -> SqlControlStore:
    for one in ("acme", "globex"):
        await store.orgs.create(org(one), OPERATOR)
        await store.for_org(OrgId(one)).members.create(member(one), OPERATOR)
        await store.for_org(OrgId(one)).limits.create(limit(one), OPERATOR)
    oauth = await SqlOAuthStore.open(store.engine)
    for number, one in enumerate((ACME, GLOBEX)):
        await oauth.invite(StoredInvitation(f"d{number}", one, MemberId("mem_1"), 2**40))
    return store


# -- row-level security -----------------------------------------------------------------------------------


def seen(connection: psycopg.Connection, table: str) -> set[str]:
    return {row[0] for row in connection.execute(f"SELECT org FROM orgate.{table}").fetchall()}


async def test_a_raw_statement_reads_the_rows_of_the_org_it_was_told(
    two: SqlControlStore, database: ControlDatabase
) -> None:
    full = {"members", "limits", "rules", "outbox", "oauth_invitations"}
    with as_role(database) as connection:
        for table in OWNED:
            assert seen(connection, table) == set(), f"{table}: whoever was told nothing reads nothing"
        connection.execute("SET orgate.org = 'acme'")
        assert {table: seen(connection, table) for table in full} == {table: {"acme"} for table in full}
        assert all(seen(connection, table) <= {"acme"} for table in OWNED)
        assert connection.execute("SELECT id FROM orgate.orgs").fetchall() == [("acme",)]
        connection.execute("SET orgate.org = '*'")
        assert seen(connection, "members") == {"acme", "globex"}


async def test_nor_is_a_row_of_another_org_written(two: SqlControlStore, database: ControlDatabase) -> None:
    with as_role(database) as connection:
        connection.execute("SET orgate.org = 'acme'")
        assert connection.execute("UPDATE orgate.members SET name = 'x'").rowcount == 1
        assert connection.execute("DELETE FROM orgate.oauth_invitations").rowcount == 1
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            connection.execute("UPDATE orgate.limits SET org = 'globex'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            connection.execute("INSERT INTO orgate.oauth_passwords VALUES ('globex', 'mem_1', 'hash')")
    assert (await two.for_org(GLOBEX).members.get("mem_1")).name == "A Person"


async def test_a_forgotten_where_finds_nothing_of_another(two: SqlControlStore) -> None:
    database = Database(two.engine, lambda: 1.0)
    everybody, mine = select(tables.members.c.org), database.of(ACME)
    async with database.read() as connection:
        assert set((await connection.execute(everybody)).scalars()) == {"acme", "globex"}
    async with mine.read() as connection:
        assert set((await connection.execute(everybody)).scalars()) == {"acme"}
    async with mine.write() as transaction:
        changed = await transaction.connection.execute(update(tables.members).values(name="changed"))
        assert changed.rowcount == 1
    for odd in ("ACME", "acme' OR true --", "", "%s"):
        async with database.of(odd).read() as connection:
            assert (await connection.execute(everybody)).first() is None
    with pytest.raises(ProgrammingError, match="row-level security"):
        async with mine.write() as transaction:
            await transaction.queue(GLOBEX, "org.update", "globex", OPERATOR, {})
    assert (await two.for_org(GLOBEX).members.get("mem_1")).name == "A Person"


def test_every_table_of_an_organization_is_forced(database: ControlDatabase) -> None:
    with database.server.admin(database.name) as admin:
        rows = admin.execute(
            "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity, count(p.polname) FROM pg_class c"
            " LEFT JOIN pg_policy p ON p.polrelid = c.oid"
            " WHERE c.relnamespace = 'orgate'::regnamespace AND c.relkind = 'r' GROUP BY 1, 2"
        ).fetchall()
    forced = {name for name, is_forced, policies in rows if is_forced and policies == 1}
    assert forced == {t.name for metadata in METADATAS for t in metadata.sorted_tables if column_of(t)}
    assert forced >= {*OWNED, "orgs"}
    # Those without say nothing of an organization; who adds one says so here.
    said_here = {"control_schema", "control_counters", "refused_minutes", "oauth_attempts"}
    assert {name for name, *_ in rows} - forced == said_here


def test_the_owner_makes_every_table_there_is() -> None:
    """Whatever adds tables is imported by what makes them, and not by the control process alone."""
    counted = "print([len(one.tables) for one in METADATAS])"
    script = f"from gateway.storework import METADATAS\n{counted}\nimport gateway.control\n{counted}"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    before, after = said.splitlines()
    assert before == after


# -- roles and schema -------------------------------------------------------------------------------------


async def refusal(url: str) -> str:
    with pytest.raises(StoreUnavailableError) as refused:
        await open_store(url)
    return str(refused.value)


async def test_who_could_pass_the_policies_does_not_serve(database: ControlDatabase) -> None:
    superuser = database.url.replace(database.role, "postgres")
    assert "postgres is a superuser" in await refusal(superuser)
    assert "is a superuser" in look(superuser, None)[1]
    assert f"role {database.owner} owns the table" in await refusal(database.owner_url)
    with database.server.admin(database.name) as admin:
        for harm, mend, said in (
            (f"ALTER ROLE {database.role} BYPASSRLS", f"ALTER ROLE {database.role} NOBYPASSRLS", "BYPASSRLS"),
            (
                f"GRANT {database.owner} TO {database.role}",
                f"REVOKE {database.owner} FROM {database.role}",
                "member",
            ),
            (
                "ALTER TABLE orgate.limits NO FORCE ROW LEVEL SECURITY",
                "ALTER TABLE orgate.limits FORCE ROW LEVEL SECURITY",
                "table limits has no forced row-level security",
            ),
        ):
            admin.execute(harm)
            assert said in await refusal(database.url)
            seen, wrong, fix = look(database.url, None)
            assert (seen, bool(fix)) == ("", True)
            assert said in wrong
            admin.execute(mend)
    assert look(database.url, None)[0].startswith(f"postgresql://{database.role}@/{database.name}: PostgreSQL ")
    await (await open_store(database.url)).close()


async def test_a_schema_that_is_not_this_one() -> None:
    database = control_database(shared_postgres(), prepared=False)
    assert "no tables that role" in await refusal(database.url)
    assert "orgate store migrate" in look(database.url, None)[2]
    database.prepare()
    with database.server.admin(database.name) as admin:
        admin.execute("UPDATE orgate.control_schema SET version = 1")
        assert "schema 1" in await refusal(database.url)
        assert look(database.url, None)[2] == "run `orgate store migrate`"
        admin.execute(
            "ALTER TABLE orgate.orgs DROP COLUMN weight; ALTER TABLE orgate.limits NO FORCE ROW LEVEL SECURITY"
        )
        database.prepare()
        await (await open_store(database.url)).close()
        assert admin.execute("SELECT weight FROM orgate.orgs").fetchall() == [(1,)]
        admin.execute("ALTER TABLE orgate.oauth_families DROP COLUMN recent")
        store = await open_store(database.url)
        with pytest.raises(StoreUnavailableError, match=r"no oauth_families\.recent"):
            await SqlOAuthStore.open(store.engine)
        await store.close()
        admin.execute("UPDATE orgate.control_schema SET version = 999")
    with pytest.raises(NewerSchemaError, match="schema 999"):
        await open_store(database.url)
    with pytest.raises(NewerSchemaError, match="schema 999"):
        database.prepare()
    with pytest.raises(NewerSchemaError, match="schema 999"):
        PostgresReader(database.url, None)


def test_the_role_that_serves_changes_no_schema(database: ControlDatabase) -> None:
    with as_role(database) as connection:
        for statement in (
            "UPDATE orgate.control_schema SET version = 0",
            "DROP POLICY one_org ON orgate.members",
            "ALTER TABLE orgate.members DISABLE ROW LEVEL SECURITY",
            "CREATE TABLE orgate.mine (id int)",
            "TRUNCATE orgate.members",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


# -- one writer, failures ---------------------------------------------------------------------------------


async def test_writers_of_two_processes_keep_one_order(database: ControlDatabase) -> None:
    stores = [await open_store(database.url) for _ in range(2)]
    await stores[0].orgs.create(org("acme"), OPERATOR)
    before = await stores[0].version()
    await asyncio.gather(
        *(stores[n % 2].for_org(ACME).limits.create(limit("acme", f"l{n:02}"), OPERATOR) for n in range(20))
    )
    changes = await stores[1].outbox()
    assert [change.seq for change in changes] == list(range(1, len(changes) + 1))
    assert await stores[1].version() == before + 20
    for store in stores:
        await store.close()


async def test_a_write_waits_for_another_only_so_long(store: SqlControlStore, database: ControlDatabase) -> None:
    with as_role(database) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (WRITE_LOCK,))
        with pytest.raises(StoreUnavailableError, match="lock timeout"):
            await store.orgs.create(org("acme"), OPERATOR)
        assert await store.version() == 1  # who reads waits for nobody
    await store.orgs.create(org("acme"), OPERATOR)


async def test_a_refused_row_is_not_quoted(two: SqlControlStore) -> None:
    async with two.engine.connect() as connection:
        with pytest.raises(IntegrityError) as refused:
            await connection.execute(
                insert(tables.upstream_keys).values(org="nobody-at-example", name="secret-name", state="x")
            )
    chain: BaseException | None = refused.value
    while chain is not None:
        assert "secret-name" not in str(chain)
        assert "nobody" not in str(chain)
        chain = chain.__cause__ or chain.__context__


@pytest.fixture(scope="module")
def mortal() -> Iterator[ControlDatabase]:
    with postgres_server() as server:
        yield control_database(server)


async def test_a_restart_of_the_server_is_survived(mortal: ControlDatabase) -> None:
    asked = 0

    def password() -> str:
        nonlocal asked
        asked += 1
        return "not asked for"

    store = await open_store(mortal.url, password=password)
    oauth = await SqlOAuthStore.open(store.engine)
    reader = PostgresReader(mortal.url, password)
    await store.orgs.create(org("acme"), OPERATOR)
    assert reader.data_version() == await store.version()
    mortal.server.stop(kill=True)
    for broken in (store.version(), store.orgs.create(org("globex"), OPERATOR), oauth.password(ACME, "mem_1")):
        with pytest.raises(ServerAwayError):
            await broken
    with pytest.raises(StoreUnavailableError):
        reader.data_version()
    with pytest.raises(ServerAwayError):
        await open_store(mortal.url)
    with pytest.raises(StoreUnavailableError):
        look(mortal.url, None)
    before = asked
    mortal.server.start()
    await store.orgs.create(org("globex"), OPERATOR)
    assert await oauth.password(ACME, "mem_1") is None
    assert {record.org.id for record in reader.load()[1]} == {"acme", "globex", "platform"}
    assert asked > before
    reader.close()
    await store.close()


# -- what a worker reads ----------------------------------------------------------------------------------


async def test_the_reader_sees_what_the_store_committed_and_writes_nothing(
    two: SqlControlStore, database: ControlDatabase
) -> None:
    reader = PostgresReader(database.url, None, clock=lambda: 1000.0)
    first = reader.data_version()
    await two.for_org(ACME).upstreams.create(upstream("acme"), OPERATOR)
    assert reader.data_version() == first + 1 == await two.version()
    version, records, revocations = reader.load()
    assert version == first + 1
    assert {record.org.id: record for record in records} == {
        name: await two.for_org(OrgId(name)).record() for name in ("acme", "globex", "platform")
    }
    assert revocations == await two.revocations(1000)
    with pytest.raises(StoreUnavailableError, match="read-only"):
        reader._connection.execute("UPDATE control_counters SET version = 0")
    assert reader.data_version() == first + 1
    reader.close()
