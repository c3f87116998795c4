"""Upstream keys: stored, announced, counted, and never seen again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.secrets.store import StoreUnavailableError
from policies.facts import Role
from tests.integration.admin.world import ACME, UPSTREAM, World

KEY = "sk-live-PLANTED-3141592653589793"
WHERE = "/orgs/acme/upstreams/gpt/key"


@pytest.fixture(autouse=True)
async def upstream(world: World) -> None:
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)


async def test_a_key_is_set_replaced_taken_away_and_set_again_with_versions_that_only_rise(world: World) -> None:
    assert (await world.ask("GET", WHERE)).json() == {"version": 0, "set": False}
    versions = []
    for key in (KEY, KEY + "2"):
        answer = await world.ask("PUT", WHERE, Role.ADMIN, json={"key": key})
        assert answer.status_code == 200
        versions.append(answer.json()["version"])
    assert (await world.ask("GET", WHERE, Role.AUDITOR)).json() == {"version": 2, "set": True}
    assert (await world.keys.get(ACME, "gpt")).secret.reveal() == (KEY + "2").encode()
    assert world.hub.snapshot.tenants[ACME].upstreams["gpt"].key_version == 2

    assert (await world.ask("DELETE", WHERE)).status_code == 204
    state = (await world.ask("GET", WHERE)).json()
    assert state == {"version": 3, "set": False}
    assert (await world.ask("DELETE", WHERE)).status_code == 404
    versions += [state["version"], (await world.ask("PUT", WHERE, json={"key": KEY})).json()["version"]]
    assert versions == [1, 2, 3, 4]
    credential = await world.keys.get(ACME, "gpt")
    assert credential.version == 4


async def test_the_log_says_that_and_by_whom_but_not_what(world: World) -> None:
    answer = await world.ask("PUT", WHERE, Role.ADMIN, json={"key": KEY})
    await world.sequencer.drain_once(world.store)
    items = (await world.ask("GET", "/orgs/acme/audit/entries", params={"action": "key.write"})).json()["items"]
    assert [(item["target"], item["detail"], item["request_id"]) for item in items] == [
        ("gpt", {"version": 1}, answer.headers["x-request-id"])
    ]
    assert items[0]["actor"] == world.members[ACME, Role.ADMIN].id


@pytest.mark.parametrize(
    "content",
    [
        '{"key": "PLANTED\\u0000"}',
        '{"key": " PLANTED"}',
        '{"key": "PLANTED\\nPLANTED"}',
        '{"key": "PLANTEDé"}',
        '{"key": ""}',
        '{"key": "' + "PLANTED" * 2000 + '"}',
        '{"key": ["PLANTED"]}',
        '{"PLANTED": "x"}',
        '{"key": "x", "PLANTED": 1}',
        '"PLANTED"',
        '{"key": "PLANTED',
        "PLANTED",
    ],
)
async def test_a_key_that_cannot_be_is_refused_without_a_word_of_it(
    world: World, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await world.ask("PUT", WHERE, content=content.encode(), headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "8192 printable ASCII" in answer.json()["detail"]
    assert "PLANTED" not in answer.text + str(answer.headers) + caplog.text


async def test_the_longest_key_fits(world: World) -> None:
    assert (await world.ask("PUT", WHERE, json={"key": "k" * 8192})).status_code == 200


async def test_a_planted_key_appears_nowhere(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", WHERE, {"json": {"key": KEY}}),
        ("GET", WHERE, {}),
        ("GET", "/orgs/acme/upstreams/gpt", {}),
        ("GET", "/orgs/acme/upstreams", {}),
        ("POST", "/orgs/acme/upstreams/gpt/test", {}),
        ("GET", "/orgs/acme/audit/log", {}),
        ("GET", "/orgs/acme/audit/entries", {"params": {"limit": 1000}}),
        ("DELETE", WHERE, {}),
    ]
    for method, path, more in requests:
        answer = await world.ask(method, path, **more)
        assert answer.status_code in {200, 204}
        seen.append(answer.text + str(answer.headers))
        await world.sequencer.drain_once(world.store)
    assert KEY not in "".join(seen) + caplog.text
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 3
    assert not [file for file in files if KEY.encode() in file.read_bytes()]


async def test_a_probe_gets_the_key_and_the_answer_tells_what_it_met(world: World) -> None:
    bare = await world.ask("POST", "/orgs/acme/upstreams/gpt/test", Role.ADMIN)
    assert bare.json() == {"ok": True, "status": 200, "ms": 1.5, "detail": "2 models"}
    await world.ask("PUT", WHERE, json={"key": KEY})
    await world.ask("POST", "/orgs/acme/upstreams/gpt/test", Role.ADMIN)
    (first, none), (_, credential) = world.probe.asked
    assert (first.base_url, none) == (UPSTREAM["base_url"], None)
    assert credential is not None
    assert credential.secret.reveal() == KEY.encode()
    assert (await world.actions()).count("upstream.test") == 2


async def test_a_deleted_upstream_takes_its_key_along(world: World) -> None:
    await world.ask("PUT", WHERE, json={"key": KEY})
    answer = await world.ask("DELETE", "/orgs/acme/upstreams/gpt", headers={"if-match": "*"})
    assert answer.status_code == 204
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    assert (await world.ask("GET", WHERE)).json() == {"version": 0, "set": False}


async def test_a_key_for_an_upstream_that_is_not_there_is_not_stored(world: World) -> None:
    for method, more in (("PUT", {"json": {"key": KEY}}), ("GET", {}), ("DELETE", {})):
        answer = await world.ask(method, "/orgs/acme/upstreams/none/key", **more)  # type: ignore[arg-type]
        assert answer.status_code == 404


async def test_a_key_store_that_is_down_is_503_and_says_no_path(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def down(*_: object) -> int:
        raise StoreUnavailableError("/srv/secret/place is sealed")

    monkeypatch.setattr(world.keys, "put", down)
    answer = await world.ask("PUT", WHERE, json={"key": KEY})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "/srv" not in answer.text
    assert KEY not in answer.text + caplog.text
    assert (await world.ask("GET", "/orgs/acme/upstreams/gpt")).json()["key_version"] == 0


async def test_what_a_deleted_upstream_left_is_not_the_next_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store was away when the upstream was deleted. An admin, who may read no key, then makes one of the same
    name at a server of their own."""
    await world.ask("PUT", WHERE, json={"key": KEY})

    async def down(*_: object) -> None:
        raise StoreUnavailableError("away")

    with monkeypatch.context() as away:
        away.setattr(world.keys, "delete", down)
        answer = await world.ask("DELETE", "/orgs/acme/upstreams/gpt", Role.ADMIN, headers={"if-match": "*"})
        assert answer.status_code == 503
        assert (await world.keys.get(ACME, "gpt")).secret.reveal() == KEY.encode()
        moved = {**UPSTREAM, "base_url": "https://thief.example"}
        assert (await world.ask("POST", "/orgs/acme/upstreams", Role.ADMIN, json=moved)).status_code == 503
    assert (await world.ask("POST", "/orgs/acme/upstreams", Role.ADMIN, json=moved)).status_code == 201
    assert (await world.ask("GET", WHERE)).json()["set"] is False
    await world.ask("POST", "/orgs/acme/upstreams/gpt/test", Role.ADMIN)
    assert [credential for _, credential in world.probe.asked] == [None]


async def test_an_upstream_that_stands_keeps_its_key_when_another_of_its_name_is_refused(world: World) -> None:
    await world.ask("PUT", WHERE, json={"key": KEY})
    assert (await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)).status_code == 409
    assert (await world.keys.get(ACME, "gpt")).secret.reveal() == KEY.encode()


@pytest.mark.parametrize(
    "elsewhere", ["https://thief.example", "http://api.example.com", "https://api.example.com:444"]
)
async def test_a_key_is_not_taken_along_to_another_server(world: World, elsewhere: str) -> None:
    await world.ask("PUT", WHERE, json={"key": KEY})
    tag = {"if-match": "*"}
    upstream, moved = "/orgs/acme/upstreams/gpt", {**UPSTREAM, "base_url": elsewhere}
    refused = await world.ask("PUT", upstream, Role.ADMIN, json=moved, headers=tag)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:orgate:problem:in-use")
    assert "delete the key" in refused.json()["detail"]
    same = {**UPSTREAM, "base_url": UPSTREAM["base_url"] + "/other/path", "connections": 8}
    assert (await world.ask("PUT", upstream, Role.ADMIN, json=same, headers=tag)).status_code == 200
    assert (await world.ask("DELETE", WHERE, Role.ADMIN)).status_code == 204
    assert (await world.ask("PUT", upstream, Role.ADMIN, json=moved, headers=tag)).status_code == 200
