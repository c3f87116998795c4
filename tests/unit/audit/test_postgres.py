"""The audit log in PostgreSQL and objects: who may write it, what becomes of a database that was set back, what a
move leaves wherever it breaks off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from gateway.audit.log_store import DamagedError, FencedError, InUseError, Rule, StoreAwayError
from gateway.audit.objects import BucketError, ObjectsError
from gateway.audit.orglog import OrgLog
from gateway.audit.postgres_log import PostgresLog
from gateway.audit.postgres_server import PostgresServer, ServerError
from gateway.secret import Secret
from tests.contract.log_store import PostgresAndObjects, started
from tests.fakes.audit import ACME, GLOBEX, SIGNER, lines
from tests.fakes.s3 import KEY_ID, SECRET, Bucket, FakeS3, RefusedError, fake_s3
from tests.kit.postgres import Database, empty_database, postgres_server
from tests.unit.audit.test_files import drafts

LINES, _ = lines(60)
DAY_MS = 86_400_000
RULE = Rule(7 * 365 * DAY_MS, held=False)
HELD = Rule(7 * 365 * DAY_MS, held=True)
NOW_MS = time.time_ns() // 10**6


@dataclass
class World:
    s3: FakeS3
    database: Database
    place: PostgresAndObjects

    def orglog(self) -> OrgLog:
        return OrgLog(self.place.open().open(ACME), ACME, SIGNER)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with self.database.admin() as admin:
            return admin.execute(query.encode()).fetchall()

    def change(self, statement: str) -> None:
        with self.database.admin() as admin:
            admin.execute(statement.encode())

    def let_go(self) -> None:
        """What a network that is cut does to the lock of the process that holds it."""
        self.change("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with fake_s3() as s3:
        database = empty_database()
        place = PostgresAndObjects(database.dsn, s3.url, "audit", f"{KEY_ID}:{SECRET}", str(tmp_path))
        yield World(s3, database, place)
        for server in place.servers:
            server.close()


def filled(log: PostgresLog, until: int = 60) -> PostgresLog:
    for at in range(log.size, until, 5):
        log.append(LINES[at : at + 5])
    return log


def fresh(world: World, until: int = 60) -> PostgresLog:
    log = started(world.place.open())
    assert isinstance(log, PostgresLog)
    return filled(log, until)


def read(log: PostgresLog) -> list[bytes]:
    return b"".join(log.lines(0, 10**9)).splitlines()


# -- one writer -----------------------------------------------------------------------------------------------


def test_a_process_that_wakes_up_after_another_took_over_writes_nothing(world: World) -> None:
    old = fresh(world, 10)
    world.let_go()
    new = filled(started(world.place.open(), 10), 20)  # type: ignore[arg-type]  # as this place makes it
    for _ in range(2):
        with pytest.raises(FencedError, match="taken this log over"):
            old.append([b"a fork"])
    with pytest.raises(FencedError):
        old.save(b"a checkpoint", b"{}")
    with pytest.raises(FencedError):
        old.tend(RULE, b"", NOW_MS)
    with pytest.raises(FencedError):
        old.blobs.put("tile/0/000", b"x")
    with pytest.raises(FencedError):
        old.drop(5, b"{}")
    assert read(new) == LINES[:20]
    assert world.rows("SELECT count(*) FROM orgate_audit.tiles") == [(0,)]


def test_a_fence_holds_within_an_append_that_is_under_way(world: World) -> None:
    old = fresh(world, 10)
    world.let_go()
    newer = world.place.open().open(ACME)
    replaying = newer.replay(0, {})
    assert next(replaying) == LINES[0]  # it has counted ten
    with pytest.raises(FencedError):
        old.append(LINES[10:12])
    assert [*replaying] == LINES[1:10]


def test_a_lock_that_was_lost_is_taken_again(world: World) -> None:
    log = fresh(world, 10)
    world.let_go()
    log.tend(RULE, b"", NOW_MS)
    with pytest.raises(InUseError):
        world.place.open().open(ACME)
    filled(log, 20)
    assert read(log) == LINES[:20]


# -- a database that was set back -----------------------------------------------------------------------------


def test_an_older_copy_takes_no_more_entries_of_a_process_that_knows_better(world: World) -> None:
    log = fresh(world, 20)
    world.change("DELETE FROM orgate_audit.lines WHERE first >= 10; UPDATE orgate_audit.logs SET size = 10")
    for _ in range(2):
        with pytest.raises(FencedError, match="10 entries of this log, 20 were acknowledged"):
            log.append(LINES[20:21])
    assert world.rows("SELECT size FROM orgate_audit.logs") == [(10,)]


@pytest.mark.parametrize("witness", ["mark", "object"])
def test_an_older_copy_does_not_start(world: World, witness: str, tmp_path: Path) -> None:
    log = world.orglog()
    log.append(drafts(*range(1, 41)))
    log.save_checkpoint()
    older = world.rows("SELECT checkpoint, state FROM orgate_audit.logs")
    log.append(drafts(*range(41, 61)))
    note = log.save_checkpoint()
    if witness == "object":
        log.store.tend(RULE, note.encode(), NOW_MS)
        (tmp_path / "marks" / "acme").unlink()
    log.close()
    for server in world.place.servers:
        server.close()
    with world.database.admin() as admin:
        admin.execute(
            "DELETE FROM orgate_audit.lines; DELETE FROM orgate_audit.objects;"
            " UPDATE orgate_audit.logs SET size = 0, state = ''"
        )
        admin.execute("UPDATE orgate_audit.logs SET checkpoint = %b", (older[0][0],))
    with pytest.raises(DamagedError, match="0 entries, but 60 were signed"):
        world.orglog()


def test_a_changed_line_is_found_when_all_is_read(world: World) -> None:
    log = world.orglog()
    log.append(drafts(*range(1, 11)))
    log.save_checkpoint()
    log.close()
    world.change(
        "UPDATE orgate_audit.logs SET state = '';"
        " UPDATE orgate_audit.lines SET lines = convert_to(replace(convert_from(lines, 'UTF8'),"
        " '\"status\":200', '\"status\":201'), 'UTF8')"
    )
    for server in world.place.servers:
        server.close()
    with pytest.raises(DamagedError, match=r"restore the database|not those that were signed"):
        world.orglog()


# -- who signs in ---------------------------------------------------------------------------------------------


def test_rows_of_another_organization_are_out_of_reach(world: World) -> None:
    fresh(world)
    with psycopg.connect(world.database.dsn, autocommit=True) as own:
        for table in ("logs", "lines", "tiles", "objects"):
            assert own.execute(f"SELECT count(*) FROM orgate_audit.{table}".encode()).fetchone() == (0,)
        own.execute("SELECT set_config('orgate.org', 'globex', false)")
        assert own.execute("SELECT count(*) FROM orgate_audit.lines").fetchone() == (0,)
        assert own.execute("DELETE FROM orgate_audit.lines").rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            own.execute("INSERT INTO orgate_audit.logs (org, writer) VALUES ('acme2', 'x')")
        own.execute("SELECT set_config('orgate.org', 'acme', false)")
        assert own.execute("SELECT count(*) FROM orgate_audit.lines").fetchone() != (0,)


def test_a_superuser_is_refused(world: World) -> None:
    server = world.database.server
    dsn = f"host={server.folder} port={server.port} dbname={world.database.name} user=postgres"
    with pytest.raises(StoreAwayError, match="superuser"):
        PostgresServer(Secret(dsn)).take()


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("postgresql://orgate:hunter2@db.example/x y", "no connection string|sslmode"),
        ("password=hunter2 nonsense", "no connection string"),
        ("host=db.example password=hunter2", "sslmode=verify-full"),
        ("host=db.example password=hunter2 sslmode=require", "sslmode=verify-full"),
        ("host=127.0.0.1 port=1 password=hunter2", "PostgreSQL: "),
    ],
)
def test_a_dsn_that_leads_nowhere_is_told_without_its_password(dsn: str, says: str) -> None:
    with pytest.raises(ServerError, match=says) as caught:
        PostgresServer(Secret(dsn)).take()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_tables_of_a_newer_orgate_are_left_alone(world: World) -> None:
    fresh(world, 5)
    for server in world.place.servers:
        server.close()
    world.change("UPDATE orgate_audit.schema_version SET version = 99")
    with pytest.raises(ServerError, match="newer Orgate"):
        world.place.open().orgs()


def test_nobody_is_named_outside_the_lines(world: World) -> None:
    log = world.orglog()
    log.append(drafts(*range(1, 301)))
    log.store.tend(RULE, log.save_checkpoint().encode(), NOW_MS)
    found = world.rows("SELECT * FROM orgate_audit.logs") + world.rows("SELECT * FROM orgate_audit.objects")
    shown = repr([[bytes(cell) if isinstance(cell, memoryview) else cell for cell in row] for row in found])
    assert "mem_" not in shown + repr(world.s3.names())
    assert {key.split("/")[2] for key in world.s3.names()} == {"log", "tile", "checkpoint"}


# -- into objects ---------------------------------------------------------------------------------------------


def test_what_became_objects_is_read_from_there_and_locked(world: World) -> None:
    log = fresh(world)
    log.tend(RULE, b"", NOW_MS)
    moved = [key for key in world.s3.names() if "/log/" in key]
    assert len(moved) == 2
    assert world.rows("SELECT sum(count) FROM orgate_audit.lines")[0][0] == 60 - len(
        b"".join(world.s3.buckets["audit"].find(key).data for key in moved).splitlines()  # type: ignore[union-attr]
    )
    assert read(log) == LINES
    for key in moved:
        version = world.s3.buckets["audit"].find(key)
        assert version is not None
        assert version.until == pytest.approx((1_763_690_000_000 + RULE.keep_ms) / 1000, abs=2)
        with pytest.raises(BucketError, match="AccessDenied"):
            world.place.objects().delete(key.removeprefix("orgate/"), version.id)
        with pytest.raises(BucketError, match="AccessDenied"):
            world.place.objects().retain(key.removeprefix("orgate/"), version.id, int(version.until) - 86_400)
    assert [key for key in world.s3.names() if "/log/" in key] == moved


def test_old_lines_become_an_object_however_few(world: World) -> None:
    log = fresh(world, 5)
    log.tend(RULE, b"", NOW_MS)
    assert world.s3.names() == []
    world.change("UPDATE orgate_audit.lines SET at = at - interval '2 hours'")
    log.tend(RULE, b"", NOW_MS)
    assert world.s3.names() == [f"orgate/acme/log/{0:016}-5.jsonl"]


@pytest.mark.parametrize("breaks", ["spoil", "unlocked", "500", "403", "cut"])
def test_lines_stay_until_their_object_is_what_it_should_be(world: World, breaks: str) -> None:
    log = fresh(world)

    def answer(method: str, path: str) -> None:
        if method == "PUT" and breaks == "cut":
            raise ConnectionResetError
        if method == "PUT" and breaks.isdigit():
            raise RefusedError(int(breaks), "InternalError" if breaks == "500" else "AccessDenied")

    world.s3.spoil, world.s3.unlocked = breaks == "spoil", breaks == "unlocked"
    world.s3.answer = answer
    for _ in range(2):
        with pytest.raises(ObjectsError):
            log.tend(RULE, b"", NOW_MS)
    assert world.rows("SELECT sum(count) FROM orgate_audit.lines") == [(60,)]
    assert read(log) == LINES
    world.s3.spoil = world.s3.unlocked = False
    world.s3.answer = lambda *_: None
    log.tend(RULE, b"", NOW_MS)
    assert read(log) == LINES
    assert world.rows("SELECT count(*) > 0 FROM orgate_audit.objects") == [(True,)]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 7, 9])
def test_a_move_that_broke_off_anywhere_is_gone_on_with(world: World, step: int) -> None:
    """The n-th thing that it asks of PostgreSQL or S3 fails, before or after it was done; then it is killed."""
    log = world.orglog()
    log.append(drafts(*range(1, 301)))
    note = log.save_checkpoint()
    asked = 0
    server, mover = world.place.servers[-1], log.store
    real = server.use

    def use(org: object) -> object:
        nonlocal asked
        asked += 1
        server.failing = ("after" if step % 2 else "before") if asked == step else ""
        return real(org)  # type: ignore[arg-type]  # as it came

    server.use = use  # type: ignore[method-assign, assignment]  # one connection breaks
    try:
        mover.tend(RULE, note.encode(), NOW_MS)
    except StoreAwayError:
        assert asked >= step
    for one in world.place.servers:
        one.close()
    again = world.orglog()
    assert (again.size, again.checkpoint()) == (300, note)
    again.store.tend(RULE, note.encode(), NOW_MS)
    assert again.append(drafts(*range(295, 311))) == 10
    assert len(b"".join(again.lines(0, 400)).splitlines()) == 310
    assert len(b"".join(again.tiles.leaves(0, 300))) == 32 * 300
    assert world.rows("SELECT count(*) FROM orgate_audit.tiles") == [(0,)]


def test_what_was_changed_in_the_database_is_not_made_to_last(world: World) -> None:
    log = fresh(world)
    world.change(
        "UPDATE orgate_audit.lines SET lines = convert_to(replace(convert_from(lines, 'UTF8'),"
        " '\"status\":200', '\"status\":201'), 'UTF8') WHERE first = 5"
    )
    with pytest.raises(OSError, match="does not become an object"):
        log.tend(RULE, b"", NOW_MS)
    assert [key for key in world.s3.names() if "/log/" in key] == []


def test_an_object_that_was_changed_is_not_shown(world: World) -> None:
    log = fresh(world)
    log.tend(RULE, b"", NOW_MS)
    for version in world.s3.buckets["audit"].versions:
        version.data = version.data.replace(b'"status":200', b'"status":201')
    with pytest.raises(OSError, match="not what was written"):
        read(log)


def test_a_bucket_without_locks_is_refused_at_the_start(world: World) -> None:
    world.s3.buckets["audit"] = Bucket(lock=False)
    with pytest.raises(BucketError, match="ObjectLockConfigurationNotFound"):
        world.place.open().orgs()
    del world.s3.buckets["audit"]
    with pytest.raises(BucketError, match="NoSuchBucket"):
        world.place.open().orgs()


def test_a_bucket_that_is_away_stops_no_start(world: World) -> None:
    def away(method: str, path: str) -> None:
        raise RefusedError(503, "SlowDown")

    world.s3.answer = away
    log = fresh(world)
    with pytest.raises(ObjectsError, match="SlowDown"):
        log.tend(RULE, b"", NOW_MS)
    assert read(log) == LINES


# -- holds and times ------------------------------------------------------------------------------------------


def test_a_hold_is_kept_by_the_bucket_too(world: World) -> None:
    log = fresh(world)
    log.tend(RULE, b"", NOW_MS)
    bucket = world.s3.buckets["audit"]
    log.tend(HELD, b"", NOW_MS)
    assert [one.held for one in bucket.versions] == [True] * len(bucket.versions)
    filled(log)
    world.change("UPDATE orgate_audit.lines SET at = at - interval '2 hours'")
    log.tend(HELD, b"", NOW_MS)
    assert [one.held for one in bucket.versions] == [True] * len(bucket.versions)
    world.s3.now = lambda: time.time() + 200 * 365 * 86_400
    with pytest.raises(BucketError, match="AccessDenied"):
        world.place.objects().delete(bucket.versions[0].key.removeprefix("orgate/"), bucket.versions[0].id)
    log.tend(RULE, b"", NOW_MS)
    assert not any(one.held for one in bucket.versions)


def test_a_longer_time_lengthens_locks_and_a_shorter_one_leaves_them(world: World) -> None:
    log = fresh(world)
    log.tend(RULE, b"", NOW_MS)
    before = [one.until for one in world.s3.buckets["audit"].versions]
    log.tend(Rule(RULE.keep_ms // 2, held=False), b"", NOW_MS)
    assert [one.until for one in world.s3.buckets["audit"].versions] == before
    log.tend(Rule(RULE.keep_ms * 2, held=False), b"", NOW_MS)
    assert [one.until for one in world.s3.buckets["audit"].versions] == [
        pytest.approx(until + RULE.keep_ms / 1000, abs=2) for until in before
    ]


def test_what_is_dropped_leaves_the_bucket_when_its_lock_is_over(world: World) -> None:
    short = Rule(1_000, held=False)
    log = fresh(world)
    log.tend(short, b"", NOW_MS)
    later = NOW_MS + 10 * DAY_MS
    assert log.due(later - short.keep_ms) == 0  # its lock is a day at least, by the store's own clock
    world.place.ahead_s = 10 * 86_400
    begin = log.due(later - short.keep_ms)
    assert begin
    log.drop(begin, b"{}")
    with pytest.raises(BucketError, match="AccessDenied"):  # the bucket has a clock of its own
        log.tend(short, b"", later)
    world.s3.now = lambda: time.time() + 10 * 86_400
    log.tend(short, b"", later)
    assert [key for key in world.s3.names() if "/log/" in key] == []
    assert read(log) == LINES[begin:]


def test_a_time_far_ahead_in_an_entry_locks_nothing_for_ever(world: World) -> None:
    log = world.orglog()
    log.append(drafts(1))
    far = drafts(2)[0]
    log.append([type(far)(far.org, far.boot, 2, far.id, {**far.fields, "@timestamp": 2**53 - 1})])
    world.change("UPDATE orgate_audit.lines SET at = at - interval '2 hours'")
    log.store.tend(RULE, b"", NOW_MS)
    (version,) = [one for one in world.s3.buckets["audit"].versions if "/log/" in one.key]
    expected = pytest.approx((NOW_MS + DAY_MS + RULE.keep_ms) / 1000, abs=2)
    assert version.until == expected
    for server in world.place.servers:
        server.close()
    world.orglog().store.tend(RULE, b"", NOW_MS)
    assert version.until == expected


# -- a server that dies ---------------------------------------------------------------------------------------


def test_postgresql_killed_and_started_again_has_what_was_acknowledged(tmp_path: Path) -> None:
    with postgres_server() as server, fake_s3() as s3:
        database = server.database()
        place = PostgresAndObjects(database.dsn, s3.url, "audit", f"{KEY_ID}:{SECRET}", str(tmp_path))
        stores = place.open()
        log = started(stores)
        for at in range(0, 20, 2):
            log.append(LINES[at : at + 2])
        server.stop(kill=True)
        for _ in range(3):
            with pytest.raises(StoreAwayError, match="PostgreSQL"):
                log.append(LINES[20:22])
        server.start()
        log.append(LINES[20:25])
        assert b"".join(log.lines(0, 99)).splitlines() == LINES[:25]
        log.tend(RULE, b"", NOW_MS)
        stores.close()
        assert b"".join(started(place.open(), 25).lines(0, 99)).splitlines() == LINES[:25]
        for one in place.servers:
            one.close()


def test_logs_of_two_organizations_share_a_database(world: World) -> None:
    stores = world.place.open()
    mine, theirs = started(stores), stores.open(GLOBEX)
    assert list(theirs.replay(0, {})) == []
    theirs.ready()
    mine.append(LINES[:50])
    theirs.append(lines(50, GLOBEX)[0])
    for log in (mine, theirs):
        log.tend(RULE, b"", NOW_MS)
    assert {key.split("/")[1] for key in world.s3.names()} == {"acme", "globex"}
    assert len(list(theirs.lines(0, 99))) == 50
