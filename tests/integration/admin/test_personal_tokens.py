"""Personal tokens over the admin API: shown once, one's own or (for admins) anybody's, and off until turned on."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from msgspec import structs

from policies.facts import Role
from tenants.ids import PLATFORM
from tenants.opaque import OpaqueKind, digest_of, kind_of
from tests.integration.admin.world import ACME, GLOBEX, MODEL, SETUP, UPSTREAM, World

OWN = "/me/personal-tokens"
ALL = "/orgs/acme/personal-tokens"


@pytest.fixture
async def on(world: World) -> World:
    """acme has turned them on."""
    answer = await turn(world, on=True)
    assert (answer.status_code, answer.json()["personal_tokens"]) == (200, True)
    return world


async def turn(world: World, *, on: bool) -> httpx.Response:
    found = await world.ask("GET", "/orgs/acme")
    body = {"name": "Acme", "personal_tokens": on}
    return await world.ask("PUT", "/orgs/acme", json=body, headers={"if-match": found.headers["etag"]})


async def make(world: World, role: Role = Role.MEMBER, path: str = OWN, **body: Any) -> dict[str, Any]:
    answer = await world.ask("POST", path, role, json={"name": "ci", **body})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def keys(world: World) -> set[str]:
    """The digests that workers know."""
    return {digest for tenant in world.hub.snapshot.keyed for digest in tenant.static_keys}


async def test_it_is_shown_once_and_served_at_once(on: World) -> None:
    made = await make(on, days=30)
    assert kind_of(made["key"]) is OpaqueKind.PERSONAL
    assert keys(on) == {digest_of(made["key"])}
    token, me = made["token"], on.members[ACME, Role.MEMBER].id
    now = int(on.clock.seconds)
    assert (token["subject"], token["created_by"], token["used_at"]) == (me, me, 0)
    assert (token["created_at"], token["expires_at"]) == (now, now + 30 * 86_400)
    assert token["actions"] == ["completions", "chat", "embeddings", "models"]
    listed = (await on.ask("GET", OWN, Role.MEMBER)).json()
    assert listed == {"items": [token], "next": ""}
    assert (await on.ask("GET", f"{OWN}/{token['id']}", Role.MEMBER)).json() == token
    entry = await on.last_entry()
    assert (entry["action"], entry["target"]) == ("personal_token.create", token["id"])
    assert made["key"] not in str(entry)


async def test_ninety_days_are_usual(on: World) -> None:
    token = (await make(on))["token"]
    assert token["expires_at"] - token["created_at"] == 90 * 86_400


async def test_they_are_off_by_default_and_turning_them_off_ends_all(world: World) -> None:
    refused = await world.ask("POST", OWN, Role.MEMBER, json={"name": "ci"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:orgate:problem:personal-tokens-off")
    assert "turned off" in refused.json()["detail"]
    await turn(world, on=True)
    await make(world)
    assert len(keys(world)) == 1
    await turn(world, on=False)
    assert keys(world) == set()
    await turn(world, on=True)
    assert keys(world) == set()
    assert (await world.ask("GET", OWN, Role.MEMBER)).json()["items"] == []


async def test_the_platform_has_none(world: World) -> None:
    found = await world.ask("GET", "/orgs/platform", Role.OPERATOR)
    answer = await world.ask(
        "PUT",
        "/orgs/platform",
        Role.OPERATOR,
        json={"name": "Platform", "personal_tokens": True},
        headers={"if-match": found.headers["etag"]},
    )
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "personal_tokens")
    assert (await world.ask("POST", OWN, Role.OPERATOR, json={"name": "x"})).status_code == 409


async def test_what_is_wrong_is_said_by_field(on: World) -> None:
    for body, field in (
        ({"name": ""}, "name"),
        ({"name": "x", "days": 0}, "days"),
        ({"name": "x", "days": 367}, "days"),
        ({"name": "x", "actions": []}, "actions"),
        ({"name": "x", "actions": ["admin"]}, "actions[0]"),
        ({"name": "x", "models": ["nothing"]}, "models"),
        ({"name": "x", "subject": "mem_1"}, "subject"),
        ({"name": "x", "roles": ["owner"]}, "roles"),
    ):
        answer = await on.ask("POST", OWN, Role.MEMBER, json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field), answer.text
    assert keys(on) == set()


async def test_it_may_be_narrowed_to_models(on: World) -> None:
    await on.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    await on.ask("POST", "/orgs/acme/models", json=MODEL)
    made = await make(on, models=["code"], actions=["chat"])
    (tenant,) = on.hub.snapshot.keyed
    (served,) = tenant.static_keys.values()
    assert (served.scope.models, list(served.scope.actions)) == (("code",), ["chat"])
    assert made["token"]["models"] == ["code"]


async def test_somebody_elses_is_as_one_that_never_was(on: World) -> None:
    key = (await make(on))["token"]["id"]
    for other in (Role.OWNER, Role.AUDITOR):
        for method in ("GET", "DELETE"):
            there = await on.ask(method, f"{OWN}/{key}", other)
            never = await on.ask(method, f"{OWN}/pt_00000000000000000000", other)
            assert (there.status_code, there.json()["detail"]) == (never.status_code, never.json()["detail"])
            assert there.status_code == 404
    assert (await on.ask("GET", f"/orgs/globex/personal-tokens/{key}", org=GLOBEX)).status_code == 404
    assert (await on.ask("DELETE", f"/orgs/globex/personal-tokens/{key}", org=GLOBEX)).status_code == 404
    assert len(keys(on)) == 1


async def test_the_holder_and_an_admin_take_it_back(on: World) -> None:
    first, second = [(await make(on))["token"]["id"] for _ in range(2)]
    assert (await on.ask("DELETE", f"{OWN}/{first}", Role.MEMBER)).status_code == 204
    assert (await on.ask("DELETE", f"{ALL}/{second}", Role.ADMIN)).status_code == 204
    assert keys(on) == set()
    assert (await on.actions())[-2:] == ["personal_token.revoke"] * 2
    assert (await on.ask("DELETE", f"{ALL}/{second}", Role.ADMIN)).status_code == 404


async def test_admins_make_them_for_others_but_owners_alone_for_owners(on: World) -> None:
    member, owner = on.members[ACME, Role.MEMBER].id, on.members[ACME, Role.OWNER].id
    token = (await make(on, Role.ADMIN, ALL, subject=member))["token"]
    assert (token["subject"], token["created_by"]) == (member, on.members[ACME, Role.ADMIN].id)
    refused = await on.ask("POST", ALL, Role.ADMIN, json={"name": "x", "subject": owner})
    assert refused.status_code == 403
    await make(on, Role.OWNER, ALL, subject=owner)
    listed = (await on.ask("GET", ALL, Role.AUDITOR, params={"subject": member})).json()["items"]
    assert [one["id"] for one in listed] == [token["id"]]
    theirs = on.members[GLOBEX, Role.MEMBER].id
    for stranger in (theirs, "mem_00000000000000000000", "svc_00000000000000000000", ""):
        answer = await on.ask("POST", ALL, Role.ADMIN, json={"name": "x", "subject": stranger})
        assert answer.status_code == 422, answer.text


async def test_an_admins_for_a_member_does_not_become_an_owners(on: World) -> None:
    held = on.members[ACME, Role.MEMBER]
    await make(on, Role.ADMIN, ALL, subject=held.id)
    body = {"email": held.email, "name": held.name, "roles": ["owner"]}
    put = await on.ask("PUT", f"/orgs/acme/members/{held.id}", json=body, headers={"if-match": "*"})
    assert put.status_code == 200
    assert keys(on) == set()
    assert "personal_token.revoke" in await on.actions()


async def test_one_for_another_waits_for_a_promotion_under_way(on: World) -> None:
    held = on.members[ACME, Role.MEMBER]
    async with on.deps.turn:
        asked = asyncio.create_task(on.ask("POST", ALL, Role.ADMIN, json={"name": "x", "subject": held.id}))
        done, _ = await asyncio.wait([asked], timeout=0.1)
        assert not done
        promoted = structs.replace(held, roles=(Role.OWNER,))
        await on.store.for_org(ACME).members.replace(promoted, held.version, SETUP)
    assert (await asked).status_code == 403
    assert keys(on) == set()


async def test_a_service_account_may_have_one(on: World) -> None:
    made = await on.ask("POST", "/orgs/acme/services", json={"name": "bot", "roles": ["member"]})
    assert made.status_code == 201, made.text
    bot = made.json()["id"]
    await make(on, Role.ADMIN, ALL, subject=bot)
    (tenant,) = on.hub.snapshot.keyed
    assert [(one.subject, one.roles) for one in tenant.static_keys.values()] == [(bot, (Role.MEMBER,))]


async def test_a_service_account_makes_none_for_itself(on: World) -> None:
    """A job's token is of minutes: it must not become one of a year."""
    body = {"name": "bot", "roles": ["member", "admin"]}
    bot = (await on.ask("POST", "/orgs/acme/services", json=body)).json()["id"]
    bearer = on.bearer(Role.OWNER, claims={"sub": bot, "roles": ["member", "admin"]})
    for path, more in ((OWN, {}), (ALL, {"subject": bot})):
        answer = await on.client.post(f"/admin/v1{path}", json={"name": "x", **more}, headers=bearer)
        assert (answer.status_code, "--service" in answer.json()["detail"]) == (403, True)
        entry = await on.last_entry()
        assert (entry["action"], entry["target"]) == ("admin.refuse", "own_personal_token.create")
    assert keys(on) == set()
    assert (await on.client.get(f"/admin/v1{OWN}", headers=bearer)).status_code == 200


async def test_there_are_ten_at_most(on: World) -> None:
    for _ in range(10):
        await make(on)
    answer = await on.ask("POST", OWN, Role.MEMBER, json={"name": "x"})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:orgate:problem:in-use")
    assert "10 personal tokens" in answer.json()["detail"]


@pytest.mark.parametrize("verb", ["suspend", "offboard", "revoke"])
async def test_what_shuts_a_member_out_ends_theirs_and_nobody_elses(on: World, verb: str) -> None:
    await make(on)
    others = await make(on, Role.OWNER)
    member = on.members[ACME, Role.MEMBER].id
    answer = await on.ask("POST", f"/orgs/acme/members/{member}/{verb}", Role.ADMIN)
    assert answer.status_code == 200
    assert keys(on) == {digest_of(others["key"])}
    if verb == "revoke":
        assert answer.json()["personal_tokens"] == 1
    else:
        await on.ask("POST", f"/orgs/acme/members/{member}/resume", Role.ADMIN)
        assert keys(on) == {digest_of(others["key"])}


async def test_a_role_taken_away_is_taken_from_it(on: World) -> None:
    await make(on, Role.ADMIN)
    admin = on.members[ACME, Role.ADMIN]
    body = {"email": admin.email, "name": "admin", "roles": ["auditor"]}
    await on.ask("PUT", f"/orgs/acme/members/{admin.id}", json=body, headers={"if-match": '"1"'})
    (tenant,) = on.hub.snapshot.keyed
    assert [one.roles for one in tenant.static_keys.values()] == [(Role.AUDITOR,)]


async def test_an_operator_sees_them_and_that_is_written_down(on: World) -> None:
    await make(on)
    listed = await on.ask("GET", ALL, Role.OPERATOR, org=PLATFORM)
    assert len(listed.json()["items"]) == 1
    assert (await on.actions())[-1] == "operator.access"
