"""Members' second factors over the admin API: who sees them, who resets whose, and who demands them of whom."""

from __future__ import annotations

import pyotp
import pytest

from gateway.oauth.caller import Caller
from gateway.oauth.tables import metadata
from policies.facts import Role
from tenants.ids import OrgId
from tenants.models import Member
from tests.integration.admin.world import ACME, GLOBEX, World


@pytest.fixture
async def two_factors(world: World) -> World:
    """An owner, an admin and a member of acme, and a member of globex, with an authenticator app each."""
    async with world.store.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    for org, role in ((ACME, Role.OWNER), (ACME, Role.ADMIN), (ACME, Role.MEMBER), (GLOBEX, Role.MEMBER)):
        await add(world, world.members[org, role])
    return world


async def add(world: World, member: Member) -> None:
    factors = world.sessions.factors
    offer = await factors.offer(member)
    code = pyotp.TOTP(offer.secret).at(int(world.clock.seconds))
    await factors.enrol(member, {"code": code, "name": "Phone"}, offer.extra, Caller())


async def left(world: World, org: OrgId, role: Role) -> int:
    return len(await world.sessions.factors.of(org, world.members[org, role].id))


def path(world: World, role: Role, what: str, org: OrgId = ACME) -> str:
    return f"/orgs/acme/members/{world.members[org, role].id}/{what}"


async def test_readers_see_that_there_are_factors_and_nothing_to_sign_in_with(two_factors: World) -> None:
    answer = await two_factors.ask("GET", path(two_factors, Role.MEMBER, "factors"), Role.AUDITOR)
    assert answer.status_code == 200
    body = answer.json()
    assert body["recovery_codes"] == 10
    (factor,) = body["factors"]
    assert set(factor) == {"id", "kind", "name", "created_at", "used_at"}
    assert (factor["kind"], factor["name"]) == ("totp", "Phone")
    refused = await two_factors.ask("GET", path(two_factors, Role.MEMBER, "factors"), Role.MEMBER)
    assert refused.status_code == 403


async def test_an_admin_resets_a_member_s_and_ends_their_sessions(two_factors: World) -> None:
    answer = await two_factors.ask("POST", path(two_factors, Role.MEMBER, "reset-factors"), Role.ADMIN)
    assert (answer.status_code, answer.json()) == (200, {"factors": 1, "sessions": 2})
    assert await left(two_factors, ACME, Role.MEMBER) == 0
    member = two_factors.members[ACME, Role.MEMBER].id
    assert ("end", "acme", member) in two_factors.sessions.calls
    noted = [change for change in await two_factors.store.outbox() if change.action == "factor.reset"]
    assert [(change.target, change.detail) for change in noted] == [(member, {"factors": 1})]
    stored = await two_factors.store.for_org(ACME).members.get(member)
    assert stored.not_before > 0  # access tokens of before are refused
    again = await two_factors.ask("POST", path(two_factors, Role.MEMBER, "reset-factors"), Role.ADMIN)
    assert (again.status_code, again.json()["factors"]) == (200, 0)


async def test_only_an_owner_resets_an_owner_s(two_factors: World) -> None:
    refused = await two_factors.ask("POST", path(two_factors, Role.OWNER, "reset-factors"), Role.ADMIN)
    assert refused.status_code == 403
    for role in (Role.AUDITOR, Role.MEMBER):
        refused = await two_factors.ask("POST", path(two_factors, Role.MEMBER, "reset-factors"), role)
        assert refused.status_code == 403
    assert await left(two_factors, ACME, Role.OWNER) == 1
    assert await left(two_factors, ACME, Role.MEMBER) == 1
    done = await two_factors.ask("POST", path(two_factors, Role.OWNER, "reset-factors"), Role.OWNER)
    assert done.status_code == 200
    assert await left(two_factors, ACME, Role.OWNER) == 0


async def test_somebody_of_another_organization_is_nobody(two_factors: World) -> None:
    for method, what in (("GET", "factors"), ("POST", "reset-factors")):
        theirs = await two_factors.ask(method, path(two_factors, Role.MEMBER, what, GLOBEX), Role.OWNER)
        nobody = await two_factors.ask(method, f"/orgs/acme/members/mem_nobody/{what}", Role.OWNER)
        assert theirs.status_code == nobody.status_code == 404
        assert theirs.json()["title"] == nobody.json()["title"]
    assert await left(two_factors, GLOBEX, Role.MEMBER) == 1


async def demand(world: World, role: Role, *roles: str) -> int:
    found = await world.ask("GET", "/orgs/acme", role)
    body = {"name": "Acme", "second_factor": roles}
    answer = await world.ask("PUT", "/orgs/acme", role, json=body, headers={"if-match": found.headers["etag"]})
    return answer.status_code


async def test_what_is_demanded_of_owners_is_for_owners_to_say(world: World) -> None:
    assert await demand(world, Role.ADMIN, "admin", "member") == 200
    assert await demand(world, Role.ADMIN, "admin", "owner") == 403
    assert await demand(world, Role.OWNER, "admin", "owner") == 200
    assert await demand(world, Role.ADMIN, "owner", "member") == 200
    assert await demand(world, Role.ADMIN, "member") == 403
    assert (await world.ask("GET", "/orgs/acme")).json()["second_factor"] == ["owner", "member"]


@pytest.mark.parametrize("roles", [["owner", "owner"], ["emperor"], "owner", [1]])
async def test_a_demand_names_roles_each_once(world: World, roles: object) -> None:
    found = await world.ask("GET", "/orgs/acme")
    body = {"name": "Acme", "second_factor": roles}
    answer = await world.ask("PUT", "/orgs/acme", json=body, headers={"if-match": found.headers["etag"]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].startswith("second_factor")
