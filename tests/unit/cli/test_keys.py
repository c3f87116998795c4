"""Rotations and schedules from the command line, and what is listed of keys."""

from __future__ import annotations

import json

import pytest

from cli.errors import UsageError
from cli.key import LONGEST_OVERLAP_S
from cli.spans import seconds, span
from gateway.secrets.rotation import MAX_OVERLAP_S
from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

WHERE = "acme", "vllm"


@pytest.fixture
def signed_in(cli: Cli, plane: ControlPlane) -> Cli:
    plane.put("acme", "upstreams", "vllm", base_url="https://u.example", key_version=2)
    cli.sign_in(plane)
    return cli


def test_a_rotation_says_how_long_the_key_before_is_kept(signed_in: Cli, plane: ControlPlane) -> None:
    assert signed_in("key", "rotate", "vllm", "--overlap", "2h", stdin="sk-new\n").code == 0
    assert json.loads(plane.writes[-1].body) == {"key": "sk-new", "overlap_s": 7_200}


def test_a_schedule_is_made_shown_and_ended(signed_in: Cli, plane: ControlPlane) -> None:
    made = signed_in("key", "schedule", "vllm", "--every", "90d", "--command", "/etc/orgate/mint")
    assert (made.code, plane.schedules[WHERE]["every_s"]) == (0, 90 * 86_400)
    shown = signed_in("key", "schedule", "vllm")
    assert "next at    2027-01-15T08:00:00Z" in shown.out
    assert signed_in("key", "schedule", "vllm", "--off").code == 0
    assert plane.schedules == {}


@pytest.mark.parametrize(
    "more",
    [
        ("--every", "90d"),
        ("--command", "/x"),
        ("--off", "--every", "1d"),
        ("--every", "soon", "--command", "/x"),
        ("--every", "59m", "--command", "/x"),
        ("--every", "1h", "--command", "/x", "--overlap", "31d"),
    ],
)
def test_half_a_schedule_is_told(signed_in: Cli, plane: ControlPlane, more: tuple[str, ...]) -> None:
    assert signed_in("key", "schedule", "vllm", *more).code == 2
    assert plane.writes == []


def test_an_overlap_beyond_the_server_s_bound_is_told_in_the_option_s_words(
    signed_in: Cli, plane: ControlPlane
) -> None:
    assert LONGEST_OVERLAP_S == MAX_OVERLAP_S
    said = signed_in("key", "rotate", "vllm", "--overlap", "31d", stdin="sk-new\n")
    assert (said.code, "--overlap 31d is too long" in said.err) == (2, True)
    assert plane.writes == []


def test_the_list_has_all_but_the_key(signed_in: Cli) -> None:
    said = signed_in("key", "list")
    head, row = said.out.splitlines()
    assert head.split("  ")[0] == "UPSTREAM"
    assert row.split()[:3] == ["vllm", "bearer", "2"]
    assert "2023-11-14T22:14:20Z" in row
    assert "2027-01-15T08:00:00Z" in row


@pytest.mark.parametrize(("text", "amount"), [("0s", 0), ("10m", 600), ("36h", 129_600), ("90d", 7_776_000)])
def test_spans(text: str, amount: int) -> None:
    assert seconds(text) == amount


@pytest.mark.parametrize("text", ["", "10", "m", "-1d", "1.5h", "10 m", "1w"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(UsageError):
        seconds(text)


def test_an_age_is_shown_in_its_largest_unit() -> None:
    assert [span(amount) for amount in (0, 59, 60, 7_300, 200_000)] == ["0s", "59s", "1m", "2h", "2d"]


PLANTED = "sk-PLANTED-8d0a"
WORDS = [
    ("key", "set", "vllm"),
    ("key", "rotate", "vllm"),
    ("key", "rotate", "vllm", "--overlap", "1h", "--dry-run"),
    ("key", "show", "vllm"),
    ("key", "list"),
]


def said_of_it(cli: Cli, plane: ControlPlane, words: tuple[str, ...], status: int, form: str) -> str:
    """All that a command writes, with `--verbose`, when the server answers its last request with `status`."""
    if status != 200:
        problem = {
            "type": "urn:orgate:problem:x",
            "title": "X",
            "status": status,
            "detail": "no",
            "request_id": "r",
        }
        for method in ("PUT", "POST"):
            plane.script(method, "/admin/v1/orgs/acme/upstreams/vllm/key", (status, problem, {}))
    said = cli(*words, "--verbose", "-o", form, stdin=PLANTED + "\n")
    return said.out + said.err


@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize("status", [200, 401, 403, 409, 422, 500, 503])
@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_planted_key_is_never_said_with_verbose(
    signed_in: Cli, plane: ControlPlane, words: tuple[str, ...], status: int, form: str
) -> None:
    told = said_of_it(signed_in, plane, words, status, form)
    assert told
    assert "PLANTED" not in told


def test_it_would_be_seen_if_it_were_said(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("POST", "/admin/v1/orgs/acme/upstreams/vllm/key", (409, {"detail": f"not {PLANTED}"}, {}))
    assert "PLANTED" in said_of_it(signed_in, plane, ("key", "rotate", "vllm"), 200, "table")
