"""Organizations: made and stopped by operators, renamed and deleted by owners."""

from __future__ import annotations

from typing import Any

from gateway.secret import Secret
from policies.facts import Role
from tests.integration.admin.world import ACME, UPSTREAM, World

INITECH: dict[str, Any] = {"id": "initech", "name": "Initech"}


async def test_an_operator_makes_lists_and_filters_organizations(world: World) -> None:
    made = await world.ask("POST", "/orgs", Role.OPERATOR, json=INITECH)
    assert (made.status_code, made.headers["location"]) == (201, "/admin/v1/orgs/initech")
    listed = (await world.ask("GET", "/orgs", Role.OPERATOR, params={"name": "Initech"})).json()
    assert [item["id"] for item in listed["items"]] == ["initech"]
    rules = (await world.ask("GET", "/orgs/initech/rules", Role.OPERATOR)).json()
    assert [rule["name"] for rule in rules["items"]] == ["members-use-every-model"]
    assert (await world.ask("POST", "/orgs", Role.OPERATOR, json=INITECH)).status_code == 409


async def test_an_id_is_needed_and_a_slug(world: World) -> None:
    for body in ({"name": "x"}, {"id": "No Slug", "name": "x"}, {"id": "../x", "name": "x"}):
        answer = await world.ask("POST", "/orgs", Role.OPERATOR, json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "id")
    suspended = await world.ask("POST", "/orgs", Role.OPERATOR, json={**INITECH, "state": "suspended"})
    assert suspended.json()["errors"][0]["field"] == "state"


async def test_an_owner_renames_and_only_an_operator_moves_host_names(world: World) -> None:
    renamed = await world.ask("PUT", "/orgs/acme", json={"name": "Acme Ltd"}, headers={"if-match": '"1"'})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "Acme Ltd")
    hosts = {"name": "Acme", "hosts": ["acme.gateway.example"]}
    refused = await world.ask("PUT", "/orgs/acme", json=hosts, headers={"if-match": '"2"'})
    assert (refused.status_code, refused.json()["errors"][0]["message"]) == (403, "refused by 'org.hosts'")
    moved = await world.ask("PUT", "/orgs/acme", Role.OPERATOR, json=hosts, headers={"if-match": '"2"'})
    assert moved.json()["hosts"] == ["acme.gateway.example"]
    taken = await world.ask("PUT", "/orgs/globex", Role.OPERATOR, json=hosts, headers={"if-match": "*"})
    assert taken.status_code == 409
    kept = await world.ask("PUT", "/orgs/acme", json={**hosts, "name": "Acme again"}, headers={"if-match": '"3"'})
    assert kept.status_code == 200


async def test_a_suspended_organization_is_shut_and_resumes(world: World) -> None:
    assert (await world.ask("POST", "/orgs/acme/suspend")).status_code == 403
    answer = await world.ask("POST", "/orgs/acme/suspend", Role.OPERATOR)
    told = answer.json()
    assert (answer.status_code, told["org"]["state"], told["fenced"]) == (200, "suspended", [])
    assert [step["count"] for step in told["steps"] if step["count"] is not None] == [2, 0]
    assert [step["ms"] for step in told["steps"]] == sorted(step["ms"] for step in told["steps"])
    assert world.sessions.calls == [("end", "acme", "")]
    assert world.streams.shut_out("acme", "")
    world.clock.seconds += 2
    shut = await world.ask("GET", "/me")
    assert (shut.status_code, shut.json()["type"]) == (403, "urn:orgate:problem:organization-suspended")
    assert (await world.ask("GET", "/orgs/acme/members", Role.OPERATOR)).status_code == 200
    again = await world.ask("POST", "/orgs/acme/suspend", Role.OPERATOR)
    assert again.headers["etag"] == answer.headers["etag"]
    resumed = await world.ask("POST", "/orgs/acme/resume", Role.OPERATOR)
    assert resumed.json()["state"] == "active"
    assert (await world.ask("GET", "/me")).status_code == 200


async def test_an_owner_deletes_their_own_with_all_it_has(world: World) -> None:
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    await world.keys.put(ACME, "gpt", Secret("sk-acme"))
    bearer = world.bearer(Role.OWNER)
    stale = await world.ask("DELETE", "/orgs/acme", headers={"if-match": '"9"'})
    assert stale.status_code == 412
    members = {member.id for (org, _), member in world.members.items() if org == ACME}
    answer = await world.ask("DELETE", "/orgs/acme", headers={"if-match": '"1"'})
    assert answer.status_code == 204
    assert {call for call in world.sessions.calls if call[0] == "drop"} == {("drop", ACME, one) for one in members}
    assert world.streams.shut_out("acme", "")
    assert (await world.client.get("/admin/v1/me", headers=bearer)).status_code == 401
    assert (await world.ask("GET", "/orgs/acme", Role.OPERATOR)).status_code == 404
    reused = await world.ask("POST", "/orgs", Role.OPERATOR, json={"id": "acme", "name": "Other"})
    assert reused.status_code == 409
    assert (await world.actions())[-1] == "org.delete"


async def test_the_platform_cannot_be_deleted_or_suspended(world: World) -> None:
    gone = await world.ask("DELETE", "/orgs/platform", Role.OPERATOR, headers={"if-match": "*"})
    assert (gone.status_code, gone.json()["type"]) == (409, "urn:orgate:problem:in-use")
    stopped = await world.ask("POST", "/orgs/platform/suspend", Role.OPERATOR)
    assert (stopped.status_code, stopped.json()["errors"][0]["field"]) == (422, "state")
