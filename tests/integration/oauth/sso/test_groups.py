"""Members made at their first sign-in, and roles and teams that follow the provider's groups."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from policies.facts import Role
from tenants.idp import Demand, GroupRole, GroupTeam
from tenants.ids import MemberId
from tenants.models import Team
from tenants.store import NotFoundError
from tests.integration.oauth.sso.conftest import House, alert
from tests.integration.oauth.test_pages import Form
from tests.unit.oauth.conftest import ACME, ADA, BY

ROLES = (
    GroupRole("admins", Role.ADMIN),
    GroupRole("owners", Role.OWNER),
    GroupRole("watchers", Role.AUDITOR),
)
OWNER = MemberId("mem_own")


async def roles(house: House, groups: Any) -> list[str]:
    house.provider.claims = {"groups": groups}
    found: list[str] = (await house.sign_in())["roles"]
    return found


async def test_a_sign_in_too_weak_for_its_roles_makes_no_account(house: House) -> None:
    demands = (Demand(Role.ADMIN, acr=(), amr=("mfa",)),)
    jit: dict[str, Any] = {"jit": True, "domains": ("acme.example",)}
    await house.bind(groups_claim="groups", group_roles=ROLES, demands=demands, **jit)
    eve: dict[str, Any] = {"sub": "eve-1", "email": "eve@acme.example", "groups": ["admins"]}
    house.provider.claims, made = eve, await house.noted("member.create")
    page = await house.come_back()
    assert (page.status_code, "stronger sign-in" in alert(page)) == (403, True)
    assert await house.noted("member.create") == made
    with pytest.raises(NotFoundError):
        await house.bench.control.for_org(ACME).members.by_email("eve@acme.example")
    house.provider.claims = {**eve, "amr": ["mfa"]}
    claims = await house.sign_in()
    assert claims["roles"] == ["admin", "member"]
    assert (await house.noted("member.create"))[-1].target == claims["sub"]


async def test_who_is_not_known_is_made_a_member(house: House) -> None:
    await house.bind(jit=True, domains=("acme.example",), default_roles=(Role.MEMBER, Role.BILLING))
    house.provider.claims = {"sub": "eve-1", "email": "Eve@acme.example", "name": "Eve\n<b>"}
    claims = await house.sign_in()
    made = await house.member(MemberId(claims["sub"]))
    assert (made.email, made.name, made.roles) == ("Eve@acme.example", "", (Role.MEMBER, Role.BILLING))
    assert (await house.sign_in())["sub"] == made.id
    created = (await house.noted("member.create"))[-1]
    assert (created.target, created.actor.client) == (made.id, "single-sign-on")


async def test_nobody_of_another_domain_is_made_one(house: House) -> None:
    await house.bind(jit=True, domains=("acme.example",))
    for email in ("eve@evil.example", "eve@acme.example.evil.example", "eve@sub.acme.example", "eve"):
        house.provider.claims = {"sub": email, "email": email}
        assert "domain" in alert(await house.come_back())
    house.provider.claims = {"sub": "eve", "email": "e v e@acme.example"}
    assert "none that is taken here" in alert(await house.come_back())


async def test_groups_give_roles_and_take_them(house: House) -> None:
    await house.bind(groups_claim="groups", group_roles=ROLES)
    assert await roles(house, ["admins", "others"]) == ["admin", "member"]
    before = (await house.member()).not_before
    house.bench.now += 60
    assert await roles(house, ["watchers"]) == ["auditor", "member"]
    assert (await house.member()).not_before > before
    assert house.cut == [(ACME, ADA)]
    assert await roles(house, []) == ["member"]
    assert await roles(house, None) == ["member"]
    assert await roles(house, "admins") == ["admin", "member"]


async def test_a_role_taken_away_revokes_the_tokens_that_carry_it(house: House) -> None:
    await house.bind(groups_claim="groups", group_roles=ROLES)
    await roles(house, ["admins"])
    now = int(house.bench.now)
    await roles(house, [])
    revoked = await house.bench.control.revocations(now)
    assert [(one.org, one.member) for one in revoked] == [(ACME, ADA)]


async def test_roles_that_no_group_gives_are_left_as_they_are(house: House) -> None:
    ada = await house.member()
    await house.bench.control.for_org(ACME).members.replace(
        replace(ada, roles=(Role.OWNER, Role.MEMBER)), ada.version, BY
    )
    await house.bind(groups_claim="groups", group_roles=(GroupRole("admins", Role.ADMIN),))
    assert await roles(house, ["admins"]) == ["owner", "admin", "member"]
    assert await roles(house, []) == ["owner", "member"]


async def test_who_is_left_without_a_role_has_the_default(house: House) -> None:
    await house.bind(
        groups_claim="groups", group_roles=(GroupRole("users", Role.MEMBER),), default_roles=(Role.AUDITOR,)
    )
    assert await roles(house, []) == ["auditor"]


async def test_owner_is_given_by_a_group_that_says_so_and_the_last_one_stays(house: House) -> None:
    await house.bind(groups_claim="groups", group_roles=ROLES)
    await house.service.invite(ACME, ADA)
    assert await roles(house, ["owners"]) == ["owner", "member"]
    assert await roles(house, ["admins"]) == ["owner", "admin", "member"]
    kept = await house.noted("member.keep")
    assert [(change.target, change.detail["role"]) for change in kept] == [(ADA, "owner")]
    assert await roles(house, []) == ["owner", "member"]
    await house.join(OWNER, "own@acme.example", Role.OWNER)
    assert await roles(house, []) == ["member"]


async def test_becoming_an_owner_voids_an_invitation(house: House) -> None:
    await house.bind(groups_claim="groups", group_roles=ROLES)
    code = (await house.service.invite(ACME, ADA)).code
    await roles(house, ["owners"])
    page = await house.client.get("/oauth/invitation")
    words = {"password": "a long enough password", "password_again": "a long enough password"}
    form = {**Form(page.text).fields, "org": "acme", "email": "ada@acme.example", "code": code, **words}
    assert "not for this account" in alert(await house.client.post("/oauth/invitation", data=form))


async def test_groups_give_teams_and_take_them(house: House) -> None:
    teams = house.bench.control.for_org(ACME).teams
    for name in ("search", "web", "by-hand"):
        await teams.create(Team(org=ACME, name=name), BY)
    await teams.add("by-hand", ADA, BY)
    mapped = (GroupTeam("searchers", "search"), GroupTeam("webbers", "web"))
    await house.bind(groups_claim="groups", group_teams=mapped)
    house.provider.claims = {"groups": ["searchers"]}
    assert (await house.sign_in())["groups"] == ["by-hand", "search"]
    house.provider.claims = {"groups": ["webbers"]}
    assert (await house.sign_in())["groups"] == ["by-hand", "web"]
    web = await teams.get("web")
    await teams.delete("web", web.version, BY)
    assert (await house.sign_in())["groups"] == ["by-hand"]


@pytest.mark.parametrize(
    ("path", "claims"),
    [
        ("https://acme.example/groups", {"https://acme.example/groups": ["admins"]}),
        ("realm_access.roles", {"realm_access": {"roles": ["admins"]}}),
        ("roles", {"roles": ["admins", "admins"]}),
    ],
)
async def test_groups_are_found_where_providers_put_them(house: House, path: str, claims: dict[str, Any]) -> None:
    await house.bind(groups_claim=path, group_roles=ROLES)
    house.provider.claims = claims
    assert (await house.sign_in())["roles"] == ["admin", "member"]


async def test_groups_that_are_none_or_too_many_are_refused_and_nothing_is_taken(house: House) -> None:
    await house.bind(groups_claim="groups", group_roles=ROLES)
    assert await roles(house, ["admins"]) == ["admin", "member"]
    for claims, said in (
        ({"groups": {"admins": 1}}, "no list of names"),
        ({"groups": [1]}, "no list of names"),
        ({"groups": [f"g{number}" for number in range(1_001)]}, "more than 1000 groups"),
        ({"groups": ["g" * 300]}, "more than 256 characters"),
        ({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "x"}}}, "so many groups"),
        ({"hasgroups": True}, "so many groups"),
        ({"groups": ["g" * 200] * 350}, "too long"),
    ):
        house.provider.claims = claims
        assert said in alert(await house.come_back())
    assert (await house.member()).roles == (Role.ADMIN, Role.MEMBER)
    assert house.cut == []


async def test_a_role_may_ask_for_a_stronger_sign_in(house: House) -> None:
    demands = (Demand(Role.ADMIN, acr=("gold",), amr=("mfa", "hwk")),)
    await house.bind(groups_claim="groups", group_roles=ROLES, demands=demands)
    assert "acr_values=gold" in await house.leave()
    assert await roles(house, []) == ["member"]
    for claims in ({}, {"amr": ["pwd"]}, {"acr": "silver"}, {"amr": "mfa"}, {"acr": ["gold"]}):
        house.provider.claims = {"groups": ["admins"], **claims}
        page = await house.come_back()
        assert (page.status_code, "stronger sign-in" in alert(page)) == (403, True)
        assert (await house.refusals())[-1] == "sso: weak sign-in for admin"
        noted = (await house.noted("session.refuse"))[-1]
        assert (noted.actor.member, noted.target.startswith("mem_")) == ("anonymous", True)
    for claims in ({"amr": ["pwd", "mfa"]}, {"amr": ["hwk"]}, {"acr": "gold"}):
        house.provider.claims = {"groups": ["admins"], **claims}
        assert (await house.sign_in())["roles"] == ["admin", "member"]
