"""Two whole gateways on one PostgreSQL: what is changed at one is live at the other, and it may go away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.settings import load
from gateway.storework import make_tables, move_store
from tests.kit.gateway import RunningGateway, Session
from tests.kit.postgres import PostgresServer, postgres_server
from tests.kit.postgres_store import control_database
from tests.kit.wait import until

Nodes = tuple[RunningGateway, RunningGateway]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def nodes(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The first was served from a file; the second has its keys, its URL, and nothing else of it."""
    folder = tmp_path_factory.mktemp("nodes")
    database = control_database(server, prepared=False)
    first, second = RunningGateway(folder / "first"), RunningGateway(folder / "second")
    for node in (first, second):
        node.settings |= {"ORGATE_STORE__URL": database.url, "ORGATE_SERVER__URL": first.url}
    (second.home / "control.db").unlink()
    settings = load(first.installed.settings, first.settings)
    make_tables(settings, database.owner, "")
    move_store(settings, first.home / "control.db", lambda _: None, lambda _: None)
    (first.home / "control.db").unlink()
    with first:
        for name in ("secrets.sealed", "master.key"):  # its first start has made the keys that were missing
            shutil.copy2(first.home / name, second.home / name)
        with second:
            yield first, second
    for node in (first, second):
        assert not Path(node.home / "control.db").exists()


@pytest.fixture(scope="module")
def owner(nodes: Nodes) -> Session:
    return nodes[0].owner()


def models(node: RunningGateway, session: Session) -> tuple[int, set[str]]:
    """What the data plane of a node says."""
    answer = node.http.get(node.url + "/v1/models", headers=session.bearer)
    return answer.status_code, {one["id"] for one in answer.json().get("data", ())}


def test_a_change_at_one_is_live_at_the_other(nodes: Nodes, owner: Session) -> None:
    _, second = nodes
    owner.create("upstreams", name="main", base_url="https://127.0.0.1:9")
    owner.create("models", name="code", upstream="main", model="vendor/code")
    until(lambda: models(second, owner) == (200, {"code"}), "the model is live at the second node", 5)


def test_who_signed_in_at_one_goes_on_at_the_other_until_it_is_taken_back(nodes: Nodes, owner: Session) -> None:
    first, second = nodes
    made = owner.create("members", email="ann@acme.test", name="Ann", roles=["member"])
    member, invitation = made["member"]["id"], made["invitation"]["code"]
    ann = first.sign_in("acme", "ann@acme.test", invitation=invitation)
    assert models(first, ann)[0] == models(second, ann)[0] == 200
    renewed = second.token(grant_type="refresh_token", refresh_token=ann.refresh_token)
    assert renewed.status_code == 200, renewed.text
    owner.admin("POST", f"/admin/v1/orgs/acme/members/{member}/revoke")
    until(lambda: models(second, ann)[0] == 401, "access is refused at the second node", 5)
    refused = first.token(grant_type="refresh_token", refresh_token=renewed.json()["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


def test_the_database_goes_away_and_comes_back(nodes: Nodes, owner: Session, server: PostgresServer) -> None:
    first, second = nodes
    server.stop(kill=True)
    ready = first.admin_url + "/readyz"
    until(lambda: "control store" in first.http.get(ready).text, "readyz says so", 15)
    assert first.http.get(ready).status_code == 503
    assert models(second, owner)[0] == 200  # workers serve on with what they know
    body = {"name": "chat", "upstream": "main", "model": "vendor/chat"}
    owner.admin("POST", "/admin/v1/orgs/acme/models", json=body, expect=503)
    server.start()
    until(lambda: first.http.get(ready).status_code == 200, "it is ready again", 15)
    owner.create("models", name="chat", upstream="main", model="vendor/chat")
    until(lambda: models(second, owner) == (200, {"code", "chat"}), "changes go round again", 15)
