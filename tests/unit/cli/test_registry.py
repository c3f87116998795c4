"""`orgate client` and `orgate service`: what is sent, and a secret that is the result, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

CLIENTS, SERVICES = "/admin/v1/orgs/acme/clients", "/admin/v1/orgs/acme/services"
CLIENT: dict[str, Any] = {
    "org": "acme",
    "name": "portal",
    "title": "The Portal",
    "auth_method": "client_secret_basic",
    "redirect_uris": ["https://portal.example/cb"],
    "created_at": 1_800_000_000,
}
SERVICE: dict[str, Any] = {"org": "acme", "id": "svc_0123456789", "name": "ci", "roles": ["member"]}
SECRET = {"client_id": "acme.portal", "secret": "orgate_cs_abc", "created_at": 1_800_000_000}
ETAG = {"etag": '"3"'}


def test_create_registers_and_prints_the_secret_once(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("POST", CLIENTS, *[(201, CLIENT, ETAG)] * 2)
    plane.script("POST", f"{CLIENTS}/portal/secret", *[(201, SECRET, {})] * 2)
    asked = (
        "client",
        "create",
        "portal",
        "--auth",
        "client_secret_basic",
        "--redirect-uri",
        "https://portal.example/cb",
    )
    said = signed_in(*asked)
    assert "secret  orgate_cs_abc" in said.out
    assert "acme.portal" in said.out
    assert "not shown again" in said.err
    found = json.loads(signed_in(*asked, "-o", "json").out)
    assert (found["client_id"], found["secret"]) == ("acme.portal", "orgate_cs_abc")
    sent = json.loads(plane.writes[0].body)
    assert sent["grant_types"] == ["authorization_code", "refresh_token"]
    assert (sent["title"], sent["planes"], sent["service"]) == ("portal", ["v1"], "")


def test_a_public_client_has_no_secret_to_print(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("POST", CLIENTS, (201, {**CLIENT, "auth_method": "none"}, ETAG))
    said = signed_in("client", "create", "portal", "--redirect-uri", "http://127.0.0.1/cb", "-o", "json")
    assert "secret" not in json.loads(said.out)
    assert len(plane.writes) == 1


def test_a_client_of_a_service_authenticates_and_asks_for_itself(
    signed_in: Cli, plane: ControlPlane, tmp_path: Path
) -> None:
    machine = {**CLIENT, "grant_types": ["client_credentials"], "redirect_uris": [], "service": SERVICE["id"]}
    plane.script("GET", SERVICES, *[(200, {"items": [SERVICE], "next": ""}, {})] * 2)
    plane.script("POST", CLIENTS, (201, machine, ETAG), (201, {**machine, "auth_method": "private_key_jwt"}, ETAG))
    plane.script("POST", f"{CLIENTS}/portal/secret", (201, SECRET, {}))
    assert signed_in("client", "create", "portal", "--service", "ci").code == 0
    (tmp_path / "keys.json").write_text('{"keys": []}\n')
    assert signed_in("client", "create", "portal", "--service", "ci", "--jwks", "keys.json").code == 0
    sent = [json.loads(write.body) for write in plane.writes if write.path == CLIENTS]
    assert [one["auth_method"] for one in sent] == ["client_secret_basic", "private_key_jwt"]
    assert {one["service"] for one in sent} == {SERVICE["id"]}
    assert sent[1]["jwks"] == '{"keys": []}'
    assert sent[1]["grant_types"] == ["client_credentials"]


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot be read"), (b"\x80", "no JWK Set"), (b"x" * 17_000, "more than 16 KiB")]
)
def test_keys_that_are_none_are_said_before_anything_is_sent(
    signed_in: Cli, plane: ControlPlane, tmp_path: Path, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "keys.json").write_bytes(content)
    said = signed_in("client", "create", "portal", "--jwks", "keys.json")
    assert (said.code, says in said.err) == (2, True)
    assert plane.writes == []


def test_set_sends_what_is_given(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", f"{CLIENTS}/portal", (200, CLIENT, ETAG))
    plane.script("PUT", f"{CLIENTS}/portal", (200, {**CLIENT, "require_par": True}, ETAG))
    said = signed_in("client", "set", "portal", "--require-par", "--auth", "none", "--grant", "device_code")
    assert said.code == 0
    sent = json.loads(plane.writes[0].body)
    assert (sent["require_par"], sent["auth_method"], sent["title"]) == (True, "none", "The Portal")
    assert sent["grant_types"] == ["urn:ietf:params:oauth:grant-type:device_code"]
    assert signed_in("client", "set", "portal").code == 2


def test_a_secret_gives_way_to_the_next(signed_in: Cli, plane: ControlPlane) -> None:
    path = f"{CLIENTS}/portal/secret"
    plane.script("POST", path, *[(201, SECRET, {})] * 3)
    plane.script("DELETE", path, (200, {"ended": 1}, {}), (200, {"ended": 0}, {}))
    said = signed_in("client", "secret", "portal", "--overlap", "7d")
    assert ("orgate_cs_abc" in said.out, "stays good for 7d" in said.err) == (True, True)
    assert json.loads(signed_in("client", "secret", "portal", "-o", "json").out) == SECRET
    assert "good for nothing" in signed_in("client", "secret", "portal", "--overlap", "0s").err
    assert [json.loads(write.body)["overlap_s"] for write in plane.writes] == [604_800, 86_400, 0]
    assert "good for nothing" in signed_in("client", "secret", "portal", "--end-overlap").err
    assert "only one" in signed_in("client", "secret", "portal", "--end-overlap").err
    assert signed_in("client", "secret", "portal", "--overlap", "soon").code == 2
    dry = signed_in("client", "secret", "portal", "--dry-run")
    assert (dry.code, "orgate_cs" in dry.out, len(plane.writes)) == (0, False, 5)


def test_show_and_list_name_the_client_as_programs_do(signed_in: Cli, plane: ControlPlane) -> None:
    known = {
        "items": [{"created_at": 1_800_000_000, "expires_at": 0}, {"created_at": 1, "expires_at": 1_800_000_060}]
    }
    plane.script("GET", f"{CLIENTS}/portal", *[(200, CLIENT, ETAG)] * 2)
    plane.script("GET", f"{CLIENTS}/portal/secret", *[(200, known, {})] * 2)
    plane.script("GET", CLIENTS, (200, {"items": [CLIENT], "next": ""}, {}))
    assert "until 2027-01-15T08:01:00Z" in signed_in("client", "show", "portal").out
    assert json.loads(signed_in("client", "show", "portal", "-o", "json").out)["secrets"] == known["items"]
    listed = signed_in("client", "list").out
    assert "acme.portal" in listed
    assert "authorization_code, refresh_token" in listed


@pytest.mark.parametrize(
    ("group", "path", "verb"),
    [
        ("client", f"{CLIENTS}/portal", "suspend"),
        ("client", f"{CLIENTS}/portal", "resume"),
        ("service", f"{SERVICES}/svc_0123456789", "suspend"),
        ("service", f"{SERVICES}/svc_0123456789", "resume"),
        ("service", f"{SERVICES}/svc_0123456789", "revoke"),
    ],
)
def test_acts_ask_before_they_take_away(
    signed_in: Cli, plane: ControlPlane, group: str, path: str, verb: str
) -> None:
    plane.script("POST", f"{path}/{verb}", (200, CLIENT if group == "client" else SERVICE, ETAG))
    key = path.rsplit("/", 1)[1]
    if verb != "resume":
        assert signed_in(group, verb, key).code == 2
        assert plane.writes == []
    assert signed_in(group, verb, key, *([] if verb == "resume" else ["--yes"])).code == 0


def test_services_are_named_by_name_or_id(signed_in: Cli, plane: ControlPlane) -> None:
    path = f"{SERVICES}/svc_0123456789"
    plane.script(
        "GET", SERVICES, (200, {"items": [SERVICE], "next": ""}, {}), (200, {"items": [], "next": ""}, {})
    )
    plane.script("GET", path, *[(200, SERVICE, ETAG)] * 3)
    plane.script("PUT", path, (200, {**SERVICE, "roles": ["auditor"]}, ETAG))
    plane.script("POST", SERVICES, (201, SERVICE, ETAG))
    plane.script("DELETE", path, (204, None, {}))
    assert "svc_0123456789" in signed_in("service", "show", "ci").out
    unknown = signed_in("service", "show", "cd")
    assert (unknown.code, "service list" in unknown.err) == (1, True)
    assert signed_in("service", "set", "svc_0123456789", "--role", "auditor").code == 0
    assert signed_in("service", "set", "svc_0123456789").code == 2
    assert "orgate client create ci --service ci" in signed_in("service", "create", "ci").err
    assert signed_in("service", "delete", "svc_0123456789", "--yes").code == 0
