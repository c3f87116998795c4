"""Limits as their admins set them: what may be set, and what they are told of it."""

from __future__ import annotations

import pytest

from policies.facts import Role
from tests.integration.admin.world import ACME, GLOBEX, LIMIT, MODEL, World, fill

LIMITS = "/orgs/acme/limits"


async def test_a_subject_that_names_nothing_is_refused_by_name(world: World) -> None:
    await fill(world)
    nobody = "mem_" + "0" * 20
    for scope, subject, noun in (
        ("model", "coed", "model"),
        ("upstream", "gtp", "upstream"),
        ("team", "ghosts", "team"),
        ("member", nobody, "member"),
        ("member", world.members[GLOBEX, Role.OWNER].id, "member"),
    ):
        answer = await world.ask("POST", LIMITS, json={**LIMIT, "name": "x", "scope": scope, "subject": subject})
        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"field": "subject", "message": f"unknown {noun} '{subject}'"}]
    for scope, subject in (("model", "code"), ("upstream", "gpt"), ("client", "any-editor")):
        body = {**LIMIT, "name": f"of-{scope}", "scope": scope, "subject": subject}
        made = await world.ask("POST", LIMITS, json=body)
        assert made.status_code == 201
        assert ("nobody asks models with client 'any-editor'" in made.headers.get("x-orgate-remark", "")) == (
            scope == "client"
        )


async def test_a_limit_of_what_is_gone_can_still_be_changed(world: World) -> None:
    await fill(world)
    body = {**LIMIT, "name": "few", "scope": "model", "subject": "code"}
    assert (await world.ask("POST", LIMITS, json=body)).status_code == 201
    gone = await world.ask("DELETE", "/orgs/acme/models/code", headers={"if-match": "*"})
    assert gone.status_code == 204
    changed = await world.ask("PUT", f"{LIMITS}/few", json={**body, "amount": 5}, headers={"if-match": "*"})
    assert changed.status_code == 200
    moved = {**body, "scope": "upstream"}
    assert (await world.ask("PUT", f"{LIMITS}/few", json=moved, headers={"if-match": "*"})).status_code == 422


async def test_the_platforms_limits_name_organizations(world: World) -> None:
    body = {**LIMIT, "scope": "org", "subject": "nobody-here"}
    answer = await world.ask("POST", "/orgs/platform/limits", Role.OPERATOR, json=body)
    assert answer.json()["errors"] == [{"field": "subject", "message": "unknown organization 'nobody-here'"}]
    made = await world.ask("POST", "/orgs/platform/limits", Role.OPERATOR, json={**body, "subject": "acme"})
    assert made.status_code == 201


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"unit": "concurrency", "amount": 10**6}, "amount"),
        ({"unit": "concurrency", "amount": 5, "burst": 2}, "burst"),
        ({"window": "day", "period_s": 60}, "period_s"),
        ({"window": "day", "burst": 5}, "burst"),
        ({"notify_at": [50]}, "notify_at"),
        ({"window": "month", "notify_at": [0, 50]}, "notify_at"),
        ({"unit": "requests", "on_end": "cut"}, "on_end"),
        ({"window": "year"}, "window"),
        ({"on_outage": "pray"}, "on_outage"),
        ({"unit": "tokens", "amount": 10**13}, "amount"),
        ({"burst": 101}, "burst"),
    ],
)
async def test_absurd_and_contradicting_limits_are_refused(
    world: World, changes: dict[str, object], field: str
) -> None:
    answer = await world.ask("POST", LIMITS, json={**LIMIT, **changes})
    assert answer.status_code == 422
    assert field in [fault["field"] for fault in answer.json()["errors"]], answer.text


async def test_one_limit_too_many_is_refused_with_what_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(world)
    have = len((await world.ask("GET", LIMITS)).json()["items"])
    monkeypatch.setattr("tenants.sql.kinds.MOST_AT_ONCE", have + 1)
    assert (await world.ask("POST", LIMITS, json={**LIMIT, "name": "last"})).status_code == 201
    no = await world.ask("POST", LIMITS, json={**LIMIT, "name": "more"})
    assert (no.status_code, no.json()["type"]) == (409, "urn:orgate:problem:too-many")
    assert f"at most {have + 1} limits may apply to one request" in no.json()["detail"]
    assert "delete one first" in no.json()["detail"]


async def test_whoever_sets_a_limit_hears_which_never_decides(world: World) -> None:
    await fill(world)
    ann = world.members[ACME, Role.MEMBER].id
    body = {**LIMIT, "name": "ann", "subject": ann, "amount": 500}
    made = await world.ask("POST", LIMITS, json=body)
    assert made.status_code == 201
    assert made.headers["x-orgate-remark"].startswith("limit 'ann' never decides: 'fair' allows no more")
    less = await world.ask("PUT", f"{LIMITS}/ann", json={**body, "amount": 5}, headers={"if-match": "*"})
    assert "x-orgate-remark" not in less.headers


async def test_a_header_has_no_more_remarks_than_it_can_hold(world: World) -> None:
    body = {**LIMIT, "scope": "client", "subject": "\u00e9diteur"}
    for n in range(10):
        made = await world.ask("POST", LIMITS, json={**body, "name": f"l{n}", "amount": 100 + n})
        assert made.status_code == 201
    last = await world.ask("POST", LIMITS, json={**body, "name": "last", "amount": 110})
    said = last.headers["x-orgate-remark"].split("; ")
    assert len(said) == 9
    assert said[-1] == "and 3 more remarks"
    few = await world.ask("POST", LIMITS, json={**body, "name": "few", "amount": 1, "unit": "bytes"})
    assert "nobody asks models with client '\\xe9diteur'" in few.headers["x-orgate-remark"]


async def test_what_the_platform_allows_less_of_is_remarked_too(world: World) -> None:
    body = {"name": "fair-use", "scope": "org", "unit": "requests", "amount": 50}
    assert (await world.ask("POST", "/orgs/platform/limits", Role.OPERATOR, json=body)).status_code == 201
    await world.publisher.sync()
    made = await world.ask("POST", LIMITS, json={**body, "name": "wide", "amount": 60})
    assert "'wide' never decides: 'platform/fair-use' allows no more" in made.headers["x-orgate-remark"]
    narrow = await world.ask("POST", LIMITS, json={**body, "name": "narrow", "amount": 5})
    assert "platform" not in narrow.headers.get("x-orgate-remark", "")


async def test_whoever_limits_money_hears_of_models_without_a_price(world: World) -> None:
    await fill(world)
    await world.publisher.sync()
    body = {"name": "money", "scope": "org", "unit": "spend", "amount": 200 * 10**9, "window": "month"}
    made = await world.ask("POST", LIMITS, json=body)
    assert made.headers["x-orgate-remark"] == (
        "no price is known for what 'code' leads to: it is answered 503 until there is one"
    )


async def test_a_limit_of_money_is_compared_with_the_models_that_it_is_about(world: World) -> None:
    await fill(world)
    assert (await world.ask("POST", "/orgs/acme/models", json={**MODEL, "name": "chat"})).status_code == 201
    await world.publisher.sync()
    body = {"unit": "spend", "amount": 10**9, "window": "day"}
    for name, changes, models in (
        ("one", {"scope": "model", "subject": "chat"}, "'chat'"),
        ("each", {"scope": "upstream"}, "'chat', 'code'"),
        ("people", {"scope": "member"}, "'chat', 'code'"),
    ):
        made = await world.ask("POST", LIMITS, json={**body, **changes, "name": name})
        assert f"for what {models} leads to" in made.headers["x-orgate-remark"]
    prices = [{"model": "gpt-code", "input": 1, "output": 2}]
    put = await world.ask("PUT", "/orgs/acme/prices", json={"prices": prices}, headers={"if-match": "*"})
    assert put.status_code == 200, put.text
    await world.publisher.sync()
    made = await world.ask("POST", LIMITS, json={**body, "scope": "org", "name": "all"})
    assert "price" not in made.headers.get("x-orgate-remark", "")
