"""Users are members: created, changed, shut out, deleted; found by what providers ask for."""

from __future__ import annotations

from gateway.scim.schemas import ENTERPRISE_USER
from policies.facts import Role
from tenants.models import State
from tests.integration.admin.world import ACME
from tests.integration.scim.client import Scim


async def test_a_user_is_a_member_without_a_password(acme: Scim) -> None:
    made = await acme.user("ann", displayName="Ann Lee", externalId="e-1", password="never kept")
    member = await acme.world.store.for_org(ACME).members.get(made["id"])
    assert (member.email, member.name, member.roles) == ("ann@acme.example", "Ann Lee", (Role.MEMBER,))
    assert member.state is State.ACTIVE
    assert "password" not in made
    assert acme.world.sessions.calls == [], "somebody was invited"
    assert made["meta"]["location"].endswith(f"/scim/v2/acme/Users/{made['id']}")
    entry = await acme.world.last_entry()
    assert (entry["action"], entry["actor"]) == ("member.create", f"scim:{acme.token}")
    assert "ann" not in str(entry).lower()


async def test_the_address_is_the_primary_one(acme: Scim) -> None:
    emails = [
        {"value": "a@acme.example", "type": "work"},
        {"value": "b@acme.example", "primary": True},
        {"value": "c@acme.example"},
    ]
    made = await acme.good("POST", "/Users", json={"userName": "ann", "emails": emails})
    members = acme.world.store.for_org(ACME).members
    assert (await members.get(made["id"])).email == "b@acme.example"
    assert made["emails"] == emails
    await acme.patch(f"/Users/{made['id']}", {"op": "remove", "path": "emails[primary eq true]"})
    assert (await members.get(made["id"])).email == "a@acme.example"
    assert "address" in await acme.refused(400, "POST", "/Users", "invalidValue", json={"userName": "bob"})
    gone = {"Operations": [{"op": "remove", "path": "emails"}]}
    await acme.refused(400, "PATCH", f"/Users/{made['id']}", "invalidValue", json=gone)


async def test_a_name_or_an_address_is_one_persons(acme: Scim) -> None:
    await acme.user("ann")
    await acme.refused(409, "POST", "/Users", "uniqueness", json={"userName": "ANN@acme.example"})
    other = {"userName": "other", "emails": [{"value": "Ann@acme.example"}]}
    await acme.refused(409, "POST", "/Users", "uniqueness", json=other)
    bob = await acme.user("bob")
    rename = {"Operations": [{"op": "replace", "path": "userName", "value": "ann@acme.example"}]}
    await acme.refused(409, "PATCH", f"/Users/{bob['id']}", "uniqueness", json=rename)
    await acme.refused(409, "POST", "/Users", "uniqueness", json={"userName": "owner@acme.example"})


async def test_put_replaces_and_patch_changes(acme: Scim) -> None:
    made = await acme.user("ann", displayName="Ann", externalId="e-1", **{ENTERPRISE_USER: {"department": "X"}})
    at = f"/Users/{made['id']}"
    assert made["schemas"][1:] == [ENTERPRISE_USER]
    answer = await acme.patch(at, {"op": "Replace", "path": f"{ENTERPRISE_USER}:costCenter", "value": "7"})
    assert answer.json()[ENTERPRISE_USER] == {"department": "X", "costCenter": "7"}
    put = await acme.good(
        "PUT", at, json={"userName": "ann@acme.example", "name": {"givenName": "Ann", "familyName": "Lee"}}
    )
    assert {"displayName", "externalId", ENTERPRISE_USER}.isdisjoint(put)
    member = await acme.world.store.for_org(ACME).members.get(made["id"])
    assert (member.name, member.state) == ("Ann Lee", State.ACTIVE)
    entry = await acme.world.last_entry()
    assert entry["detail"]["scim"] == ["displayName", "externalId", "name", ENTERPRISE_USER]


async def test_what_changes_nothing_writes_nothing(acme: Scim) -> None:
    made = await acme.user("ann", displayName="Ann")
    before = await acme.world.actions()
    same = await acme.good("PUT", f"/Users/{made['id']}", json=made)
    again = await acme.patch(f"/Users/{made['id']}", {"op": "Replace", "path": "displayName", "value": "Ann"})
    assert same == made == again.json()
    assert await acme.world.actions() == before


async def test_what_an_admin_changes_is_what_a_provider_sees(acme: Scim) -> None:
    made = await acme.user("ann", displayName="Ann", emails=[{"value": "ann@acme.example", "type": "work"}])
    body = {"email": "new@acme.example", "name": "Ann New", "roles": ["auditor"]}
    changed = await acme.world.ask("PUT", f"/orgs/acme/members/{made['id']}", json=body, headers={"if-match": "*"})
    assert changed.status_code == 200, changed.text
    seen = await acme.good("GET", f"/Users/{made['id']}")
    assert seen["emails"] == [{"value": "new@acme.example", "type": "work"}]
    assert (seen["displayName"], seen["roles"]) == ("Ann New", [{"value": "auditor"}])
    assert seen["userName"] == "ann@acme.example"
    assert "lastModified" not in seen["meta"], "nobody knows when that was"


async def test_active_false_is_offboarding(acme: Scim) -> None:
    made = await acme.user("ann")
    acme.world.sessions.calls.clear()
    answer = await acme.patch(f"/Users/{made['id']}", {"op": "Replace", "path": "active", "value": "False"})
    assert answer.json()["active"] is False
    assert acme.world.streams.shut_out("acme", made["id"])
    assert {call[0] for call in acme.world.sessions.calls} == {"end", "uninvite"}
    assert (await acme.world.actions())[-2:] == ["member.update", "member.offboard"]
    member = await acme.world.store.for_org(ACME).members.get(made["id"])
    assert member.state is State.SUSPENDED
    assert member.not_before > 0
    resumed = await acme.patch(f"/Users/{made['id']}", {"op": "replace", "value": {"active": True}})
    assert resumed.json()["active"] is True


async def test_repeating_it_finishes_what_a_crash_left(acme: Scim) -> None:
    made = await acme.user("ann", active=False)
    acme.world.sessions.calls.clear()
    await acme.good("PUT", f"/Users/{made['id']}", json={"userName": "ann@acme.example", "active": False})
    assert acme.world.sessions.calls
    acme.world.sessions.calls.clear()
    await acme.patch(f"/Users/{made['id']}", {"op": "replace", "path": "displayName", "value": "Ann"})
    put = await acme.good("PUT", f"/Users/{made['id']}", json={"userName": "ann@acme.example"})
    assert put["active"] is False, "a PUT that says nothing of it lets nobody in"
    assert acme.world.sessions.calls == []
    gone = {"Operations": [{"op": "remove", "path": "active"}]}
    await acme.refused(400, "PATCH", f"/Users/{made['id']}", "mutability", json=gone)


async def test_deleting(acme: Scim) -> None:
    made = await acme.user("ann")
    answer = await acme.ask("DELETE", f"/Users/{made['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert acme.world.streams.shut_out("acme", made["id"])
    assert ("drop", "acme", made["id"]) in acme.world.sessions.calls
    for method in ("GET", "DELETE"):
        await acme.refused(404, method, f"/Users/{made['id']}")
    assert (await acme.user("ann"))["id"] != made["id"]


async def test_whoever_a_limit_names_is_shut_out_and_stays(acme: Scim) -> None:
    made = await acme.user("ann")
    limit = {"name": "ann", "scope": "member", "unit": "requests", "amount": 5, "subject": made["id"]}
    assert (await acme.world.ask("POST", "/orgs/acme/limits", json=limit)).status_code == 201
    assert "ann" in await acme.refused(409, "DELETE", f"/Users/{made['id']}")
    assert (await acme.good("GET", f"/Users/{made['id']}"))["active"] is False


async def test_owners_are_not_a_providers_to_touch(acme: Scim) -> None:
    owner = acme.world.members[ACME, Role.OWNER]
    at = f"/Users/{owner.id}"
    same = await acme.good("GET", at)
    assert await acme.good("PUT", at, json=same) == same, "to say what is so touches nobody"
    off = {"Operations": [{"op": "replace", "path": "active", "value": False}]}
    for method, more in (
        ("PATCH", {"json": off}),
        ("PUT", {"json": {**same, "displayName": "x"}}),
        ("DELETE", {}),
    ):
        assert "owner" in await acme.refused(403, method, at, **more)
    assert await acme.world.store.for_org(ACME).members.get(owner.id) == owner


async def test_and_never_the_last_one(acme: Scim) -> None:
    body = {"owners": True}
    assert (
        await acme.world.ask("PUT", "/orgs/acme/scim", json=body, headers={"if-match": "*"})
    ).status_code == 200
    at = f"/Users/{acme.world.members[ACME, Role.OWNER].id}"
    off = {"Operations": [{"op": "replace", "path": "active", "value": False}]}
    assert "last active owner" in await acme.refused(403, "PATCH", at, json=off)
    assert "last active owner" in await acme.refused(403, "DELETE", at)
    named = await acme.patch(at, {"op": "replace", "path": "displayName", "value": "Boss"})
    assert named.json()["displayName"] == "Boss"


async def test_etags(acme: Scim) -> None:
    made = await acme.ask("POST", "/Users", json={"userName": "ann@acme.example"})
    tag, at = made.headers["etag"], f"/Users/{made.json()['id']}"
    assert tag.startswith('W/"')
    assert made.json()["meta"]["version"] == tag
    fresh = await acme.ask("GET", at, headers={"if-none-match": tag})
    assert (fresh.status_code, fresh.content) == (304, b"")
    change = {"op": "replace", "path": "displayName", "value": "Ann"}
    answer = await acme.patch(at, change, headers={"if-match": tag})
    assert answer.status_code == 200
    assert answer.headers["etag"] != tag
    for method, more in (("PUT", {"json": {"userName": "ann@acme.example"}}), ("DELETE", {})):
        await acme.refused(412, method, at, headers={"if-match": tag}, **more)  # type: ignore[arg-type]
    assert (await acme.ask("GET", at, headers={"if-none-match": tag})).status_code == 200
    before = (await acme.ask("GET", at)).headers["etag"]
    await acme.group("Team", made.json()["id"])
    assert (await acme.ask("GET", at)).headers["etag"] != before, "their groups are part of it"
    assert (await acme.ask("DELETE", at, headers={"if-match": "*"})).status_code == 204


FILTERS = (
    'userName eq "ANN@acme.example"',
    'externalId eq "e-1"',
    'emails[type eq "work"].value eq "Ann.Lee@acme.example"',
    'emails.value eq "ann@home.example"',
    'emails eq "ann@home.example" and active eq "True"',
    'userName eq "ann@acme.example" or externalId eq "nobody"',
    'name.familyName sw "L" and not (userName sw "b")',
    f'{ENTERPRISE_USER}:department eq "x"',
    'groups[display eq "Team"]',
    'groups.display co "tea"',
)


async def test_finding(acme: Scim) -> None:
    emails = [{"value": "ann.lee@acme.example", "type": "work"}, {"value": "ann@home.example", "type": "home"}]
    name = {"familyName": "Lee"}
    more = {"emails": emails, "name": name, ENTERPRISE_USER: {"department": "X"}}
    ann = await acme.user("ann", externalId="e-1", **more)
    await acme.user("bob", externalId="e-2", name=name)
    await acme.group("Team", ann["id"])
    for text in FILTERS:
        assert await acme.found("Users", text) == [ann["id"]], text
        asked = await acme.good("POST", "/Users/.search", json={"filter": text, "attributes": ["userName"]})
        assert [sorted(one) for one in asked["Resources"]] == [["id", "schemas", "userName"]], text


async def test_pages(acme: Scim) -> None:
    for number in range(5):
        await acme.user(f"u{number}")
    everyone = await acme.good("GET", "/Users")
    ids = [one["id"] for one in everyone["Resources"]]
    total = len(ids)
    assert everyone["totalResults"] == total > 5
    for extra in ({}, {"filter": "userName pr"}):
        seen = []
        for start in range(1, total + 2, 2):
            page = await acme.good("GET", "/Users", params={"startIndex": start, "count": 2, **extra})
            assert (page["totalResults"], page["startIndex"]) == (total, start)
            seen += [one["id"] for one in page["Resources"]]
        assert seen == ids
    for params in ({"count": 0}, {"count": -5}, {"startIndex": 99}):
        page = await acme.good("GET", "/Users", params=params)
        assert (page["totalResults"], page["Resources"]) == (total, [])
    first = await acme.good("GET", "/Users", params={"startIndex": -3, "count": 1})
    assert [one["id"] for one in first["Resources"]] == ids[:1]
    await acme.refused(400, "GET", "/Users", "invalidValue", params={"count": "many"})


async def test_some_attributes(acme: Scim) -> None:
    made = await acme.user("ann", displayName="Ann", name={"givenName": "Ann", "familyName": "Lee"})
    at = f"/Users/{made['id']}"
    only = await acme.good("GET", at, params={"attributes": "USERNAME,name.givenName,nosuch"})
    assert sorted(only) == ["id", "name", "schemas", "userName"]
    assert only["name"] == {"givenName": "Ann"}
    less = await acme.good("GET", at, params={"excludedAttributes": "name.givenName,emails,meta,id"})
    assert less["name"] == {"familyName": "Lee"}
    assert "id" in less
    assert {"emails", "meta"}.isdisjoint(less)
    both = {"attributes": "id", "excludedAttributes": "name"}
    await acme.refused(400, "GET", at, "invalidValue", params=both)
    created = await acme.good("POST", "/Users?attributes=userName", json={"userName": "b@acme.example"})
    assert sorted(created) == ["id", "schemas", "userName"]
