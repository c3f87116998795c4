"""Clients and service accounts over the admin API: made, changed, shut out; a secret is shown once."""

from __future__ import annotations

import re
from typing import Any

from policies.facts import Role
from tenants.clients import SECRET_METHODS, AuthMethod
from tenants.opaque import OpaqueKind, digest_of, kind_of
from tests.integration.admin.world import ACME, GLOBEX, World
from tests.unit.oauth.registered import EC, jwks

PATH = "/orgs/acme/clients"
SERVICES = "/orgs/acme/services"
CLIENT: dict[str, Any] = {
    "name": "portal",
    "title": "The Portal",
    "auth_method": "client_secret_basic",
    "redirect_uris": ["https://portal.example/cb"],
}


async def made(world: World, path: str = PATH, **changes: Any) -> dict[str, Any]:
    answer = await world.ask("POST", path, json={**(CLIENT if path == PATH else {}), **changes})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def faults(world: World, **changes: Any) -> dict[str, str]:
    answer = await world.ask("POST", PATH, json={**CLIENT, **changes})
    assert answer.status_code == 422, answer.text
    return {one["field"]: one["message"] for one in answer.json()["errors"]}


async def test_a_client_is_made_read_changed_and_deleted(world: World) -> None:
    one = await made(world)
    assert (one["state"], one["version"], one["grant_types"]) == (
        "active",
        1,
        ["authorization_code", "refresh_token"],
    )
    assert (await world.ask("GET", f"{PATH}/portal", Role.AUDITOR)).json() == one
    changed = {**CLIENT, "title": "Another", "planes": ["v1", "admin"]}
    answer = await world.ask("PUT", f"{PATH}/portal", json=changed, headers={"if-match": '"1"'})
    assert (answer.status_code, answer.json()["title"]) == (200, "Another")
    narrower = {**changed, "planes": ["v1"]}
    await world.ask("PUT", f"{PATH}/portal", json=narrower, headers={"if-match": '"2"'})
    assert [one.member for one in world.streams.snapshot.revocations] == ["acme.portal"]
    answer = await world.ask("DELETE", f"{PATH}/portal", headers={"if-match": '"3"'})
    assert answer.status_code == 204
    assert ("end", "acme.portal", "") in world.sessions.calls
    assert (await world.ask("GET", f"{PATH}/portal")).status_code == 404
    actions = [one for one in await world.actions() if one.startswith("client.")]
    assert actions == ["client.create", "client.update", "client.update", "client.delete"]


async def test_a_secret_is_shown_once_and_gives_way_to_the_next(world: World) -> None:
    await made(world)
    first = (await world.ask("POST", f"{PATH}/portal/secret", json={})).json()
    assert (first["client_id"], kind_of(first["secret"])) == ("acme.portal", OpaqueKind.CLIENT)
    world.clock.seconds += 1
    second = (await world.ask("POST", f"{PATH}/portal/secret", json={"overlap_s": 600})).json()
    known = await world.store.for_org(ACME).clients.secrets("portal")
    assert [one.digest for one in known] == [digest_of(second["secret"]), digest_of(first["secret"])]
    told = (await world.ask("GET", f"{PATH}/portal/secret", Role.AUDITOR)).json()["items"]
    assert [one["expires_at"] for one in told] == [0, int(world.clock.seconds) + 600]
    assert set(told[0]) == {"created_at", "expires_at"}
    assert (await world.ask("DELETE", f"{PATH}/portal/secret")).json() == {"ended": 1}
    assert (await world.ask("DELETE", f"{PATH}/portal/secret")).json() == {"ended": 0}
    for answer in (
        await world.ask("POST", f"{PATH}/portal/secret", json={"overlap_s": -1}),
        await world.ask("POST", f"{PATH}/portal/secret", json={"overlap_s": 90 * 86_400 + 1}),
    ):
        assert answer.status_code == 422
    entries = await world.actions()
    assert entries.count("client.secret") == 4


async def test_a_client_without_secrets_is_given_none(world: World) -> None:
    await made(world, auth_method="none")
    answer = await world.ask("POST", f"{PATH}/portal/secret", json={})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:orgate:problem:no-secret")
    assert AuthMethod.NONE not in SECRET_METHODS


async def test_a_client_is_suspended_and_resumed(world: World) -> None:
    await made(world)
    for _ in range(2):
        answer = await world.ask("POST", f"{PATH}/portal/suspend")
        assert (answer.status_code, answer.json()["state"]) == (200, "suspended")
    assert ("end", "acme.portal", "") in world.sessions.calls
    assert [one.member for one in world.streams.snapshot.revocations] == ["acme.portal"]
    answer = await world.ask("POST", f"{PATH}/portal/resume")
    assert (answer.json()["state"], answer.json()["version"]) == ("active", 3)


async def test_what_is_wrong_with_a_client_is_said_by_field(world: World) -> None:
    assert "not to 127.0.0.1" in (await faults(world, redirect_uris=["http://portal.example/"]))["redirect_uris"]
    weak = '{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}'
    for keys in ("[", '{"keys":[7]}', weak, '{"keys":[{"kty":"oct","k":"AAAA"}]}'):
        assert list(await faults(world, auth_method="private_key_jwt", jwks=keys)) == ["jwks"]
    assert list(await faults(world, colour="red")) == ["colour"]


async def test_keys_are_public_ones_that_something_can_be_verified_with(world: World) -> None:
    one = await made(world, auth_method="private_key_jwt", jwks=jwks(EC))
    assert one["jwks"] == jwks(EC)
    assert "x" not in str((await world.last_entry())["detail"].get("jwks", ""))


async def test_a_machine_client_needs_a_service_account(world: World) -> None:
    grants: dict[str, Any] = {"grant_types": ["client_credentials"], "redirect_uris": []}
    answer = await world.ask("POST", PATH, json={**CLIENT, **grants, "service": "svc_nobody"})
    assert answer.status_code == 422
    service = await made(world, SERVICES, name="ci")
    assert re.fullmatch(r"svc_[0-9a-z]{20}", service["id"])
    await made(world, **grants, service=service["id"])
    answer = await world.ask("DELETE", f"{SERVICES}/{service['id']}", headers={"if-match": '"1"'})
    assert (answer.status_code, "portal" in answer.text) == (409, True)


async def test_a_service_account_is_made_changed_and_shut_out(world: World) -> None:
    one = await made(world, SERVICES, name="ci", roles=["member", "auditor"])
    path = f"{SERVICES}/{one['id']}"
    assert (await world.ask("GET", path, Role.AUDITOR)).json() == one
    found = (await world.ask("GET", f"{SERVICES}?name=ci", Role.AUDITOR)).json()
    assert found == {"items": [one], "next": ""}
    answer = await world.ask("PUT", path, json={"name": "cd", "roles": ["member"]}, headers={"if-match": '"1"'})
    assert (answer.json()["name"], answer.json()["not_before"] > 0) == ("cd", True)
    assert world.streams.shut_out("acme", one["id"])
    world.streams.resets.clear()
    for _ in range(2):
        assert (await world.ask("POST", f"{path}/suspend")).json()["state"] == "suspended"
    assert world.streams.shut_out("acme", one["id"])
    assert (await world.ask("POST", f"{path}/resume")).json()["state"] == "active"
    before = (await world.ask("GET", path)).json()
    world.clock.seconds += 5
    revoked = (await world.ask("POST", f"{path}/revoke")).json()
    assert revoked["not_before"] > before["not_before"]
    snapshot = world.streams.snapshot
    assert snapshot.revoked(ACME, one["id"], "token-1", int(world.clock.seconds))
    answer = await world.ask("DELETE", path, headers={"if-match": f'"{revoked["version"]}"'})
    assert answer.status_code == 204
    assert (await world.ask("GET", path)).status_code == 404
    actions = [one for one in await world.actions() if one.startswith("service.")]
    assert actions == [
        "service.create",
        "service.update",
        "service.update",
        "service.update",
        "service.revoke",
        "service.delete",
    ]


async def test_a_service_account_owns_nothing(world: World) -> None:
    for roles in (["owner"], ["operator"], []):
        answer = await world.ask("POST", SERVICES, json={"name": "ci", "roles": roles})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "roles")


async def test_auditors_read_and_members_do_not(world: World) -> None:
    for path in (PATH, SERVICES):
        assert (await world.ask("GET", path, Role.AUDITOR)).status_code == 200
        assert (await world.ask("GET", path, Role.MEMBER)).status_code == 403
        assert (await world.ask("POST", path, Role.AUDITOR, json={})).status_code == 403


async def test_anothers_are_as_unknown_as_none(world: World) -> None:
    await made(world)
    service = await made(world, SERVICES, name="ci")
    for method, path in (
        ("GET", "clients/portal"),
        ("POST", "clients/portal/suspend"),
        ("DELETE", "clients/portal/secret"),
        ("GET", f"services/{service['id']}"),
        ("POST", f"services/{service['id']}/revoke"),
    ):
        theirs = await world.ask(method, f"/orgs/globex/{path}", org=GLOBEX)
        assert theirs.status_code == 404, path
        foreign = await world.ask(method, f"/orgs/acme/{path}", org=GLOBEX)
        assert foreign.status_code == 404


async def test_a_service_account_calls_the_admin_api_in_its_own_name(world: World) -> None:
    one = await made(world, SERVICES, name="ci", roles=["admin"])
    claims = {"sub": one["id"], "roles": ["admin"], "client_id": "acme.ci"}
    headers = world.bearer(Role.ADMIN, claims=claims)
    me = await world.client.get("/admin/v1/me", headers=headers)
    assert (me.json()["id"], me.json()["name"], me.json()["email"]) == (one["id"], "ci", "")
    answer = await world.client.post("/admin/v1/orgs/acme/teams", headers=headers, json={"name": "core"})
    assert answer.status_code == 201
    entry = await world.last_entry()
    assert (entry["action"], entry["actor"], entry["client"]) == ("team.create", one["id"], "acme.ci")
    await world.ask("POST", f"{SERVICES}/{one['id']}/suspend")
    assert (await world.client.get("/admin/v1/me", headers=headers)).status_code == 401
