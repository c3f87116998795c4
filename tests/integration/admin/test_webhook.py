"""An organization's webhook over the admin API: its secret shown once, its target judged, its trial told."""

from __future__ import annotations

import json

import pytest

from gateway.secret import Secret
from gateway.secrets.sealed import SealedWebhooks
from gateway.secrets.store import NoSuchSecretError
from gateway.webhooks import DeliveryError
from policies.facts import Role
from tests.integration.admin.world import ACME, GLOBEX, World

HOOK = {"url": "https://hooks.example/in?token=t0p"}


async def secret_of(world: World) -> bytes:
    found: Secret = await SealedWebhooks(world.keys).get(ACME)
    return found.reveal()


async def test_the_secret_is_shown_once_and_is_new_each_time(world: World) -> None:
    none = await world.ask("GET", "/orgs/acme/webhook", Role.AUDITOR)
    assert (none.status_code, none.json()["url"]) == (200, "")
    made = await world.ask("PUT", "/orgs/acme/webhook", Role.ADMIN, json=HOOK)
    assert made.status_code == 200, made.text
    assert made.json()["secret"].startswith("whsec_")
    assert await secret_of(world) == made.json()["secret"].encode()
    seen = await world.ask("GET", "/orgs/acme/webhook")
    assert seen.json() == {**HOOK, "ca_pem": "", "set_at": int(world.clock.seconds), "delivered_at": 0,
                           "failure": "", "version": 1}  # fmt: skip
    assert (await world.ask("PUT", "/orgs/acme/webhook", json=HOOK)).json()["version"] == 2
    entry = await world.last_entry()
    assert entry["action"] == "webhook.set"
    assert "t0p" not in json.dumps(entry)
    assert (await world.ask("GET", "/orgs/globex/webhook", org=GLOBEX)).json()["url"] == ""


async def test_it_is_tried_and_what_it_met_is_told(world: World) -> None:
    assert (await world.ask("POST", "/orgs/acme/webhook/test")).status_code == 404
    await world.ask("PUT", "/orgs/acme/webhook", json=HOOK)
    assert (await world.ask("POST", "/orgs/acme/webhook/test")).json()["ok"] is True
    url, secret, body = world.receiver.got[-1]
    assert (url, secret, json.loads(body)["type"]) == (HOOK["url"], await secret_of(world), "webhook.test")
    world.receiver.failure = DeliveryError("the receiver answered status 500", 500)
    failed = (await world.ask("POST", "/orgs/acme/webhook/test")).json()
    assert (failed["ok"], failed["status"], failed["detail"]) == (False, 500, "the receiver answered status 500")
    assert (await world.last_entry())["detail"] == {"ok": False}


async def test_without_it_there_is_no_secret_either(world: World) -> None:
    await world.ask("PUT", "/orgs/acme/webhook", json=HOOK)
    assert (await world.ask("DELETE", "/orgs/acme/webhook")).status_code == 204
    with pytest.raises(NoSuchSecretError):
        await secret_of(world)
    assert (await world.ask("DELETE", "/orgs/acme/webhook")).status_code == 404
    await world.ask("PUT", "/orgs/acme/webhook", json=HOOK)
    assert (await world.ask("DELETE", "/orgs/acme", headers={"if-match": "*"})).status_code == 204
    with pytest.raises(NoSuchSecretError):
        await secret_of(world)


@pytest.mark.parametrize(
    "body",
    [
        {"url": "http://127.0.0.1:9/"},
        {"url": "ftp://x.example"},
        {"url": "https://a:b@x.example"},
        {"url": ""},
        {"url": 1},
        {},
        {**HOOK, "secret": "mine"},
        {**HOOK, "ca_pem": "x"},
    ],
)
async def test_a_bad_target_is_refused_and_nothing_is_kept(world: World, body: dict[str, object]) -> None:
    assert (await world.ask("PUT", "/orgs/acme/webhook", json=body)).status_code == 422
    with pytest.raises(NoSuchSecretError):
        await secret_of(world)


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.MEMBER])
async def test_who_may_not(world: World, role: Role) -> None:
    for method, path in (("PUT", ""), ("DELETE", ""), ("POST", "/test")):
        answer = await world.ask(method, f"/orgs/acme/webhook{path}", role, json=HOOK)
        assert answer.status_code == 403, (method, path)
