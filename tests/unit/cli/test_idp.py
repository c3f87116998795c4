"""`orgate idp`: what is sent, what is asked for, and that a secret is never an argument."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.facts import Role
from tenants.idp import Demand, GroupRole, IdentityProvider, RequiredClaim
from tenants.ids import MemberId, OrgId
from tenants.models import Member
from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

PATH = "/admin/v1/orgs/acme/idp"
REDIRECT = "https://gateway.example/oauth/sso/callback/acme"
ISSUER = "https://id.example"
NONE = {"redirect_uri": REDIRECT, "secret": False, "provider": None}
PROVIDER = IdentityProvider(
    org=OrgId("acme"),
    issuer=ISSUER,
    client_id="orgate",
    groups_claim="groups",
    claims=(RequiredClaim("hd", "acme.example"),),
    group_roles=(GroupRole("cn=ops,dc=acme", Role.ADMIN),),
    demands=(Demand(Role.ADMIN, acr=("gold",), amr=("mfa",)),),
    version=3,
)
FACTS = {"redirect_uri": REDIRECT, "secret": True, "provider": msgspec.to_builtins(PROVIDER)}
TAGGED = {"etag": '"3"'}


def sent(plane: ControlPlane) -> list[tuple[str, Any]]:
    return [(write.path, json.loads(write.body)) for write in plane.writes]


def test_a_new_one_is_set_with_its_secret(signed_in: Cli, plane: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    plane.script("GET", PATH, *[(200, NONE, {})] * 2)
    plane.script("PUT", PATH, (200, FACTS, TAGGED))
    plane.script("PUT", PATH + "/secret", (200, FACTS, TAGGED))
    given = ("idp", "set", "--issuer", ISSUER, "--client-id", "orgate", "--secret-from", "secret")
    more = (
        "--jit",
        "--domain",
        "acme.example",
        "--groups-claim",
        "groups",
        "--group-role",
        "cn=ops,dc=acme=admin",
    )
    dry = signed_in(*given, *more, "--dry-run")
    assert (dry.code, plane.writes) == (0, [])
    assert "s3cret" not in dry.out + dry.err
    said = signed_in(*given, *more)
    assert said.code == 0, said.err
    (first, body), second = sent(plane)
    assert (first, second) == (PATH, (PATH + "/secret", {"client_secret": "s3cret"}))
    assert (body["issuer"], body["jit"], body["domains"]) == (ISSUER, True, ["acme.example"])
    assert body["group_roles"] == [{"group": "cn=ops,dc=acme", "role": "admin"}]
    assert "version" not in body
    assert "if-match" not in plane.writes[0].headers
    assert "s3cret" not in said.out + said.err


def test_a_change_keeps_the_rest_and_the_secret(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", PATH, (200, FACTS, TAGGED))
    plane.script("PUT", PATH, (200, FACTS, TAGGED))
    assert signed_in("idp", "set", "--require-amr", "owner=hwk", "--claim", "").code == 0
    ((_, body),) = sent(plane)
    assert body["demands"] == [
        {"role": "admin", "acr": ["gold"], "amr": []},
        {"role": "owner", "acr": [], "amr": ["hwk"]},
    ]
    assert (body["claims"], body["group_roles"][0]["group"]) == ([], "cn=ops,dc=acme")
    assert plane.writes[0].headers["if-match"] == '"3"'


def test_one_that_moves_needs_its_secret_anew(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", PATH, *[(200, FACTS, TAGGED)] * 3)
    plane.script("PUT", PATH, *[(200, FACTS, TAGGED)] * 2)
    plane.script("PUT", PATH + "/secret", *[(200, FACTS, TAGGED)] * 2)
    said = signed_in("idp", "set", "--issuer", "https://other.example")
    assert (said.code, "client secret is missing" in said.err, plane.writes) == (2, True, [])
    moved = signed_in("idp", "set", "--issuer", "https://other.example", "--secret-from", "-", stdin="new\n")
    assert moved.code == 0, moved.err
    assert sent(plane)[1] == (PATH + "/secret", {"client_secret": "new"})
    assert signed_in("idp", "set", "--client-id", "two", "--public").code == 0
    assert sent(plane)[3] == (PATH + "/secret", {"client_secret": ""})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--group-role", "ops"), "--group-role: 'ops' is not two things"),
        (("--group-role", "ops=king"), "'king' is no role"),
        (("--group-team", "=x"), "--group-team"),
        (("--claim", "hd="), "--claim"),
        (("--require-amr", "king=mfa"), "'king' is no role"),
        (("--provider-ca", "nowhere"), "cannot be read"),
        (("--secret-from", "nowhere"), "cannot be read"),
        (("--secret-from", "-"), "1 to 4096 characters"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    signed_in: Cli, plane: ControlPlane, options: tuple[str, ...], says: str
) -> None:
    plane.script("GET", PATH, (200, FACTS, TAGGED))
    said = signed_in("idp", "set", *options)
    assert (said.code, says in said.err, plane.writes) == (2, True, []), said.err


def test_where_there_is_none_it_is_said_what_to_register(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", PATH, *[(200, NONE, {})] * 4)
    said = signed_in("idp", "set", "--jit")
    assert (said.code, REDIRECT in said.err) == (2, True)
    shown = signed_in("idp", "show")
    assert REDIRECT in shown.err
    assert json.loads(signed_in("idp", "show", "-o", "json").out) == NONE
    assert signed_in("idp", "remove", "--yes").code == 1


def test_show_tells_all_but_the_secret(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", PATH, (200, FACTS, TAGGED))
    shown = signed_in("idp", "show").out
    for part in (ISSUER, REDIRECT, "hd=acme.example", "cn=ops,dc=acme=admin", "admin=gold|mfa", "set"):
        assert part in shown


def test_a_test_says_in_words_what_is_wrong(signed_in: Cli, plane: ControlPlane) -> None:
    steps = [
        {"what": "keys", "ok": True, "detail": "2 that verify signatures"},
        {"what": "PKCE", "ok": None, "detail": "does not say"},
        {"what": "client credential", "ok": False, "detail": "set the secret again"},
    ]
    bad = {"ok": False, "redirect_uri": REDIRECT, "steps": steps}
    plane.script("POST", PATH + "/test", (200, bad, {}), (200, bad, {}), (200, {**bad, "ok": True}, {}))
    said = signed_in("idp", "test")
    assert said.code == 1
    for part in ("ok     keys", "?      PKCE", "WRONG  client credential: set the secret again", REDIRECT):
        assert part in said.err
    assert json.loads(signed_in("idp", "test", "-o", "json").out)["steps"] == steps
    assert signed_in("idp", "test").code == 0


def test_it_is_removed_and_members_unlinked(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", PATH, (200, FACTS, TAGGED))
    plane.script("DELETE", PATH, (204, None, {}))
    plane.script("DELETE", PATH + "/links/mem_1", *[(204, None, {})] * 2)
    bob = Member(OrgId("acme"), MemberId("mem_1"), "bob@acme.example", "Bob", (Role.MEMBER,))
    found = {"items": [msgspec.to_builtins(bob)]}
    plane.script("GET", "/admin/v1/orgs/acme/members", (200, found, {}))
    assert signed_in("idp", "remove", "--yes").code == 0
    assert signed_in("idp", "unlink", "mem_1").code == 0
    assert signed_in("idp", "unlink", "bob@acme.example").code == 0
    assert [write.path for write in plane.writes[1:]] == [PATH + "/links/mem_1"] * 2
    assert plane.writes[0].headers["if-match"] == '"3"'


def test_to_test_none_says_to_set_one(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("POST", PATH + "/test", (404, {"detail": "no provider", "status": 404}, {}))
    said = signed_in("idp", "test")
    assert said.code == 1
    assert "orgate idp set" in said.err
    assert "list" not in said.err
