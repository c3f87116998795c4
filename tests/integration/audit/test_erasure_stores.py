"""A person is erased where logs are in PostgreSQL and in locked objects: nothing there says anything of them, and
packs made before and after verify."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tenants.sql.store import open_store, sqlite_url
from tests.fakes.s3 import KEY_ID, SECRET, FakeS3, fake_s3
from tests.integration.audit.test_erasure import REQUESTS, ask, saying
from tests.integration.gateway.world import invite
from tests.kit.gateway import PASSWORD, RunningGateway
from tests.kit.orgate import Orgate
from tests.kit.postgres import Database, PostgresServer, postgres_server
from tests.kit.wait import until


@dataclass
class Stores:
    server: PostgresServer
    database: Database
    s3: FakeS3
    gateway: RunningGateway

    def lines(self) -> int:
        """How many entries of the organization are in the database still."""
        with psycopg.connect(self.database.dsn) as connection:
            found = connection.execute("SELECT count(*) FROM orgate_audit.lines WHERE org = 'acme'").fetchone()
        return int(found[0]) if found else 0

    def objects(self) -> list[bytes]:
        """Names and bodies, every version."""
        return [f"{one.key}\n".encode() + one.data for one in self.s3.buckets["audit"].versions]

    def saying(self, *words: str) -> set[str]:
        """Which of the words any object holds, or any file of the database's server, its write-ahead log too."""
        with self.server.admin() as connection:
            connection.execute("CHECKPOINT")  # what is in its memory comes to its files
        found = {word for word in words for data in self.objects() if word.encode() in data}
        return found.union(*saying(self.server.folder, *words).values())


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    home = tmp_path_factory.mktemp("stores")
    with postgres_server() as server, fake_s3() as s3:
        database = server.database()
        for name, text in (("pg.dsn", database.dsn), ("s3.key", f"{KEY_ID}:{SECRET}")):
            (home / name).write_text(text)
            (home / name).chmod(0o600)
        settings = {
            "STORE": "postgres+s3",
            "DSN": str(home / "pg.dsn"),
            "BUCKET": "audit",
            "ENDPOINT": s3.url,
            "S3_KEY": str(home / "s3.key"),
            "SEGMENT_AGE_S": "1",
        }
        audit = {f"ORGATE_AUDIT__{name}": value for name, value in settings.items()}
        with RunningGateway(home / "gateway", workers=1, settings=audit) as gateway:
            yield Stores(server, database, s3, gateway)


async def test_no_store_and_no_pack_says_anything_of_who_was_erased(stores: Stores, tmp_path: Path) -> None:
    gateway = stores.gateway
    owner = gateway.owner()
    orgate = Orgate(tmp_path / "config")
    who = {"org": "acme", "email": "owner@acme.test", "password": PASSWORD}
    orgate.login(server=gateway.url, admin=gateway.admin_url, ca=gateway.ca, **who)
    ann = invite(gateway, owner, "acme", "annabel-thrope", "member")
    words = (ann.id, "annabel-thrope", ann.session.refresh_token)
    ask(gateway, ann)
    entries = "/admin/v1/orgs/acme/audit/entries?limit=1000&action=model.list"
    until(lambda: len(owner.admin("GET", entries).json()["items"]) == REQUESTS, "every request to be an entry")
    (actor,) = {entry["actor"] for entry in owner.admin("GET", entries).json()["items"]}
    assert actor == ann.id, "who may read the log reads who it was, until they are erased"
    until(lambda: bool(stores.objects()) and not stores.lines(), "all entries to be in locked objects")
    assert stores.saying(*words) == set()
    (tmp_path / "log.key").write_text(orgate("audit", "key"))
    orgate("audit", "export", str(tmp_path / "before"))

    owner.admin("DELETE", f"/admin/v1/orgs/acme/members/{ann.id}", headers={"if-match": "*"})
    erased = owner.admin("POST", f"/admin/v1/orgs/acme/audit/persons/{ann.id}/erase").json()
    orgate("audit", "export", str(tmp_path / "after"))
    assert stores.saying(*words) == set()
    assert erased["person"] in "".join(path.read_text() for path in (tmp_path / "after").glob("entries*"))
    assert not saying(tmp_path / "before", *words)
    assert not saying(tmp_path / "after", *words)
    key = ("--key", str(tmp_path / "log.key"))
    orgate("audit", "verify", str(tmp_path / "before"), *key)
    # The log that was, with its root, is the beginning of the log that is.
    orgate("audit", "verify", str(tmp_path / "after"), *key, "--since-checkpoint", str(tmp_path / "before"))

    assert gateway.stop() == 0
    store = await open_store(sqlite_url(gateway.home / "control.db"))
    assert await store.persons.purge(erased["held_until"])
    await store.persons.scrub()
    await store.close()
    assert saying(gateway.home, *words) == {}
    assert stores.saying(*words) == set()
