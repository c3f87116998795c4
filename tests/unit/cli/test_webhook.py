"""`orgate limit webhook`: the secret is the result, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

PATH = "/admin/v1/orgs/acme/webhook"
URL = "https://hooks.example/in"
MADE = {"url": URL, "secret": "whsec_c2VjcmV0", "version": 2}
FACTS = {
    "url": URL,
    "ca_pem": "",
    "set_at": 1_800_000_000,
    "delivered_at": 0,
    "failure": "no answer",
    "version": 2,
}


def test_set_prints_the_secret_as_the_result(signed_in: Cli, plane: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    plane.script("PUT", PATH, *[(200, MADE, {})] * 2)
    dry = signed_in("limit", "webhook", "set", URL, "--dry-run")
    assert (dry.code, plane.writes) == (0, [])
    said = signed_in("limit", "webhook", "set", URL, "-o", "json")
    assert json.loads(said.out) == MADE
    assert "not shown again" in said.err
    assert signed_in("limit", "webhook", "set", URL, "--ca", "ca.pem").code == 0
    assert [json.loads(write.body)["ca_pem"] for write in plane.writes] == ["", "-----BEGIN CERTIFICATE-----\n"]


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot be read"), (b"\x80", "no PEM"), (b"x" * 70_000, "more than 64 KiB")]
)
def test_a_ca_that_is_none_is_said_before_anything_is_sent(
    signed_in: Cli, plane: ControlPlane, tmp_path: Path, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    said = signed_in("limit", "webhook", "set", URL, "--ca", "ca.pem")
    assert (said.code, says in said.err) == (2, True)
    assert plane.writes == []


def test_show_says_how_the_last_delivery_went(signed_in: Cli, plane: ControlPlane) -> None:
    none = {**FACTS, "url": "", "set_at": 0}
    plane.script("GET", PATH, (200, FACTS, {}), (200, none, {}), (200, none, {}))
    shown = signed_in("limit", "webhook", "show").out
    assert "no answer" in shown
    assert "2027-01-15T08:00:00Z" in shown
    assert "no webhook is set" in signed_in("limit", "webhook", "show").err
    assert json.loads(signed_in("limit", "webhook", "show", "-o", "json").out)["url"] == ""


def test_a_ca_is_set_for_people_and_whole_for_programs(signed_in: Cli, plane: ControlPlane) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----\n"
    plane.script("GET", PATH, *[(200, {**FACTS, "ca_pem": pem}, {})] * 2)
    shown = [line.split() for line in signed_in("limit", "webhook", "show").out.splitlines()]
    assert ["ca", "pem", "set"] in shown
    assert json.loads(signed_in("limit", "webhook", "show", "-o", "json").out)["ca_pem"] == pem


@pytest.mark.parametrize(
    ("method", "path", "argv"), [("POST", PATH + "/test", "test"), ("DELETE", PATH, "delete")]
)
def test_where_none_is_set_it_is_the_webhook_that_is_missing(
    signed_in: Cli, plane: ControlPlane, method: str, path: str, argv: str
) -> None:
    plane.script(method, path, (404, {"title": "Not found", "status": 404, "detail": "no webhook"}, {}))
    said = signed_in("limit", "webhook", argv, *(["--yes"] if argv == "delete" else []))
    assert said.code == 1
    assert "'acme' has no webhook, or is not yours to see" in said.err
    assert "orgate limit webhook set" in said.err
    assert "organization 'acme'" not in said.err


def test_a_test_that_fails_is_exit_code_1(signed_in: Cli, plane: ControlPlane) -> None:
    good = {"ok": True, "status": 204, "ms": 3.5, "detail": "the receiver took it"}
    bad = {"ok": False, "status": 500, "ms": 3.5, "detail": "the receiver answered status 500"}
    plane.script("POST", PATH + "/test", (200, good, {}), (200, bad, {}))
    assert signed_in("limit", "webhook", "test").code == 0
    said = signed_in("limit", "webhook", "test", "-o", "json")
    assert (said.code, json.loads(said.out)["status"]) == (1, 500)
    assert "the webhook failed: the receiver answered status 500" in said.err
    assert signed_in("limit", "webhook", "test", "--dry-run").code == 0


def test_delete_asks_first(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("DELETE", PATH, (204, "", {}))
    assert signed_in("limit", "webhook", "delete").code == 2
    assert plane.writes == []
    assert signed_in("limit", "webhook", "delete", "--yes").code == 0
    assert [write.method for write in plane.writes] == ["DELETE"]
