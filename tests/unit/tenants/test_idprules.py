"""What an organization may say of its identity provider."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from policies.facts import Role
from tenants.idp import Demand, GroupRole, GroupTeam, IdentityProvider, RequiredClaim
from tenants.idprules import within
from tenants.ids import PLATFORM, MemberId, OrgId
from tenants.validate import validate

RIGHT = IdentityProvider(
    org=OrgId("acme"),
    issuer="https://id.example/tenant",
    client_id="orgate",
    groups_claim="https://acme.example/groups",
    domains=("acme.example",),
    claims=(RequiredClaim("hd", "acme.example"),),
    jit=True,
    group_roles=(GroupRole("Orgate admins", Role.ADMIN), GroupRole("Orgate owners", Role.OWNER)),
    group_teams=(GroupTeam("0b5f2a1c-5d8b-4f5e-9f5e-000000000000", "search"),),
    demands=(Demand(Role.ADMIN, amr=("mfa",)), Demand(Role.OWNER, acr=("urn:acme:gold",))),
    only=True,
    break_glass=(MemberId("mem_ada"),),
)


def test_a_full_one_has_no_fault() -> None:
    assert validate(RIGHT) == []


@pytest.mark.parametrize("issuer", ["http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost"])
def test_development_goes_without_tls_on_this_machine(issuer: str) -> None:
    assert validate(replace(RIGHT, issuer=issuer)) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("issuer", "http://id.example"),
        ("issuer", "https://id.example/?x=1"),
        ("client_id", ""),
        ("client_id", "ä"),
        ("ca_pem", "no pem"),
        ("scopes", ()),
        ("scopes", ("email",)),
        ("scopes", ("openid", "two words")),
        ("scopes", ("openid", "openid")),
        ("email_claim", ""),
        ("name_claim", " name"),
        ("groups_claim", "g\n"),
        ("domains", ("acme",)),
        ("domains", ("ACME.example",)),
        ("domains", ("@acme.example",)),
        ("domains", ()),  # with jit
        ("claims", (RequiredClaim("hd", ""),)),
        ("claims", (RequiredClaim("hd", "a"), RequiredClaim("hd", "b"))),
        ("default_roles", ()),
        ("default_roles", (Role.OWNER,)),
        ("default_roles", (Role.OPERATOR,)),
        ("group_roles", (GroupRole("g", Role.OPERATOR),)),
        ("group_roles", (GroupRole("", Role.ADMIN),)),
        ("group_roles", tuple(GroupRole(f"g{n}", Role.ADMIN) for n in range(201))),
        ("group_teams", (GroupTeam("g", "No Team"),)),
        ("demands", (Demand(Role.ADMIN),)),
        ("demands", (Demand(Role.ADMIN, acr=("two words",)),)),
        ("demands", (Demand(Role.ADMIN, amr=("mfa",)), Demand(Role.ADMIN, amr=("otp",)))),
        ("break_glass", ()),  # with only
        ("break_glass", (MemberId("ada"),)),
    ],
)
def test_each_fault_is_said_of_its_field(field: str, value: Any) -> None:
    faults = validate(replace(RIGHT, **{field: value}))
    assert faults
    assert {field for field, _ in faults} <= {field, "group_roles"}


def test_groups_need_a_claim() -> None:
    assert [field for field, _ in validate(replace(RIGHT, groups_claim=""))] == ["group_roles", "group_teams"]


def test_the_platform_has_roles_of_its_own() -> None:
    platform = replace(
        RIGHT,
        org=PLATFORM,
        default_roles=(Role.AUDITOR,),
        group_roles=(GroupRole("ops", Role.OPERATOR),),
        group_teams=(),
        demands=(),
    )
    assert validate(platform) == []
    assert validate(replace(platform, default_roles=(Role.MEMBER,)))
    assert validate(replace(platform, default_roles=(Role.OPERATOR,)))


@pytest.mark.parametrize(
    ("email", "inside"),
    [
        ("ada@acme.example", True),
        ("ada@ACME.example", True),
        ("ada@bücher.example", True),
        ("ada@sub.acme.example", False),
        ("ada@acme.example.evil.example", False),
        ("acme.example@evil.example", False),
        ("ada", False),
        ("", False),
        ("ada@" + "x" * 300, False),
    ],
)
def test_domains_are_compared_whole(email: str, inside: bool) -> None:
    assert within(email, ("acme.example", "xn--bcher-kva.example")) is inside
    assert within(email, ())


@pytest.mark.parametrize(
    ("acr", "amr", "met"),
    [
        ("gold", (), True),
        ("", ("pwd", "mfa"), True),
        ("silver", ("pwd",), False),
        ("", (), False),
        ("mfa", (), False),
        ("", ("gold",), False),
    ],
)
def test_a_demand_is_met_by_one_of_its_values(acr: str, amr: tuple[str, ...], met: bool) -> None:
    assert Demand(Role.ADMIN, acr=("gold",), amr=("mfa", "hwk")).met(acr, amr) is met
