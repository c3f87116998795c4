"""Members: invitations, roles, suspension, sessions; who may touch whom; what happens to tokens and streams."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from policies.facts import Role
from tenants.ids import PLATFORM
from tests.integration.admin.world import ACME, GLOBEX, SETUP, World

ADA: dict[str, Any] = {"email": "ada@acme.example", "name": "Ada", "roles": ["member"]}


def path(world: World, role: Role, verb: str = "") -> str:
    return f"/orgs/acme/members/{world.members[ACME, role].id}{verb}"


async def test_a_new_member_comes_with_an_invitation(world: World) -> None:
    answer = await world.ask("POST", "/orgs/acme/members", Role.ADMIN, json=ADA)
    assert answer.status_code == 201
    member, invitation = answer.json()["member"], answer.json()["invitation"]
    assert member["id"].startswith("mem_")
    assert answer.headers["location"] == f"/admin/v1/orgs/acme/members/{member['id']}"
    assert answer.headers["etag"] == '"1"'
    assert invitation == {
        "code": "THE-CODE",
        "expires_at": 1_800_604_800,
        "url": "https://gateway.example/oauth/invitation?org=acme",
    }
    assert world.sessions.calls == [("invite", "acme", member["id"])]
    assert (await world.actions())[-2:] == ["member.create", "member.invite"]
    assert (await world.ask("POST", "/orgs/acme/members", json=ADA)).status_code == 409


async def test_members_are_filtered_by_role_state_and_address(world: World) -> None:
    for params, roles in (({"roles": "owner"}, ["owner"]), ({"email": "Owner@ACME.example"}, ["owner"])):
        page = (await world.ask("GET", "/orgs/acme/members", params=params)).json()
        assert [item["name"] for item in page["items"]] == roles
    assert (await world.ask("GET", "/orgs/acme/members", params={"state": "suspended"})).json()["items"] == []


async def test_an_owner_touches_owners_and_an_admin_does_not(world: World) -> None:
    owner = path(world, Role.OWNER)
    body = {"email": "owner@acme.example", "name": "owner", "roles": ["member"]}
    attempts = [
        ("POST", "/orgs/acme/members", {"json": {**ADA, "roles": ["owner"]}}),
        ("PUT", owner, {"json": body, "headers": {"if-match": "*"}}),
        ("PUT", path(world, Role.MEMBER), {"json": {**ADA, "roles": ["owner"]}, "headers": {"if-match": "*"}}),
        ("DELETE", owner, {"headers": {"if-match": "*"}}),
        ("POST", f"{owner}/invite", {}),
        ("POST", f"{owner}/suspend", {}),
        ("POST", f"{owner}/resume", {}),
        ("POST", f"{owner}/revoke", {}),
    ]
    for method, where, more in attempts:
        answer = await world.ask(method, where, Role.ADMIN, **more)  # type: ignore[arg-type]
        assert answer.status_code == 403, (method, where)
        assert "owner" in answer.json()["detail"]
    assert (await world.actions()).count("admin.refuse") == len(attempts)
    assert world.sessions.calls == []
    second = await world.ask("POST", "/orgs/acme/members", json={**ADA, "roles": ["owner"]})
    assert second.status_code == 201


@pytest.mark.parametrize(("method", "verb"), [("DELETE", ""), ("POST", "/suspend"), ("PUT", "")])
async def test_the_last_active_owner_stays(world: World, method: str, verb: str) -> None:
    body = {"email": "owner@acme.example", "name": "owner", "roles": ["admin"]}
    more: dict[str, Any] = {"headers": {"if-match": "*"}, **({"json": body} if method == "PUT" else {})}
    answer = await world.ask(method, path(world, Role.OWNER, verb), Role.OPERATOR, **more)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:orgate:problem:last-one")
    assert (await world.ask("GET", path(world, Role.OWNER))).json()["version"] == 1

    await world.ask("POST", "/orgs/acme/members", json={**ADA, "roles": ["owner"]})
    again = await world.ask(method, path(world, Role.OWNER, verb), Role.OPERATOR, **more)
    assert again.status_code in {200, 204}


async def test_the_last_operator_stays(world: World) -> None:
    operator = world.members[PLATFORM, Role.OPERATOR].id
    answer = await world.ask("POST", f"/orgs/platform/members/{operator}/suspend", Role.OPERATOR)
    assert answer.status_code == 409


@pytest.mark.parametrize(
    ("org", "roles"),
    [("acme", ["operator"]), ("platform", ["owner"]), ("acme", []), ("acme", ["member", "member"])],
)
async def test_roles_that_cannot_be_are_refused(world: World, org: str, roles: list[str]) -> None:
    answer = await world.ask("POST", f"/orgs/{org}/members", Role.OPERATOR, json={**ADA, "roles": roles})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "roles")


async def test_suspension_ends_tokens_sessions_and_streams(world: World) -> None:
    bearer = world.bearer(Role.ADMIN)
    assert (await world.client.get("/admin/v1/me", headers=bearer)).status_code == 200
    answer = await world.ask("POST", path(world, Role.ADMIN, "/suspend"))
    assert (answer.status_code, answer.json()["state"]) == (200, "suspended")
    member = world.members[ACME, Role.ADMIN].id
    assert world.sessions.calls == [("end", "acme", member)]
    assert world.streams.shut_out("acme", member)
    assert (await world.client.get("/admin/v1/me", headers=bearer)).status_code == 401
    snapshot = world.hub.snapshot
    assert snapshot.revoked(ACME, member, "token-1", int(world.clock.seconds))

    repeated = await world.ask("POST", path(world, Role.ADMIN, "/suspend"))
    assert repeated.headers["etag"] == answer.headers["etag"]
    assert len(world.sessions.calls) == 2

    invited = await world.ask("POST", path(world, Role.ADMIN, "/invite"))
    assert invited.status_code == 409
    resumed = await world.ask("POST", path(world, Role.ADMIN, "/resume"))
    assert resumed.json()["state"] == "active"
    world.clock.seconds += 2
    fresh = await world.client.get("/admin/v1/me", headers=world.bearer(Role.ADMIN))
    assert fresh.status_code == 200


async def test_a_suspension_is_believed_before_it_is_published(world: World) -> None:
    """A crash between the write and its publication, or a bus that is down, opens nothing here."""
    member = world.members[ACME, Role.ADMIN]
    bearer = world.bearer(Role.ADMIN)
    from msgspec import structs

    from tenants.models import State
    from tests.integration.admin.world import SETUP

    await world.store.for_org(ACME).members.replace(structs.replace(member, state=State.SUSPENDED), 1, SETUP)
    assert not world.hub.snapshot.revocations
    assert (await world.client.get("/admin/v1/me", headers=bearer)).status_code == 401


async def test_a_role_in_the_token_that_the_store_does_not_know_counts_for_nothing(world: World) -> None:
    answer = await world.ask(
        "GET", "/orgs/acme/members", Role.MEMBER, headers=world.bearer(Role.MEMBER, claims={"roles": ["owner"]})
    )
    assert answer.status_code == 403


async def test_offboarding_says_what_it_did_and_when(world: World) -> None:
    bearer = world.bearer(Role.MEMBER)
    answer = await world.ask("POST", path(world, Role.MEMBER, "/offboard"), Role.ADMIN)
    assert answer.status_code == 200
    told = answer.json()
    member = world.members[ACME, Role.MEMBER].id
    assert (told["member"]["state"], told["fenced"]) == ("suspended", [])
    assert [step["count"] for step in told["steps"] if step["count"] is not None] == [2, 0]
    assert [step["ms"] for step in told["steps"]] == sorted(step["ms"] for step in told["steps"])
    assert world.sessions.calls == [("end", "acme", member), ("uninvite", "acme", member)]
    assert world.streams.shut_out("acme", member)
    assert (await world.client.get("/admin/v1/me", headers=bearer)).status_code == 401
    assert (await world.actions())[-1] == "member.offboard"
    again = await world.ask("POST", path(world, Role.MEMBER, "/offboard"), Role.ADMIN)
    assert again.status_code == 200
    assert (await world.ask("POST", path(world, Role.OWNER, "/offboard"), Role.ADMIN)).status_code == 403


async def test_a_role_taken_away_ends_the_tokens_that_carry_it(world: World) -> None:
    bearer = world.bearer(Role.ADMIN)
    body = {"email": "admin@acme.example", "name": "admin", "roles": ["member"]}
    answer = await world.ask("PUT", path(world, Role.ADMIN), json=body, headers={"if-match": '"1"'})
    assert (answer.status_code, answer.json()["roles"]) == (200, ["member"])
    assert (await world.client.get("/admin/v1/me", headers=bearer)).status_code == 401
    assert world.streams.shut_out("acme", world.members[ACME, Role.ADMIN].id)


async def test_revoke_ends_every_session_now(world: World) -> None:
    bearer = world.bearer(Role.MEMBER)
    answer = await world.ask("POST", path(world, Role.MEMBER, "/revoke"), Role.ADMIN)
    assert (answer.status_code, answer.json()) == (200, {"sessions": 2, "personal_tokens": 0})
    member = world.members[ACME, Role.MEMBER].id
    assert world.sessions.calls == [("end", "acme", member)]
    assert world.streams.shut_out("acme", member)
    assert (await world.client.get("/admin/v1/me", headers=bearer)).status_code == 401
    assert (await world.actions())[-1] == "member.revoke"


async def test_a_deleted_member_is_forgotten(world: World) -> None:
    bearer = world.bearer(Role.MEMBER)
    answer = await world.ask("DELETE", path(world, Role.MEMBER), Role.ADMIN, headers={"if-match": '"1"'})
    assert answer.status_code == 204
    member = world.members[ACME, Role.MEMBER].id
    assert world.sessions.calls == [("drop", "acme", member)]
    assert (await world.ask("GET", path(world, Role.MEMBER))).status_code == 404
    assert (await world.client.get("/admin/v1/me", headers=bearer)).status_code == 401


async def test_what_get_gave_can_be_put_back_and_read_only_fields_cannot_change(world: World) -> None:
    read = (await world.ask("GET", path(world, Role.MEMBER))).json()
    again = {name: value for name, value in read.items() if name not in {"org", "version", "created_at"}}
    same = await world.ask("PUT", path(world, Role.MEMBER), json=again, headers={"if-match": "*"})
    assert same.status_code == 200
    for name, value in (("state", "suspended"), ("id", "mem_other"), ("not_before", 5)):
        body = {**again, name: value}
        answer = await world.ask("PUT", path(world, Role.MEMBER), json=body, headers={"if-match": "*"})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, name)


async def test_an_operator_acts_elsewhere_and_the_log_there_says_so(world: World) -> None:
    answer = await world.ask("POST", "/orgs/globex/members", Role.OPERATOR, json={**ADA, "roles": ["owner"]})
    assert answer.status_code == 201
    entry = await world.last_entry(GLOBEX)
    assert (entry["actor_org"], entry["org"]) == ("platform", "globex")
    assert entry["request_id"] == answer.headers["x-request-id"]


async def test_who_becomes_an_owner_has_no_invitation_that_an_admin_may_hold(world: World) -> None:
    """The code sets a password: kept until the member is promoted, it would make its holder an owner."""
    member = world.members[ACME, Role.MEMBER]
    body = {"email": member.email, "name": member.name, "roles": ["member", "auditor"]}
    put: dict[str, Any] = {"json": body, "headers": {"if-match": "*"}}
    assert (await world.ask("PUT", path(world, Role.MEMBER), **put)).status_code == 200
    assert world.sessions.calls == []
    put = {"json": {**body, "roles": ["owner"]}, "headers": {"if-match": "*"}}
    assert (await world.ask("PUT", path(world, Role.MEMBER), **put)).status_code == 200
    assert world.sessions.calls == [("uninvite", "acme", member.id)]
    put = {"json": {**body, "name": "Ada", "roles": ["owner"]}, "headers": {"if-match": "*"}}
    assert (await world.ask("PUT", path(world, Role.MEMBER), **put)).status_code == 200
    assert len(world.sessions.calls) == 1
    assert (await world.ask("POST", path(world, Role.MEMBER, "/invite"), Role.ADMIN)).status_code == 403


async def test_an_invitation_waits_for_a_promotion_under_way(world: World) -> None:
    async with world.deps.turn:
        asked = asyncio.create_task(world.ask("POST", path(world, Role.MEMBER, "/invite"), Role.ADMIN))
        done, _ = await asyncio.wait([asked], timeout=0.1)
        assert not done
        held = world.members[ACME, Role.MEMBER]
        promoted = structs.replace(held, roles=(Role.OWNER,))
        await world.store.for_org(ACME).members.replace(promoted, held.version, SETUP)
    assert (await asked).status_code == 403
    assert world.sessions.calls == []
