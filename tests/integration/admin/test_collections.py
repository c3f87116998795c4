"""Upstreams, models, limits and rules: create, read, page, filter, replace and delete, with versions."""

from __future__ import annotations

from typing import Any

import pytest

from policies.facts import Role
from tests.integration.admin.world import BODIES, LIMIT, MODEL, RULE, UPSTREAM, World, fill

COLLECTIONS = sorted(BODIES)


@pytest.mark.parametrize("path", COLLECTIONS)
async def test_a_thing_lives_from_201_to_404(world: World, path: str) -> None:
    await fill(world)
    body = {**BODIES[path], "name": "second"}
    made = await world.ask("POST", f"/orgs/acme/{path}", json=body)
    assert made.status_code == 201
    assert made.headers["location"] == f"/admin/v1/orgs/acme/{path}/second"
    assert made.headers["etag"] == '"1"'
    assert made.json().items() >= {**body, "org": "acme", "version": 1}.items()

    where = f"/orgs/acme/{path}/second"
    read = await world.ask("GET", where, Role.ADMIN)
    assert (read.status_code, read.headers["etag"], read.json()) == (200, '"1"', made.json())

    replaced = await world.ask("PUT", where, json=body, headers={"if-match": '"1"'})
    assert (replaced.status_code, replaced.headers["etag"]) == (200, '"2"')

    deleted = await world.ask("DELETE", where, headers={"if-match": '"2"'})
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await world.ask("GET", where)).status_code == 404

    noun = path.removesuffix("s")
    assert (await world.actions())[-3:] == [f"{noun}.create", f"{noun}.update", f"{noun}.delete"]


@pytest.mark.parametrize("path", COLLECTIONS)
async def test_if_match_is_needed_and_must_be_current(world: World, path: str) -> None:
    await fill(world)
    where, body = f"/orgs/acme/{path}/{BODIES[path]['name']}", BODIES[path]
    bodies: dict[str, dict[str, Any]] = {"PUT": {"json": body}, "DELETE": {}}
    for method, more in bodies.items():
        absent = await world.ask(method, where, **more)
        assert (absent.status_code, absent.json()["type"]) == (428, "urn:orgate:problem:precondition-required")
        stale = await world.ask(method, where, headers={"if-match": '"7"'}, **more)
        assert (stale.status_code, stale.headers["etag"]) == (412, '"1"')
        assert "version is 1" in stale.json()["detail"]
        weak = await world.ask(method, where, headers={"if-match": 'W/"1"'}, **more)
        assert weak.status_code == 412
        garbage = await world.ask(method, where, headers={"if-match": "1"}, **more)
        assert garbage.status_code == 400
    among = await world.ask("PUT", where, json=body, headers={"if-match": '"7", W/"8", "1"'})
    assert among.status_code == 200
    anyone = await world.ask("PUT", where, json=body, headers={"if-match": "*"})
    assert (anyone.status_code, anyone.headers["etag"]) == (200, '"3"')


async def test_of_two_writers_with_one_version_one_wins(world: World) -> None:
    await fill(world)
    first = await world.ask(
        "PUT", "/orgs/acme/limits/fair", json={**LIMIT, "amount": 1}, headers={"if-match": '"1"'}
    )
    second = await world.ask(
        "PUT", "/orgs/acme/limits/fair", json={**LIMIT, "amount": 2}, headers={"if-match": '"1"'}
    )
    assert (first.status_code, second.status_code) == (200, 412)
    assert (await world.ask("GET", "/orgs/acme/limits/fair")).json()["amount"] == 1


async def test_pages_show_each_once(world: World) -> None:
    for number in range(7):
        body = {**UPSTREAM, "name": f"u{number}"}
        assert (await world.ask("POST", "/orgs/acme/upstreams", json=body)).status_code == 201
    seen, after = [], ""
    for _ in range(4):
        page = (await world.ask("GET", "/orgs/acme/upstreams", params={"limit": 2, "after": after})).json()
        seen += [item["name"] for item in page["items"]]
        after = page["next"]
    assert (seen, after) == ([f"u{number}" for number in range(7)], "")


async def test_filters_compare_for_equality(world: World) -> None:
    await fill(world)
    await world.ask("POST", "/orgs/acme/limits", json={**LIMIT, "name": "all", "scope": "org"})
    for params, names in (
        ({"scope": "org"}, ["all"]),
        ({"unit": "requests"}, ["all", "fair"]),
        ({"unit": "tokens"}, []),
    ):
        page = (await world.ask("GET", "/orgs/acme/limits", params=params)).json()
        assert [item["name"] for item in page["items"]] == names
    tasks = (await world.ask("GET", "/orgs/acme/models", params={"tasks": "chat", "upstream": "gpt"})).json()
    assert [item["name"] for item in tasks["items"]] == ["code"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=many", "limit"),
        ("scpoe=org", "scpoe"),
        ("scope=nobody", "scope"),
        ("scope=org&scope=member", "scope"),
        ("org=globex", "org"),
        ("after=" + "x" * 200, "after"),
    ],
)
async def test_a_query_that_means_nothing_is_refused_by_name(world: World, query: str, field: str) -> None:
    for _ in range(2):
        answer = await world.ask("GET", f"/orgs/acme/limits?{query}")
        assert answer.status_code == 422
        assert [fault["field"] for fault in answer.json()["errors"]] == [field]
        # Making it changes what is said of a request: a part of the path would be named too.
        assert (await world.client.get("/admin/schema/openapi.json")).status_code == 200


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        ("upstreams", {"name": "No Name"}, "name"),
        ("upstreams", {"base_url": "http://127.0.0.1:1"}, "base_url"),
        ("upstreams", {"base_url": "https://api.example.com/v1"}, "base_url"),
        ("upstreams", {"protocol": "spdy"}, "protocol"),
        ("upstreams", {"connections": "4"}, "connections"),
        ("upstreams", {"connections": 0}, "connections"),
        ("upstreams", {"key_version": 3}, "key_version"),
        ("upstreams", {"version": 3}, "version"),
        ("upstreams", {"org": "globex"}, "org"),
        ("upstreams", {"name": None}, "name"),
        ("models", {"tasks": ["completions", "sing"]}, "tasks[1]"),
        ("models", {"tasks": []}, "tasks"),
        ("models", {"max_tokens": 1.5}, "max_tokens"),
        ("limits", {"amount": -1}, "amount"),
        ("limits", {"amount": True}, "amount"),
        ("limits", {"amount": 10**400}, "amount"),
        ("limits", {"unit": "concurrency", "period_s": 5}, "period_s"),
        ("rules", {"roles": ["operator"]}, "roles"),
        ("rules", {"models": ["../x"]}, "models"),
    ],
)
async def test_a_wrong_value_is_named(world: World, path: str, change: dict[str, object], field: str) -> None:
    await fill(world)
    answer = await world.ask("POST", f"/orgs/acme/{path}", json={**BODIES[path], "name": "new", **change})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in [fault["field"] for fault in answer.json()["errors"]], answer.text


async def test_a_body_without_a_field_or_with_one_too_many_is_refused(world: World) -> None:
    missing = await world.ask("POST", "/orgs/acme/upstreams", json={"name": "x"})
    assert missing.json()["errors"] == [{"field": "base_url", "message": "is missing"}]
    unknown = await world.ask("POST", "/orgs/acme/upstreams", json={**UPSTREAM, "key": "sk-1"})
    assert unknown.json()["errors"] == [{"field": "key", "message": "is not known here"}]
    listed = await world.ask("POST", "/orgs/acme/upstreams", json=[])
    assert listed.status_code == 422


async def test_concurrency_needs_no_period(world: World) -> None:
    body = {**LIMIT, "unit": "concurrency"}
    assert (await world.ask("POST", "/orgs/acme/limits", json=body)).json()["period_s"] == 0
    other = {**LIMIT, "name": "minute"}
    assert (await world.ask("POST", "/orgs/acme/limits", json=other)).json()["period_s"] == 60


async def test_conflicts_say_what_stands_in_the_way(world: World) -> None:
    await fill(world)
    again = await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    assert (again.status_code, again.json()["type"]) == (409, "urn:orgate:problem:already-exists")
    used = await world.ask("DELETE", "/orgs/acme/upstreams/gpt", headers={"if-match": "*"})
    assert (used.status_code, used.json()["type"]) == (409, "urn:orgate:problem:in-use")
    assert "code" in used.json()["detail"]
    dangling = await world.ask("POST", "/orgs/acme/models", json={**MODEL, "name": "x", "upstream": "none"})
    assert (dangling.status_code, dangling.json()["type"]) == (422, "urn:orgate:problem:invalid-reference")


async def test_a_name_cannot_be_changed_by_a_put(world: World) -> None:
    await fill(world)
    answer = await world.ask(
        "PUT", "/orgs/acme/rules/no-chat", json={**RULE, "name": "other"}, headers={"if-match": "*"}
    )
    assert [fault["field"] for fault in answer.json()["errors"]] == ["name"]


async def test_what_get_gave_can_be_put_back(world: World) -> None:
    await fill(world)
    for path, body in BODIES.items():
        where = f"/orgs/acme/{path}/{body['name']}"
        read = await world.ask("GET", where)
        match = {"if-match": read.headers["etag"]}
        changed = await world.ask("PUT", where, json={**read.json(), "version": 9}, headers=match)
        assert [fault["field"] for fault in changed.json()["errors"]] == ["version"]
        answer = await world.ask("PUT", where, json=read.json(), headers=match)
        assert answer.status_code == 200, answer.text


async def test_the_platform_has_no_models(world: World) -> None:
    answer = await world.ask("POST", "/orgs/platform/upstreams", Role.OPERATOR, json=UPSTREAM)
    assert answer.status_code == 422


async def test_a_change_is_answered_when_it_is_published(world: World) -> None:
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    assert "gpt" in world.hub.snapshot.tenants[world.store.for_org("acme").org].upstreams  # type: ignore[arg-type]
    assert world.hub.snapshot.version == await world.store.version()
