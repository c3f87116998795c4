"""`orgate scim`: a token's secret is the result, once; settings are changed in the version that was seen."""

from __future__ import annotations

import json

import pytest

from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

PATH = "/admin/v1/orgs/acme/scim"
TOKENS = f"{PATH}/tokens"
TOKEN = {
    "org": "acme",
    "id": "scim-0123456789ab",
    "name": "entra",
    "created_by": "mem_a",
    "created_at": 1_800_000_000,
    "expires_at": 1_831_536_000,
    "used_at": 0,
}
MADE = {"token": TOKEN, "secret": "orgate_scim_x", "url": "https://gateway.example/scim/v2/acme"}
SETTINGS = {"org": "acme", "owners": False, "group_roles": [{"group": "Admins", "role": "admin"}], "version": 3}
AT = {"etag": '"3"'}


def test_create_prints_the_secret_as_the_result(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("POST", TOKENS, (201, MADE, {}))
    dry = signed_in("scim", "token", "create", "--dry-run")
    assert (dry.code, plane.writes) == (0, [])
    said = signed_in("scim", "token", "create", "--name", "entra", "--days", "90", "-o", "json")
    assert json.loads(said.out) == {
        "id": TOKEN["id"],
        "url": MADE["url"],
        "secret": MADE["secret"],
        "expires_at": TOKEN["expires_at"],
    }
    assert "not shown again" in said.err
    assert json.loads(plane.writes[0].body) == {"name": "entra", "days": 90}
    assert signed_in("scim", "token", "create", "--days", "731").code == 2


def test_list_and_revoke(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", TOKENS, (200, {"items": [TOKEN]}, {}), (200, {"items": []}, {}))
    plane.script("DELETE", f"{TOKENS}/{TOKEN['id']}", (204, None, {}))
    shown = signed_in("scim", "token", "list").out
    assert "2028-01-15T08:00:00Z" in shown
    assert "no SCIM tokens" in signed_in("scim", "token", "list").err
    assert signed_in("scim", "token", "revoke", str(TOKEN["id"])).code == 2, "that needs a yes"
    assert "revoked" in signed_in("scim", "token", "revoke", str(TOKEN["id"]), "--yes").err


def test_show(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", PATH, *[(200, SETTINGS, AT)] * 2)
    said = signed_in("scim", "show")
    assert "not the directory's" in said.err
    assert "Admins" in said.out
    assert json.loads(signed_in("scim", "show", "-o", "json").out) == SETTINGS


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        (("set", "--owners"), {"owners": True, "group_roles": SETTINGS["group_roles"]}),
        (
            ("role", "add", "Readers", "auditor"),
            {
                "owners": False,
                "group_roles": [{"group": "Admins", "role": "admin"}, {"group": "Readers", "role": "auditor"}],
            },
        ),
        (
            ("role", "add", "ADMINS", "admin"),
            {"owners": False, "group_roles": [{"group": "ADMINS", "role": "admin"}]},
        ),
        (("role", "remove", "admins", "admin"), {"owners": False, "group_roles": []}),
    ],
)
def test_settings_are_changed_in_the_version_that_was_seen(
    signed_in: Cli, plane: ControlPlane, arguments: tuple[str, ...], sent: object
) -> None:
    plane.script("GET", PATH, *[(200, SETTINGS, AT)] * 2)
    stale = {"type": "urn:orgate:problem:version-mismatch", "title": "", "status": 412, "detail": "changed"}
    plane.script("PUT", PATH, (412, stale, {}), (200, {**SETTINGS, "version": 4}, {}))
    said = signed_in("scim", *arguments)
    assert said.code == 0, said.err
    assert [json.loads(write.body) for write in plane.writes] == [sent, sent]
    assert plane.writes[0].headers["if-match"] == '"3"'


def test_what_cannot_be_changed(signed_in: Cli, plane: ControlPlane) -> None:
    assert "nothing to change" in signed_in("scim", "set").err
    plane.script("GET", PATH, (200, SETTINGS, AT))
    gone = signed_in("scim", "role", "remove", "Nobody", "admin")
    assert (gone.code, "brings no role" in gone.err) == (1, True)
    assert plane.writes == []
