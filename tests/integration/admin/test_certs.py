"""Client certificates over the admin API: judged, stored, announced, described; their keys never seen again."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.pki import make_ca
from gateway.secrets.store import NoSuchSecretError, StoreUnavailableError
from policies.facts import Role
from tests.integration.admin.world import ACME, UPSTREAM, World
from tests.kit.client_certs import issue, texts

WHERE = "/orgs/acme/upstreams/gpt/cert"


@pytest.fixture(autouse=True)
async def upstream(world: World) -> None:
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)


def pair(world: World, name: str = "gw.acme.example", **more: Any) -> dict[str, str]:
    now = datetime.fromtimestamp(world.clock.now(), UTC)
    return texts(issue(make_ca("Client CA", now), name, now=now, **more))


async def test_a_pair_is_set_replaced_removed_and_set_again_with_versions_that_only_rise(world: World) -> None:
    assert (await world.ask("GET", WHERE)).json()["set"] is False
    versions = []
    for name in ("one", "two"):
        answer = await world.ask("PUT", WHERE, Role.ADMIN, json=pair(world, name))
        assert answer.status_code == 200, answer.text
        versions.append(answer.json()["version"])
    shown = (await world.ask("GET", WHERE, Role.AUDITOR)).json()
    assert (shown["version"], shown["set"], shown["subject"], shown["issuer"]) == (
        2, True, "CN=two", "CN=Client CA",
    )  # fmt: skip
    assert shown["not_after"] - shown["not_before"] == timedelta(days=30, hours=1).total_seconds()
    assert world.hub.snapshot.tenants[ACME].upstreams["gpt"].client_cert_version == 2

    assert (await world.ask("DELETE", WHERE)).status_code == 204
    assert (await world.ask("DELETE", WHERE)).status_code == 404
    state = (await world.ask("GET", WHERE)).json()
    assert (state["version"], state["set"], state["subject"]) == (3, False, "")
    versions += [3, (await world.ask("PUT", WHERE, json=pair(world))).json()["version"]]
    assert versions == [1, 2, 3, 4]
    seen = (await world.ask("GET", "/orgs/acme/upstreams/gpt")).json()
    assert (seen["client_cert_version"], seen["key_version"]) == (4, 0)


async def test_the_log_says_which_certificate_and_by_whom(world: World) -> None:
    answer = await world.ask("PUT", WHERE, Role.ADMIN, json=pair(world))
    await world.ask("DELETE", WHERE, Role.ADMIN)
    await world.sequencer.drain_once(world.store)
    query = {"action": "cert.write"}
    items = (await world.ask("GET", "/orgs/acme/audit/entries", params=query)).json()["items"]
    assert [(item["target"], item["request_id"]) for item in items] == [("gpt", answer.headers["x-request-id"])]
    assert items[0]["detail"]["subject"] == "CN=gw.acme.example"
    assert "cert.delete" in await world.actions()


async def test_each_fault_is_named_by_field_and_nothing_is_stored(world: World) -> None:
    good = pair(world)
    late = pair(world, begin=timedelta(days=-9), end=timedelta(days=-1))
    for body, field, says in (
        ({**good, "key": pair(world)["key"]}, "key", "belongs to another certificate"),
        ({**good, "key": "PLANTED"}, "key", "is not a private key in PEM"),
        ({**good, "cert": "PLANTED"}, "cert", "is not one or more certificates in PEM"),
        (late, "cert", "ended on"),
    ):
        answer = await world.ask("PUT", WHERE, json=body)
        assert answer.status_code == 422
        assert [(error["field"], says in error["message"]) for error in answer.json()["errors"]] == [(field, True)]
        assert "PLANTED" not in answer.text
    assert (await world.ask("GET", WHERE)).json()["version"] == 0


@pytest.mark.parametrize(
    "content", ['{"cert": "PLANTED"}', '{"cert": 1, "key": "PLANTED"}', '"PLANTED"', "PLANTED"]
)
async def test_a_body_that_is_none_is_refused_without_a_word_of_it(world: World, content: str) -> None:
    answer = await world.ask("PUT", WHERE, content=content.encode(), headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "PLANTED" not in answer.text


async def test_where_there_is_no_tls_there_is_nothing_to_show_it_over(world: World) -> None:
    plain = {**UPSTREAM, "name": "plain", "base_url": "http://api.example.com"}
    assert (await world.ask("POST", "/orgs/acme/upstreams", json=plain)).status_code == 201
    answer = await world.ask("PUT", "/orgs/acme/upstreams/plain/cert", json=pair(world))
    assert answer.status_code == 422
    assert "no https URL" in answer.text


async def test_a_private_key_appears_nowhere(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body, seen = pair(world), []
    secret = body["key"].splitlines()[1]
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", WHERE, {"json": body}),
        ("GET", WHERE, {}),
        ("GET", "/orgs/acme/upstreams/gpt", {}),
        ("GET", "/orgs/acme/audit/log", {}),
        ("DELETE", WHERE, {}),
    ]
    for method, path, more in requests:
        answer = await world.ask(method, path, **more)
        assert answer.status_code in {200, 204}
        seen.append(answer.text + str(answer.headers))
        await world.sequencer.drain_once(world.store)
    assert secret not in "".join(seen) + caplog.text
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 3
    assert not [file for file in files if secret.encode() in file.read_bytes()]


async def test_a_deleted_upstream_takes_its_certificate_along(world: World) -> None:
    await world.ask("PUT", WHERE, json=pair(world))
    assert (await world.ask("DELETE", "/orgs/acme/upstreams/gpt", headers={"if-match": "*"})).status_code == 204
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    state = (await world.ask("GET", WHERE)).json()
    assert (state["version"], state["set"]) == (0, False)


async def test_an_upstream_that_is_not_there_has_none(world: World) -> None:
    for method, more in (("PUT", {"json": pair(world)}), ("GET", {}), ("DELETE", {})):
        answer = await world.ask(method, "/orgs/acme/upstreams/none/cert", **more)  # type: ignore[arg-type]
        assert answer.status_code == 404


async def test_members_and_auditors_set_none(world: World) -> None:
    for role in (Role.MEMBER, Role.AUDITOR):
        assert (await world.ask("PUT", WHERE, role, json=pair(world))).status_code == 403
        assert (await world.ask("DELETE", WHERE, role)).status_code == 403
    assert (await world.ask("GET", WHERE, Role.MEMBER)).status_code == 403


async def test_a_store_that_is_down_is_503_and_says_no_path(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: object) -> int:
        raise StoreUnavailableError("/srv/secret/place is sealed")

    monkeypatch.setattr(world.certs, "put", down)
    answer = await world.ask("PUT", WHERE, json=pair(world))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "/srv" not in answer.text


async def test_a_deleted_organization_leaves_none(world: World) -> None:
    await world.ask("PUT", WHERE, json=pair(world))
    answer = await world.ask("DELETE", "/orgs/acme", Role.OPERATOR, headers={"if-match": "*"})
    assert answer.status_code == 204, answer.text
    with pytest.raises(NoSuchSecretError):
        await world.certs.get(ACME, "gpt")
