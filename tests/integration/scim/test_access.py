"""Who is let in: a token of that organization, and nobody else; what it opens: SCIM of it, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from gateway.api.scim.caller import REFUSALS_PER_MINUTE, REQUESTS_PER_MINUTE
from gateway.api.scim.routes import ROUTES
from policies.facts import Role
from tenants.models import State
from tenants.roles import SCIM
from tests.integration.admin.world import ACME, GLOBEX, World
from tests.integration.scim.client import Scim, provision

NEVER = "zzzz"


def shape(answer: httpx.Response, *names: str) -> tuple[int, str, list[tuple[str, str]]]:
    text = answer.text
    for name in names:
        text = text.replace(name, "<NAME>")
    headers = sorted(
        (name, value) for name, value in answer.headers.items() if name not in {"date", "x-request-id"}
    )
    return answer.status_code, text, headers


def test_every_route_is_in_the_table_of_roles() -> None:
    assert len(ROUTES) > 20
    for route in ROUTES:
        assert route.operation in SCIM, route
        assert route.tenancy == "path"


async def test_another_organizations_answers_as_one_that_never_was(acme: Scim, globex: Scim) -> None:
    ann = await acme.user("ann", displayName="zqcanary")
    team = await acme.group("zqcanary", ann["id"])
    before = await acme.world.actions(ACME)
    admin = acme.world.bearer(Role.OWNER, ACME)["authorization"].removeprefix("Bearer ")
    mistyped = acme.secret[:-1] + ("x" if acme.secret[-1] != "x" else "y")
    asked = 0
    for secret in ("", "x", globex.secret, admin, mistyped):
        stranger = Scim(acme.world, "acme", "", secret)
        headers = {} if secret else {"authorization": ""}
        for route in ROUTES:
            body: dict[str, Any] = {"json": {"userName": "x"}} if route.method in {"POST", "PUT", "PATCH"} else {}
            key = ann["id"] if "Users" in route.path else team["id"]
            answers = []
            for org in ("acme", NEVER, "A B"):
                for each in (key, "zqabsent.1") if "{key}" in route.path else ("",):
                    path = f"/scim/v2/{org}{route.path.replace('{key}', each)}"
                    answers.append(await stranger.ask(route.method, path, headers=headers, **body))
            assert {shape(one)[0] for one in answers} == {401}, route
            assert all(shape(one) == shape(answers[0]) for one in answers), route
            assert "zqcanary" not in str([shape(one) for one in answers])
            asked += len(answers)
    assert asked > 400
    assert await acme.world.actions(ACME) == before, "a stranger wrote into acme's log"


async def test_ids_of_another_organization_mean_nothing(acme: Scim, globex: Scim) -> None:
    ann = await acme.user("ann", displayName="zqcanary", externalId="zqcanary")
    team = await acme.group("zqcanary", ann["id"])
    listed = await globex.good("GET", "/")
    assert "zqcanary" not in str(listed)
    for real, absent, kind in (
        (ann["id"], "mem_" + "0" * 20, "Users"),
        (team["id"], "zqabsent." + team["id"].rpartition(".")[2], "Groups"),
    ):
        for route in ROUTES:
            if not route.path.startswith(f"/{kind}/{{key}}"):
                continue
            body: dict[str, Any] = {}
            if route.method == "PUT":
                body = {"json": {"userName": "z@globex.example", "displayName": "Z"}}
            if route.method == "PATCH":
                body = {"json": {"Operations": [{"op": "replace", "path": "displayName", "value": "Z"}]}}
            there = await globex.ask(route.method, f"/{kind}/{real}", **body)
            never = await globex.ask(route.method, f"/{kind}/{absent}", **body)
            assert shape(there, real) == shape(never, absent), route
            assert there.status_code == 404
        assert await globex.found(kind, f'id eq "{real}"') == []
        assert await globex.found(kind, 'externalId eq "zqcanary" or displayName eq "zqcanary"') == []
    mine = await globex.group("Mine")
    told = []
    for one in (ann["id"], "mem_" + "0" * 20):
        add = {"op": "add", "path": "members", "value": [{"value": one}]}
        told.append(shape(await globex.patch(f"/Groups/{mine['id']}", add), one))
    assert told[0] == told[1]
    assert (await globex.user("ann"))["userName"] == "ann@globex.example"


async def test_a_token_opens_scim_and_nothing_else(acme: Scim) -> None:
    for path in ("/admin/v1/me", "/admin/v1/orgs/acme/members", "/admin/v1/orgs/acme/scim/tokens", "/metrics"):
        headers = {"authorization": f"Bearer {acme.secret}"}
        client = acme.world.client_from("203.0.113.9")
        answer = await client.get(path, headers=headers)
        assert answer.status_code == 401, path
    for scheme in ("Basic", "DPoP", ""):
        refused = await acme.ask("GET", "/Users", headers={"authorization": f"{scheme} {acme.secret}"})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert (await acme.ask("GET", "/Users", headers={"authorization": f"bearer {acme.secret}"})).status_code == 200


async def test_tokens_are_shown_once_expire_and_are_revoked(acme: Scim) -> None:
    second = await provision(acme.world, "acme")
    listed = (await acme.world.ask("GET", "/orgs/acme/scim/tokens")).json()["items"]
    assert {one["id"] for one in listed} == {acme.token, second.token}
    assert acme.secret not in str(listed)
    assert not re.search("orgate_scim_", str(listed))
    revoked = await acme.world.ask("DELETE", f"/orgs/acme/scim/tokens/{acme.token}")
    assert revoked.status_code == 204
    assert (await acme.ask("GET", "/Users")).status_code == 401
    await second.good("GET", "/Users")
    used = (await acme.world.ask("GET", "/orgs/acme/scim/tokens")).json()["items"]
    assert [one["used_at"] for one in used] == [int(acme.world.clock.seconds)]
    assert (await acme.world.actions())[-1] == "scim_token.delete"
    acme.world.clock.seconds += 366 * 86_400
    assert (await second.ask("GET", "/Users")).status_code == 401


async def test_how_tokens_are_made(world: World) -> None:
    for body in ({"days": 0}, {"days": 731}, {"days": 10**30}, {"name": "x" * 101}, {"name": "a\nb"}, {"x": 1}):
        assert (await world.ask("POST", "/orgs/acme/scim/tokens", json=body)).status_code == 422, body
    for role, status in ((Role.ADMIN, 201), (Role.AUDITOR, 403), (Role.MEMBER, 403)):
        assert (await world.ask("POST", "/orgs/acme/scim/tokens", role, json={})).status_code == status
    assert (await world.ask("GET", "/orgs/acme/scim/tokens", Role.AUDITOR)).status_code == 200
    platform = await world.ask("POST", "/orgs/platform/scim/tokens", Role.OPERATOR, json={})
    assert platform.status_code == 422
    for _ in range(9):
        assert (await world.ask("POST", "/orgs/acme/scim/tokens", json={})).status_code == 201
    assert (await world.ask("POST", "/orgs/acme/scim/tokens", json={})).status_code == 409
    owners = await world.ask(
        "PUT", "/orgs/acme/scim", Role.ADMIN, json={"owners": True}, headers={"if-match": "*"}
    )
    assert owners.status_code == 403, "an admin gives nobody a way to touch owners"


async def test_where_a_provider_may_change_owners_only_they_make_its_tokens(world: World) -> None:
    await world.ask("PUT", "/orgs/acme/scim", json={"owners": True}, headers={"if-match": "*"})
    assert (await world.ask("POST", "/orgs/acme/scim/tokens", Role.ADMIN, json={})).status_code == 403
    assert (await world.ask("POST", "/orgs/acme/scim/tokens", Role.OWNER, json={})).status_code == 201


async def test_owners_are_not_given_to_who_holds_a_token_that_none_of_them_made(world: World) -> None:
    """An admin's token of before would be a way around what only owners may do."""

    async def made(role: Role, **body: Any) -> str:
        answer = await world.ask("POST", "/orgs/acme/scim/tokens", role, json=body)
        return str(answer.json()["token"]["id"])

    async def turn_on() -> httpx.Response:
        return await world.ask("PUT", "/orgs/acme/scim", json={"owners": True}, headers={"if-match": "*"})

    await made(Role.ADMIN, days=1)
    world.clock.seconds += 2 * 86_400
    owners, admins, operators = await made(Role.OWNER), await made(Role.ADMIN), await made(Role.OPERATOR)
    refused = await turn_on()
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:orgate:problem:tokens-of-others")
    named = re.findall(r"scim-[0-9a-f]{12}", refused.json()["detail"])
    assert sorted(named) == sorted([admins, operators])
    assert owners not in named
    assert (await world.store.for_org(ACME).scim.settings()).owners is False
    same = await world.ask("PUT", "/orgs/acme/scim", Role.ADMIN, json={"owners": False}, headers={"if-match": "*"})
    assert same.status_code == 200
    for one in (admins, operators):
        assert (await world.ask("DELETE", f"/orgs/acme/scim/tokens/{one}")).status_code == 204
    assert (await turn_on()).status_code == 200
    again = await world.ask("PUT", "/orgs/acme/scim", json={"owners": True}, headers={"if-match": "*"})
    assert again.status_code == 200


async def test_a_suspended_organization(acme: Scim) -> None:
    org = await acme.world.store.orgs.get(ACME)
    await acme.world.ask("POST", "/orgs/acme/suspend", Role.OPERATOR)
    assert (await acme.world.store.orgs.get(ACME)).state is State.SUSPENDED
    await acme.refused(403, "GET", "/Users")
    assert org.state is State.ACTIVE


async def test_throttles(acme: Scim, globex: Scim) -> None:
    wrong = Scim(acme.world, "acme", "", globex.secret)
    for _ in range(REFUSALS_PER_MINUTE):
        assert (await wrong.ask("GET", "/Me")).status_code == 401
    refused = await wrong.ask("GET", "/Me")
    assert (refused.status_code, refused.json()["status"]) == (429, "429")
    assert int(refused.headers["retry-after"]) > 0
    await globex.good("GET", "/Users", params={"count": 0})
    throttle = acme.world.deps.throttles("x", 1, 60.0)
    await throttle.charge("k")
    with pytest.raises(Exception, match="too many"):
        await throttle.check("k")
    assert REQUESTS_PER_MINUTE > REFUSALS_PER_MINUTE


async def test_a_host_name_of_another_organizations_is_no_door(acme: Scim) -> None:
    hosts = {"name": "Globex", "hosts": ["globex.gateway.example"]}
    put = await acme.world.ask("PUT", f"/orgs/{GLOBEX}", Role.OPERATOR, json=hosts, headers={"if-match": "*"})
    assert put.status_code == 200
    await acme.world.publisher.sync()
    for host, status in (("globex.gateway.example:8444", 401), ("gateway.example", 200)):
        assert (await acme.ask("GET", "/Users", headers={"host": host})).status_code == status
