"""`orgate member factors` and `reset-factors`, and what an organization demands."""

from __future__ import annotations

import json

from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

PATH = "/admin/v1/orgs/acme/members/mem_1"
PHONE = {"id": "f1", "kind": "totp", "name": "Phone", "created_at": 1_800_000_000, "used_at": 1_800_000_060}


def test_a_member_s_factors_are_listed(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", f"{PATH}/factors", (200, {"factors": [PHONE], "recovery_codes": 9}, {}))
    said = signed_in("member", "factors", "mem_1")
    assert said.code == 0, said.err
    assert "Phone" in said.out
    assert "totp" in said.out
    assert "9 recovery codes are left" in said.err


def test_who_has_none(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", f"{PATH}/factors", (200, {"factors": [], "recovery_codes": 0}, {}))
    said = signed_in("member", "factors", "mem_1")
    assert said.code == 0
    assert "no second factors" in said.out + said.err
    assert "recovery" not in said.err


def test_a_reset_asks_first_and_says_what_it_did(signed_in: Cli, plane: ControlPlane) -> None:
    assert signed_in("member", "reset-factors", "mem_1", stdin="n\n").code != 0
    plane.script("POST", f"{PATH}/reset-factors", (200, {"factors": 2, "sessions": 1}, {}))
    said = signed_in("member", "reset-factors", "mem_1", "--yes")
    assert said.code == 0, said.err
    assert "second factors of member 'mem_1' forgotten: 2; logins ended: 1" in said.err


def test_a_demand_is_set_and_taken_back(signed_in: Cli, plane: ControlPlane) -> None:
    demand = ("--second-factor", "owner", "--second-factor", "admin")
    org = {"id": "acme", "name": "Acme", "second_factor": ["member"], "version": 1}
    for options, roles in ((demand, ["owner", "admin"]), (("--no-second-factor",), [])):
        plane.script("GET", "/admin/v1/orgs/acme", (200, org, {"etag": '"1"'}))
        plane.script("PUT", "/admin/v1/orgs/acme", (200, {**org, "second_factor": roles}, {"etag": '"2"'}))
        done = signed_in("org", "set", *options)
        assert done.code == 0, done.err
        assert json.loads(plane.seen[-1].body)["second_factor"] == roles
    both = signed_in("org", "set", *demand, "--no-second-factor")
    assert both.code == 2
    assert "replaces all roles" in both.err
    unknown = signed_in("org", "set", "--second-factor", "emperor")
    assert unknown.code == 2
    assert "emperor" in unknown.err
