"""`orgate store`: tables in PostgreSQL made by their owner, and an embedded store copied into them whole."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.oauth.sql import SqlOAuthStore
from gateway.oauth.store import Consumed, Family, StoredInvitation
from tenants.ids import MemberId, OrgId
from tenants.sql.store import open_store, sqlite_url
from tenants.sql.version import SCHEMA_VERSION
from tests.contract.control_store import OPERATOR, limit, member, model, org, price, team, upstream
from tests.kit.postgres import shared_postgres
from tests.kit.postgres_store import ControlDatabase, control_database
from tests.unit.cli.conftest import Cli, Outcome

ACME = OrgId("acme")
FAMILY = Family(
    "f1", ACME, MemberId("mem_1"), "orgate-cli", "t1", 1.8e9, 1.9e9 + 0.25, (Consumed("t0", 1.8e9 + 0.5),)
)


@pytest.fixture
def database() -> ControlDatabase:
    return control_database(shared_postgres(), prepared=False)


@pytest.fixture
def home(tmp_path: Path, database: ControlDatabase) -> Path:
    home = tmp_path / "server"
    home.mkdir()
    (home / "orgate.toml").write_text(f'[store]\nurl = "{database.url}"\n')
    return home


def run(cli: Cli, home: Path, *argv: str) -> Outcome:
    return cli("store", *argv, "--settings", str(home / "orgate.toml"), "-o", "json")


def migrate(cli: Cli, home: Path, database: ControlDatabase, *more: str) -> Outcome:
    return run(cli, home, "migrate", "--owner", database.owner, *more)


async def fill(file: Path) -> None:
    store = await open_store(sqlite_url(file), clock=lambda: 1.8e9)
    await store.orgs.create(org("acme"), OPERATOR)
    mine = store.for_org(ACME)
    await mine.members.create(member("acme", name="Zoë 'Quote'"), OPERATOR)
    await mine.teams.create(team("acme"), OPERATOR)
    await mine.teams.add("core", MemberId("mem_1"), OPERATOR)
    await mine.upstreams.create(upstream("acme"), OPERATOR)
    await mine.models.create(model("acme"), OPERATOR)
    await mine.limits.create(limit("acme"), OPERATOR)
    await mine.prices.put([price("acme", f"m{n}") for n in range(1_500)], 0, OPERATOR)
    oauth = await SqlOAuthStore.open(store.engine)
    await oauth.invite(StoredInvitation("d1", ACME, MemberId("mem_1"), 2**40))
    await oauth.accept(StoredInvitation("d1", ACME, MemberId("mem_1"), 2**40), "a hash", 1.8e9)
    await oauth.begin_family(FAMILY)
    await store.close()


async def told(url: str) -> tuple[object, ...]:
    """Everything that somebody could ask."""
    store = await open_store(url, clock=lambda: 1.8e9)
    oauth = await SqlOAuthStore.open(store.engine)
    mine = store.for_org(ACME)
    found = (
        await store.version(),
        await store.orgs.page(),
        await mine.record(),
        await mine.members.get("mem_1"),
        await mine.teams.members("core"),
        await store.outbox(),
        await oauth.password(ACME, "mem_1"),
        await oauth.family("f1"),
    )
    await store.close()
    return found


def test_an_embedded_store_moves_over_whole(cli: Cli, home: Path, database: ControlDatabase) -> None:
    file = home / "control.db"
    asyncio.run(fill(file))
    made = migrate(cli, home, database)
    assert (made.code, json.loads(made.out)["before"]) == (0, 0)
    assert json.loads(migrate(cli, home, database).out)["before"] == SCHEMA_VERSION
    copied = run(cli, home, "copy", "--from", str(file))
    assert copied.code == 0, copied.err
    assert {one["table"]: one["rows"] for one in json.loads(copied.out)}["prices"] == 1_500
    here, there = asyncio.run(told(sqlite_url(file))), asyncio.run(told(database.url))
    assert here == there
    assert there[-1] == FAMILY
    again = run(cli, home, "copy", "--from", str(file))
    assert again.code == 1
    assert "the target has rows" in again.err
    assert asyncio.run(told(database.url)) == there


def test_what_arrives_otherwise_is_not_kept(cli: Cli, home: Path, database: ControlDatabase) -> None:
    asyncio.run(fill(home / "control.db"))
    migrate(cli, home, database)
    with database.server.admin(database.name) as admin:
        admin.execute(
            "CREATE FUNCTION orgate.bend() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN NEW.amount := NEW.amount + 1; RETURN NEW; END $$"
        )
        admin.execute(
            "CREATE TRIGGER bend BEFORE INSERT ON orgate.limits FOR EACH ROW EXECUTE FUNCTION orgate.bend()"
        )
        bent = run(cli, home, "copy", "--from", str(home / "control.db"))
        assert bent.code == 1
        assert "what arrived in limits is not what was sent" in bent.err
        assert admin.execute("SELECT count(*) FROM orgate.orgs").fetchone() == (0,)
        admin.execute("DROP TRIGGER bend ON orgate.limits")
    assert run(cli, home, "copy", "--from", str(home / "control.db")).code == 0


def test_what_cannot_be_done_is_said(cli: Cli, home: Path, database: ControlDatabase) -> None:
    said = migrate(cli, home, database, "--owner-password", str(home / "missing"))
    assert (said.code, "there is no file of that name" in said.err) == (1, True)
    said = run(cli, home, "migrate", "--owner", database.role)
    assert (said.code, "would own the tables" in said.err) == (1, True)
    said = run(cli, home, "migrate", "--owner", "nobody")
    assert (said.code, 'role "nobody" does not exist' in said.err) == (1, True)
    said = run(cli, home, "copy", "--from", str(home / "control.db"))
    assert (said.code, "does not exist" in said.err) == (1, True)
    asyncio.run(fill(home / "control.db"))
    said = run(cli, home, "copy", "--from", str(home / "control.db"))
    assert (said.code, "orgate store migrate" in said.err) == (1, True)
    (home / "orgate.toml").write_text('[store]\nurl = "sqlite:control.db"\n')
    said = migrate(cli, home, database)
    assert (said.code, "names an embedded store" in said.err) == (2, True)
    (home / "orgate.toml").write_text('[store]\nurl = "postgresql://orgate:hunter2@127.0.0.1/x"\n')
    said = migrate(cli, home, database)
    assert (said.code, "must have no password" in said.err, "hunter2" in said.err) == (2, True, False)


def test_the_doctor_looks_at_the_role_and_the_schema(cli: Cli, home: Path, database: ControlDatabase) -> None:
    def looked() -> tuple[str, str, str]:
        said = cli("doctor", "--settings", str(home / "orgate.toml"), "-o", "json")
        row = next(row for row in json.loads(said.out) if row["check"] == "database")
        return row["result"], row["seen"], row["fix"]

    assert looked()[::2] == ("failed", "run `orgate store migrate`")
    migrate(cli, home, database)
    result, seen, fix = looked()
    assert (result, fix) == ("ok", "")
    assert f"role {database.role}, schema {SCHEMA_VERSION}, no TLS" in seen
    with (home / "orgate.toml").open("a") as settings:
        settings.write('password = "store.password"\n')
    assert looked()[:2] == (
        "failed",
        f"store.password: {home}/store.password cannot be read: there is no file of that name",
    )
    (home / "store.password").write_text("secret\n")
    assert "can be read by others" in looked()[1]
    (home / "store.password").chmod(0o600)
    assert looked()[0] == "ok"
    (home / "orgate.toml").write_text(f'[store]\nurl = "{database.owner_url}"\n')
    assert looked()[0] == "failed"
    assert "owns the table" in looked()[1]
