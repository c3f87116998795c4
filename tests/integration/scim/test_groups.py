"""Groups are teams; some bring a role."""

from __future__ import annotations

from typing import Any

from policies.facts import Role
from tests.integration.admin.world import ACME
from tests.integration.scim.client import Scim


async def members(acme: Scim, group: dict[str, Any]) -> list[str]:
    found = await acme.good("GET", f"/Groups/{group['id']}")
    return [one["value"] for one in found.get("members", ())]


async def roles(acme: Scim, user: dict[str, Any]) -> tuple[Role, ...]:
    return (await acme.world.store.for_org(ACME).members.get(user["id"])).roles


async def test_a_group_is_a_team(acme: Scim) -> None:
    ann = await acme.user("ann")
    made = await acme.group("Platform Engineering", ann["id"])
    team = await acme.world.store.for_org(ACME).teams.get("platform-engineering")
    assert team.title == "Platform Engineering"
    assert made["members"] == [
        {"value": ann["id"], "$ref": ann["meta"]["location"], "type": "User"},
    ]
    assert await acme.world.store.for_org(ACME).teams.of(ann["id"]) == ("platform-engineering",)
    told = (await acme.good("GET", f"/Users/{ann['id']}"))["groups"]
    assert told == [
        {
            "value": made["id"],
            "$ref": made["meta"]["location"],
            "display": "Platform Engineering",
            "type": "direct",
        }
    ]
    assert (await acme.world.actions())[-2:] == ["team.create", "team.add_member"]


async def test_names_that_are_no_names(acme: Scim) -> None:
    for display, name in (("Ünï & Çø", "uni-c"), ("平台", "group"), ("Uni C!", "uni-c-2"), ("x" * 200, "x" * 48)):
        made = await acme.group(display)
        assert made["id"].rpartition(".")[0] == name
        assert made["displayName"] == display
    assert "Another group" in await acme.refused(
        409, "POST", "/Groups", "uniqueness", json={"displayName": "uni c!"}
    )
    await acme.refused(400, "POST", "/Groups", "invalidValue", json={"members": []})
    await acme.refused(400, "POST", "/Groups", "invalidValue", json={"displayName": " x"})


async def test_a_team_that_somebody_else_made_is_a_group_too(acme: Scim) -> None:
    await acme.world.ask("POST", "/orgs/acme/teams", json={"name": "core", "title": ""})
    listed = await acme.good("GET", "/Groups", params={"filter": 'displayName eq "Core"'})
    (core,) = listed["Resources"]
    answer = await acme.patch(
        f"/Groups/{core['id']}", {"op": "replace", "value": {"displayName": "The Core", "externalId": "x"}}
    )
    assert answer.status_code == 204
    assert (await acme.world.store.for_org(ACME).teams.get("core")).title == "The Core"
    assert await acme.found("Groups", 'externalId eq "x"') == [core["id"]]


async def test_who_is_in_it(acme: Scim) -> None:
    ann, bob, cat = [await acme.user(name) for name in ("ann", "bob", "cat")]
    team = await acme.group("Team", ann["id"])
    at = f"/Groups/{team['id']}"
    await acme.patch(at, {"op": "Add", "path": "members", "value": [{"value": bob["id"]}, {"value": cat["id"]}]})
    assert await members(acme, team) == sorted(one["id"] for one in (ann, bob, cat))
    await acme.patch(at, {"op": "Remove", "path": "members", "value": [{"value": ann["id"]}]})
    await acme.patch(at, {"op": "remove", "path": f'members[value eq "{bob["id"]}"]'})
    assert await members(acme, team) == [cat["id"]]
    assert (await acme.patch(at, {"op": "remove", "path": f'members[value eq "{bob["id"]}"]'})).status_code == 204
    await acme.good("PUT", at, json={"displayName": "Team", "members": [{"value": ann["id"]}]})
    assert await members(acme, team) == [ann["id"]]
    assert await acme.found("Groups", f'members eq "{ann["id"]}"') == [team["id"]]
    assert await acme.found("Groups", f'members[value eq "{bob["id"]}"]') == []
    assert (await acme.patch(at, {"op": "remove", "path": "members"})).status_code == 204
    assert await members(acme, team) == []


async def test_who_cannot_be_in_it(acme: Scim, globex: Scim) -> None:
    team = await acme.group("Team")
    theirs = await globex.user("zoe")
    for value in (
        {"value": theirs["id"]},
        {"value": "mem_" + "0" * 20},
        {"value": "ann"},
        {"value": team["id"], "type": "Group"},
    ):
        add = {"Operations": [{"op": "add", "path": "members", "value": [value]}]}
        await acme.refused(400, "PATCH", f"/Groups/{team['id']}", "invalidValue", json=add)
    assert await members(acme, team) == []


async def test_without_members_they_are_not_sent(acme: Scim) -> None:
    ann = await acme.user("ann")
    team = await acme.group("Team", ann["id"])
    query = {"excludedAttributes": "members"}
    assert "members" not in await acme.good("GET", f"/Groups/{team['id']}", params=query)
    for one in (await acme.good("GET", "/Groups", params=query))["Resources"]:
        assert "members" not in one
    shown = await acme.patch(
        f"/Groups/{team['id']}?attributes=displayName", {"op": "replace", "path": "displayName", "value": "T"}
    )
    assert (shown.status_code, sorted(shown.json())) == (200, ["displayName", "id", "schemas"])


async def test_etags_follow_who_is_in_it(acme: Scim) -> None:
    ann = await acme.user("ann")
    made = await acme.ask("POST", "/Groups", json={"displayName": "Team"})
    at, tag = f"/Groups/{made.json()['id']}", made.headers["etag"]
    assert (await acme.ask("GET", at, headers={"if-none-match": tag})).status_code == 304
    answer = await acme.patch(at, {"op": "add", "path": "members", "value": [{"value": ann["id"]}]})
    assert answer.headers["etag"] != tag
    await acme.refused(412, "DELETE", at, headers={"if-match": tag})
    assert (await acme.ask("DELETE", at, headers={"if-match": answer.headers["etag"]})).status_code == 204
    await acme.refused(404, "GET", at)
    acme.world.clock.seconds += 1
    assert (await acme.group("Team"))["id"] != made.json()["id"], "an id is never another group's"


async def test_a_group_brings_a_role(acme: Scim) -> None:
    ann, bob = await acme.user("ann"), await acme.user("bob")
    body = {"group_roles": [{"group": "admins", "role": "admin"}, {"group": "leads", "role": "admin"}]}
    put = await acme.world.ask("PUT", "/orgs/acme/scim", json=body, headers={"if-match": "*"})
    assert put.status_code == 200, put.text
    admins = await acme.group("Admins", ann["id"])
    assert await roles(acme, ann) == (Role.ADMIN, Role.MEMBER)
    leads = await acme.group("Leads", ann["id"])
    acme.world.streams.resets.clear()
    await acme.patch(f"/Groups/{admins['id']}", {"op": "remove", "path": "members"})
    assert await roles(acme, ann) == (Role.ADMIN, Role.MEMBER), "the other group brings it too"
    assert acme.world.streams.resets == []
    await acme.patch(
        f"/Groups/{leads['id']}", {"op": "replace", "path": "members", "value": [{"value": bob["id"]}]}
    )
    assert (await roles(acme, ann), await roles(acme, bob)) == ((Role.MEMBER,), (Role.ADMIN, Role.MEMBER))
    assert acme.world.streams.shut_out("acme", ann["id"])
    await acme.patch(f"/Groups/{leads['id']}", {"op": "replace", "path": "displayName", "value": "Others"})
    assert await roles(acme, bob) == (Role.MEMBER,)
    await acme.patch(f"/Groups/{leads['id']}", {"op": "replace", "path": "displayName", "value": "LEADS"})
    assert await roles(acme, bob) == (Role.ADMIN, Role.MEMBER)
    await acme.ask("DELETE", f"/Groups/{leads['id']}")
    assert await roles(acme, bob) == (Role.MEMBER,)


async def test_a_group_makes_no_owner_and_changes_none(acme: Scim) -> None:
    wrong = {"group_roles": [{"group": "Bosses", "role": "owner"}]}
    answer = await acme.world.ask("PUT", "/orgs/acme/scim", json=wrong, headers={"if-match": "*"})
    assert answer.status_code == 422
    body = {"group_roles": [{"group": "Auditors", "role": "auditor"}]}
    await acme.world.ask("PUT", "/orgs/acme/scim", json=body, headers={"if-match": "*"})
    owner = acme.world.members[ACME, Role.OWNER]
    made = await acme.group("Auditors", owner.id)
    await acme.ask("DELETE", f"/Groups/{made['id']}")
    assert (await acme.world.store.for_org(ACME).members.get(owner.id)).roles == (Role.OWNER,)


async def test_a_team_that_a_limit_names_stays(acme: Scim) -> None:
    made = await acme.group("Team")
    limit = {"name": "team", "scope": "team", "unit": "requests", "amount": 5, "subject": "team"}
    assert (await acme.world.ask("POST", "/orgs/acme/limits", json=limit)).status_code == 201
    assert "team" in await acme.refused(409, "DELETE", f"/Groups/{made['id']}")


async def test_users_and_groups_at_once(acme: Scim) -> None:
    ann = await acme.user("ann", displayName="Same")
    team = await acme.group("Same")
    for answer in (
        await acme.good("POST", "/.search", json={"filter": 'displayName eq "same"'}),
        await acme.good("GET", "/", params={"filter": 'displayName eq "same"'}),
    ):
        assert [one["id"] for one in answer["Resources"]] == [ann["id"], team["id"]]
    second = await acme.good("GET", "/", params={"startIndex": 2, "count": 1, "filter": 'displayName eq "same"'})
    assert (second["totalResults"], [one["id"] for one in second["Resources"]]) == (2, [team["id"]])
