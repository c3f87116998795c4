"""`personal-token`, `session`, `team usage`: what is asked of the server, and what is printed where."""

from __future__ import annotations

import json

import pytest

from tests.fakes.control_plane import ControlPlane
from tests.fakes.credentials import KEY, SESSION
from tests.fakes.plane_answers import Answer
from tests.unit.cli.conftest import Cli


@pytest.fixture
def stocked(plane: ControlPlane) -> ControlPlane:
    plane.put("acme", "members", "mem_1", email="ann@acme.example", name="Ann", roles=["member"], state="active")
    bot = "svc_00000000000000000000"
    plane.put("acme", "services", bot, id=bot, name="indexer", roles=["member"], state="active")
    return plane


def test_the_key_is_all_that_stands_on_stdout(signed_in: Cli, stocked: ControlPlane) -> None:
    said = signed_in("personal-token", "create", "ci")
    assert (said.code, said.out) == (0, KEY + "\n")
    assert "shown once" in said.err
    assert KEY not in said.err
    assert json.loads(stocked.writes[-1].body) == {"name": "ci", "days": 90}
    assert stocked.writes[-1].path == "/admin/v1/me/personal-tokens"


def test_what_it_is_narrowed_to_is_sent(signed_in: Cli, stocked: ControlPlane) -> None:
    narrow = ("--days", "7", "--action", "chat", "--action", "models", "--model", "code")
    assert signed_in("personal-token", "create", "ci", *narrow, "--output", "json").code == 0
    sent = {"name": "ci", "days": 7, "actions": ["chat", "models"], "models": ["code"]}
    assert json.loads(stocked.writes[-1].body) == sent


@pytest.mark.parametrize(
    ("whose", "subject"),
    [
        (("--member", "ann@acme.example"), "mem_1"),
        (("--member", "mem_1"), "mem_1"),
        (("--service", "indexer"), "svc_00000000000000000000"),
        (("--service", "svc_00000000000000000000"), "svc_00000000000000000000"),
    ],
)
def test_admins_say_whose(signed_in: Cli, stocked: ControlPlane, whose: tuple[str, str], subject: str) -> None:
    assert signed_in("personal-token", "create", "ci", *whose).code == 0
    assert stocked.writes[-1].path == "/admin/v1/orgs/acme/personal-tokens"
    assert json.loads(stocked.writes[-1].body)["subject"] == subject
    assert signed_in("personal-token", "list", *whose).code == 0
    assert stocked.seen[-1].query["subject"] == subject


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (("create", "ci", "--member", "mem_1", "--service", "indexer"), 2, "given together"),
        (("create", "ci", "--service", "nobody"), 1, "no service account 'nobody'"),
        (("create", "ci", "--member", "nobody@acme.example"), 1, "no member has"),
        (("create", "ci", "--days", "367"), 2, "366"),
        (("create", "ci", "--action", "admin"), 2, "admin"),
        (("show", "pt_2"), 1, "pt_2"),
        (("revoke", "pt_2"), 1, "pt_2"),
    ],
)
def test_what_cannot_be_done_is_said(
    signed_in: Cli, stocked: ControlPlane, argv: tuple[str, ...], code: int, says: str
) -> None:
    said = signed_in("personal-token", *argv)
    assert said.code == code
    assert says in said.err
    assert not [write for write in stocked.writes if write.method == "POST"]


def test_a_list_says_when_each_was_used(signed_in: Cli, stocked: ControlPlane) -> None:
    said = signed_in("personal-token", "list")
    assert "never" in said.out
    assert "2024-02-12T22:13:20Z" in said.out
    assert stocked.seen[-1].path == "/admin/v1/me/personal-tokens"
    signed_in("personal-token", "list", "--any")
    assert stocked.seen[-1].path == "/admin/v1/orgs/acme/personal-tokens"


def test_sessions_are_ones_own_unless_said(signed_in: Cli, stocked: ControlPlane) -> None:
    said = signed_in("session", "list")
    assert SESSION["id"] in said.out
    assert "pwd" in said.out
    assert stocked.seen[-1].path == "/admin/v1/me/sessions"
    signed_in("session", "list", "--member", "ann@acme.example")
    assert (stocked.seen[-1].path, stocked.seen[-1].query["member"]) == ("/admin/v1/orgs/acme/sessions", "mem_1")
    signed_in("session", "revoke", SESSION["id"])
    assert stocked.writes[-1].path == f"/admin/v1/me/sessions/{SESSION['id']}"
    signed_in("session", "revoke", SESSION["id"], "--any")
    assert stocked.writes[-1].path == f"/admin/v1/orgs/acme/sessions/{SESSION['id']}"
    assert signed_in("session", "revoke", "nothing").code == 1


def test_a_team_shows_a_limit_that_nobody_has_used(signed_in: Cli, stocked: ControlPlane) -> None:
    said = signed_in("team", "usage", "ops")
    assert "2,000,000 tokens" in said.out
    assert json.loads(signed_in("team", "usage", "ops", "--output", "json").out)["limits"][0]["name"] == "ours"


def test_a_lead_names_members_by_address_without_looking_them_up(signed_in: Cli, stocked: ControlPlane) -> None:
    assert signed_in("team", "add", "ops", "ann+x@acme.example").code == 0
    assert [write.path for write in stocked.writes] == [
        "/admin/v1/orgs/acme/teams/ops/members/ann%2Bx@acme.example"
    ]
    assert not [seen for seen in stocked.seen if seen.path.endswith("/members") and seen.method == "GET"]


def test_billing_is_shown_names(signed_in: Cli, stocked: ControlPlane) -> None:
    stocked.buckets = [
        {
            "limit": "fair",
            "subject": "mem_1",
            "unit": "requests",
            "amount": 10,
            "burst": 10,
            "period_s": 60,
            "left": 5,
            "used": 5,
            "lent": 0,
            "open": 0,
            "workers": 1,
            "starts_at": 0,
            "resets_at": 0,
            "platform": False,
        }
    ]
    refused: Answer = (
        403,
        {"title": "Forbidden", "status": 403, "detail": "This needs one of the roles: owner."},
        {},
    )
    stocked.script("GET", "/admin/v1/orgs/acme/members/mem_1", refused)
    said = signed_in("limit", "usage")
    assert said.code == 0, said.err
    assert "Ann" in said.out
