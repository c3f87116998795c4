"""`orgate service trust`: what is sent, and what is refused before it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

TRUSTS, SERVICES = "/admin/v1/orgs/acme/trusts", "/admin/v1/orgs/acme/services"
GITHUB = "https://token.actions.githubusercontent.com"
TRUST: dict[str, Any] = {
    "org": "acme",
    "name": "main",
    "service": "svc_0123456789",
    "issuer": GITHUB,
    "audience": "https://gateway.example",
    "claims": ["repository=acme/app", "ref=refs/heads/*"],
    "version": 3,
}
SERVICE = {"org": "acme", "id": "svc_0123456789", "name": "ci"}
ETAG = {"etag": '"3"'}
ADD = (
    "service",
    "trust",
    "add",
    "main",
    "--service",
    "ci",
    "--issuer",
    GITHUB,
    "--audience",
    "https://gateway.example",
)


def test_add_names_the_account_by_its_id_and_says_what_jobs_send(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", SERVICES, (200, {"items": [SERVICE], "next": ""}, {}))
    plane.script("POST", TRUSTS, (201, TRUST, ETAG))
    said = signed_in(*ADD, "--claim", "repository=acme/app", "--claim", "ref=refs/heads/*", "--plane", "admin")
    assert said.code == 0
    assert "acme.svc_0123456789" in said.err
    sent = json.loads(plane.writes[0].body)
    assert sent == {
        "name": "main",
        "service": "svc_0123456789",
        "issuer": GITHUB,
        "audience": "https://gateway.example",
        "claims": ["repository=acme/app", "ref=refs/heads/*"],
        "planes": ["admin"],
        "ca_pem": "",
    }


@pytest.mark.parametrize("claim", ["repository", "repository=*", "ref=refs/heads/ma*", "aud=x", "=x"])
def test_a_claim_that_is_none_is_refused_here(signed_in: Cli, plane: ControlPlane, claim: str) -> None:
    said = signed_in(*ADD, "--claim", claim)
    assert (said.code, plane.writes) == (2, [])
    assert "--claim" in said.err


def test_a_ca_that_is_not_there(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", SERVICES, (200, {"items": [SERVICE], "next": ""}, {}))
    said = signed_in(*ADD, "--claim", "sub=a", "--issuer-ca", "none.pem")
    assert (said.code, plane.writes) == (2, [])
    assert "none.pem" in said.err


def test_list_show_and_remove(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", TRUSTS, (200, {"items": [TRUST], "next": ""}, {}))
    assert "repository=acme/app" in signed_in("service", "trust", "list").out
    plane.script("GET", f"{TRUSTS}/main", *[(200, TRUST, ETAG)] * 2)
    assert GITHUB in signed_in("service", "trust", "show", "main").out
    plane.script("DELETE", f"{TRUSTS}/main", (204, None, {}))
    assert "removed" in signed_in("service", "trust", "remove", "main", "--yes").err
    assert plane.writes[-1].headers["if-match"] == '"3"'
