"""What a team's lead and whoever pays may do over the admin API, beyond what their other roles let them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gateway.api.admin.caller import OPERATION
from policies.facts import Role
from tenants.roles import LEADS, Operation
from tests.integration.admin.test_access import fill_in, routes
from tests.integration.admin.world import ACME, World

LEAD, OTHER = Role.MEMBER, Role.BILLING
"""Whom the fixture makes a lead, and who is in the team beside them: by the roles they have anyway."""


@pytest.fixture
async def led(world: World) -> World:
    for name in ("core", "other"):
        assert (await world.ask("POST", "/orgs/acme/teams", json={"name": name})).status_code == 201
    for role in (LEAD, OTHER):
        assert (await world.ask("PUT", path(world, role))).status_code == 200
    answer = await world.ask("PUT", path(world, LEAD, "/lead"), Role.ADMIN)
    assert (answer.status_code, answer.json()["lead"]) == (200, True)
    return world


def path(world: World, role: Role, verb: str = "", team: str = "core") -> str:
    return f"/orgs/acme/teams/{team}/members/{world.members[ACME, role].id}{verb}"


async def test_every_route_of_the_table_for_a_lead_of_that_team_and_of_another(led: World) -> None:
    """The whole table again: what `LEADS` names is let in for their own team, and for nothing else."""
    asked = 0
    for method, template, operation in routes(led):
        if not template.startswith("/admin/v1/orgs/{org:str}/teams"):
            assert operation not in LEADS, template
            continue
        for team, own in (("core", True), ("other", False), ("nothing", False)):
            where = fill_in(template, ACME, team).replace("{member:str}", "mem_00000000000000000000")
            body: dict[str, Any] = {"json": {}} if method in {"POST", "PUT"} else {}
            answer = await led.client.request(method, where, headers=led.bearer(LEAD), **body)
            assert (answer.status_code == 403) is not (own and operation in LEADS), (method, where, answer.text)
            asked += 1
    assert asked > 20


def test_what_a_lead_may_do_is_about_one_team(world: World) -> None:
    for route in world.app.app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if handler.opt.get(OPERATION) in LEADS:
                assert re.match(r"/admin/v1/orgs/\{org:str\}/teams/\{key:str\}", route.path)


async def test_a_lead_adds_by_address_and_takes_out(led: World) -> None:
    auditor = led.members[ACME, Role.AUDITOR]
    base = "/orgs/acme/teams/core/members"
    added = await led.ask("PUT", f"{base}/{auditor.email}", LEAD)
    assert (added.status_code, added.json()["member"]) == (200, auditor.id)
    assert (await led.ask("PUT", f"{base}/nobody@acme.example", LEAD)).status_code == 404
    people = (await led.ask("GET", base, LEAD)).json()["items"]
    assert {(one["name"], one["lead"]) for one in people} == {
        ("member", True),
        ("billing", False),
        ("auditor", False),
    }
    assert (await led.ask("DELETE", f"{base}/{auditor.email}", LEAD)).status_code == 204
    assert len((await led.ask("GET", base, LEAD)).json()["items"]) == 2


async def test_leads_are_made_and_unmade_by_admins(led: World) -> None:
    assert (await led.ask("PUT", path(led, OTHER, "/lead"), LEAD)).status_code == 403
    assert (await led.ask("DELETE", path(led, LEAD), LEAD)).status_code == 403
    unmade = await led.ask("DELETE", path(led, LEAD, "/lead"), Role.ADMIN)
    assert (unmade.status_code, unmade.json()["lead"]) == (200, False)
    assert (await led.ask("GET", "/orgs/acme/teams/core", LEAD)).status_code == 403
    assert (await led.actions()).count("team.set_lead") == 2
    stranger = path(led, Role.AUDITOR, "/lead")
    assert (await led.ask("PUT", stranger, Role.ADMIN)).status_code == 404


async def test_whoever_asks_is_told_what_they_lead(led: World) -> None:
    assert (await led.ask("GET", "/me", LEAD)).json() | {"teams": ["core"], "leads": ["core"]} == (
        await led.ask("GET", "/me", LEAD)
    ).json()
    assert (await led.ask("GET", "/me", OTHER)).json()["leads"] == []


async def test_a_team_and_what_it_uses(led: World) -> None:
    for body in (
        {"name": "each", "scope": "team", "unit": "requests", "amount": 10},
        {"name": "ours", "scope": "team", "subject": "core", "unit": "tokens", "amount": 10},
        {"name": "theirs", "scope": "team", "subject": "other", "unit": "tokens", "amount": 10},
        {"name": "all", "scope": "org", "unit": "requests", "amount": 10},
    ):
        assert (await led.ask("POST", "/orgs/acme/limits", json=body)).status_code == 201
    answer = await led.ask("GET", "/orgs/acme/teams/core/usage", LEAD)
    assert [limit["name"] for limit in answer.json()["limits"]] == ["each", "ours"]
    assert answer.json()["usage"] == {"items": [], "buckets": 0}
    assert (await led.ask("GET", "/orgs/acme/teams/nothing/usage", Role.ADMIN)).status_code == 404


async def test_billing_sees_names_and_nothing_else_of_members(led: World) -> None:
    named = (await led.ask("GET", "/orgs/acme/member-names", Role.BILLING)).json()["items"]
    assert {item["name"] for item in named} == {"owner", "admin", "auditor", "member", "billing"}
    assert all(set(item) == {"id", "name"} for item in named)
    for where in ("limits", "limits-usage", "prices", "teams"):
        assert (await led.ask("GET", f"/orgs/acme/{where}", Role.BILLING)).status_code == 200, where
    for where in ("members", "keys", "upstreams", "audit/entries", "sessions", "personal-tokens", "rules"):
        assert (await led.ask("GET", f"/orgs/acme/{where}", Role.BILLING)).status_code == 403, where
    refused = await led.ask("PUT", "/orgs/acme/limits/x", Role.BILLING, json={})
    assert Operation.LIMIT_UPDATE in refused.json()["errors"][0]["message"]
