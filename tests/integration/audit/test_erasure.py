"""A person is erased from a running gateway: no file of it says anything of them afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tenants.sql.store import open_store, sqlite_url
from tests.integration.gateway.world import Member, invite, stored
from tests.kit.gateway import RunningGateway, Session
from tests.kit.wait import until

REQUESTS = 30


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path_factory.mktemp("erasure") / "home", workers=2) as running:
        yield running


def saying(home: Path, *words: str) -> dict[str, list[str]]:
    """The files below `home` that hold any of the words, and which."""
    found = {}
    for path in home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if said := [word for word in words if word.encode() in content]:
                found[str(path.relative_to(home))] = said
    return found


def settled(home: Path, count: int) -> bool:
    """All requests are entries, and no worker's spool has anything left."""
    listed = [entry for entry in stored(home, "acme") if entry["action"] == "model.list"]
    return len(listed) >= count and not any(any(path.read_bytes()) for path in home.rglob("*.seg"))


def ask(gateway: RunningGateway, somebody: Member) -> None:
    for _ in range(REQUESTS):
        assert gateway.http.get(gateway.url + "/v1/models", headers=somebody.session.bearer).status_code == 200


async def test_no_file_says_anything_of_who_was_erased(gateway: RunningGateway) -> None:
    owner: Session = gateway.owner()
    ann = invite(gateway, owner, "acme", "annabel-thrope", "member")
    words = (ann.id, "annabel-thrope", ann.session.refresh_token)
    ask(gateway, ann)
    until(lambda: settled(gateway.home, REQUESTS), "every request to be an entry")
    before = stored(gateway.home, "acme")
    (actor,) = {entry["actor"] for entry in before if entry["action"] == "model.list"}
    assert actor.startswith("per_")
    assert set(saying(gateway.home, *words)) <= {"control.db", "control.db-wal"}

    owner.admin("DELETE", f"/admin/v1/orgs/acme/members/{ann.id}", headers={"if-match": "*"})
    erased = owner.admin("POST", f"/admin/v1/orgs/acme/audit/persons/{ann.id}/erase").json()
    assert erased["person"] == actor
    # All that is left is the revocation, which refuses the token they still have.
    assert set(saying(gateway.home, *words).get("control.db", [])) <= {ann.id}
    denied = gateway.http.get(gateway.url + "/v1/models", headers=ann.session.bearer)
    assert denied.status_code == 401

    assert gateway.stop() == 0
    store = await open_store(sqlite_url(gateway.home / "control.db"))
    assert await store.persons.purge(erased["held_until"])
    await store.persons.scrub()
    await store.close()
    assert saying(gateway.home, *words) == {}
    after = stored(gateway.home, "acme")
    assert after[: len(before)] == before
    assert after[-1]["action"] == "person.erase"
    (nobodys,) = [entry for entry in stored(gateway.home, "platform") if entry["action"] == "request.refused"]
    assert nobodys["detail"]["401.invalid_token"] == 1

    gateway.start()  # the log and the store fit each other still, and everybody else is there
    found = owner.admin("GET", "/admin/v1/orgs/acme/audit/entries?limit=1000").json()["items"]
    assert [entry["actor"] for entry in found if entry["action"] == "model.list"] == ["erased"] * REQUESTS
    assert {entry["actor"] for entry in found} > {"erased"}
