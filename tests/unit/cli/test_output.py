"""Four formats: results on stdout alone, words on stderr, nothing that a spreadsheet or a terminal would run."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
import typer
import yaml

from cli.errors import RefusedError
from cli.main import main
from cli.output import Column, Format, Printer, csv_cell, instant, printable
from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli


@pytest.fixture
def five(plane: ControlPlane) -> ControlPlane:
    for number in range(5):
        plane.put("acme", "models", f"m{number}", upstream="u", model="x", tasks=["chat"], max_tokens=9)
    return plane


def _parsed(form: str, text: str) -> list[Any]:
    if form == "json":
        return list(json.loads(text))
    if form == "yaml":
        return list(yaml.safe_load(text))
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("form", ["json", "yaml", "csv"])
@pytest.mark.usefixtures("five")
def test_a_list_parses_whole_and_in_order_in_each_format(signed_in: Cli, form: str) -> None:
    said = signed_in("model", "list", "--output", form)
    assert said.code == 0
    assert [row["name"] for row in _parsed(form, said.out)] == ["m0", "m1", "m2", "m3", "m4"]
    assert said.err == ""


@pytest.mark.usefixtures("five")
def test_a_table_in_a_pipe_has_aligned_columns_and_nothing_else(signed_in: Cli) -> None:
    lines = signed_in("model", "list").out.splitlines()
    assert lines[0].split() == ["NAME", "UPSTREAM", "MODEL", "TASKS", "MAX", "TOKENS"]
    assert {line.index("u") for line in lines[1:]} == {lines[0].index("UPSTREAM")}
    assert all(line.isascii() and line.isprintable() for line in lines)


@pytest.mark.parametrize("form", ["json", "yaml", "csv"])
def test_one_thing_parses_too(signed_in: Cli, plane: ControlPlane, form: str) -> None:
    plane.put("acme", "limits", "r", scope="member", unit="requests", amount=5, period_s=60, burst=0, subject="")
    said = signed_in("limit", "show", "r", "--output", form)
    found = next(csv.DictReader(io.StringIO(said.out))) if form == "csv" else yaml.safe_load(said.out)
    assert str(found["amount"]) == "5"


def test_a_teams_members_are_listed_with_the_day_they_joined(signed_in: Cli) -> None:
    said = signed_in("team", "members", "core", "--output", "json")
    assert _parsed("json", said.out) == [
        {"org": "acme", "team": "core", "member": "mem_1", "added_at": 1_700_000_000, "lead": True, "name": "Ann"}
    ]
    assert "2023-11-14" in signed_in("team", "members", "core").out


@pytest.mark.parametrize("form", ["json", "yaml", "csv"])
def test_an_empty_list_is_still_a_document(signed_in: Cli, form: str) -> None:
    said = signed_in("upstream", "list", "--output", form)
    assert said.code == 0
    assert _parsed(form, said.out) == []


def test_an_empty_table_says_so_on_stderr(signed_in: Cli) -> None:
    said = signed_in("upstream", "list")
    assert said.out == ""
    assert "orgate upstream create" in said.err


def test_options_may_stand_before_the_command_and_in_the_environment(
    signed_in: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert signed_in("--output", "json", "--org", "acme", "model", "list").out.strip() == "[]"
    monkeypatch.setenv("ORGATE_OUTPUT", "json")
    assert signed_in("model", "list").out.strip() == "[]"
    assert signed_in("model", "list", "--output", "csv").out.startswith("name,")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv_is_safe_from_formulas(signed_in: Cli, plane: ControlPlane, text: str) -> None:
    assert csv_cell(text) == "'" + text
    plane.put("acme", "models", "m", upstream="u", model=text, tasks=[])
    said = signed_in("model", "list", "--output", "csv")
    assert next(csv.DictReader(io.StringIO(said.out, newline="")))["model"][0] == "'"


def test_csv_leaves_numbers_alone() -> None:
    assert csv_cell(-5) == -5
    assert csv_cell(True) == "yes"
    assert csv_cell(None) == ""


def test_printable_and_instant() -> None:
    assert printable("a\x1bb\u202ec") == "a\\x1bb\\u202ec"
    assert instant(0) == ""
    assert instant(1_700_000_000) == "2023-11-14T22:13:20Z"
    for beyond in (2**53 // 1000, 2**63 - 1):  # in a proof, or of a witness, anybody can write any time
        assert instant(beyond) == f"second {beyond}"


def test_verbose_tells_requests_and_no_secret(signed_in: Cli, plane: ControlPlane) -> None:
    said = signed_in("--verbose", "model", "list")
    assert f"GET {plane.origin}/admin/v1/orgs/acme/models 200" in said.err
    assert not any(token in said.err for token in plane.access)
    assert plane.families[0].current not in said.err


def test_status_and_whoami(signed_in: Cli) -> None:
    assert json.loads(signed_in("status", "-o", "json").out)["workers"] == [{"worker": "w1", "version": 7}]
    assert "w1" in signed_in("status").out
    assert json.loads(signed_in("whoami", "-o", "json").out)["roles"] == ["owner"]


def test_a_message_that_quotes_others_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = io.StringIO()
    Printer(Format.TABLE, stdout=screen, stderr=screen).say("a\x1b[2Jb\tc\nd")
    assert screen.getvalue() == "a\\u001b[2Jb\tc\nd\n"

    def fail(**_: object) -> None:
        raise RefusedError("no \x9b2J", "try \x1b[2J\u202e")

    monkeypatch.setattr(typer.main, "get_command", lambda _: fail)
    assert main([]) == 1
    assert capsys.readouterr().err == "orgate: no \\u009b2J\n  → try \\u001b[2J\\u202e\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_table_has_colours_and_no_markup_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = _Terminal()
    out = Printer(Format.TABLE, stdout=screen, stderr=screen)
    out.items(
        [{"name": "[bold]x[/bold]", "state": "suspended"}], [Column("NAME", "name"), Column("STATE", "state")]
    )
    assert "[bold]x[/bold]" in screen.getvalue()
    assert "\x1b[31m" in screen.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = _Terminal()
    Printer(Format.TABLE, stdout=plain, stderr=plain).item({"name": "x", "created_at": 1_700_000_000})
    assert "\x1b[3" not in plain.getvalue()
    assert "2023-11-14T22:13:20Z" in plain.getvalue()


@pytest.mark.parametrize("form", ["json", "yaml", "csv"])
def test_no_format_steers_the_terminal(signed_in: Cli, plane: ControlPlane, form: str) -> None:
    """A document is looked at as often as it is parsed, and the server that made it may be anybody's."""
    name = "a\x1b]0;owned\x07\x9b31m\u202eb"
    plane.put("acme", "models", "m", upstream="u", model=name, tasks=["chat"], max_tokens=9)
    said = signed_in("model", "list", "--output", form)
    assert all(c.isprintable() or c == "\n" for c in said.out)
    if form == "json":
        assert json.loads(said.out)[0]["model"] == name
