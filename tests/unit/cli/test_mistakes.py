"""What people give wrongly to any command: bytes that are no text, no name, numbers and nesting without end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.main import COMMANDS, _load
from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

BYTES = "\udcff"
"""As Python gives an argument of the byte 0xff (PEP 383)."""

DIGITS = "9" * 5_000
DEEP = 5_000


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path


EVERY = sorted(path for name in COMMANDS for path in leaves(_load(name), (name,)))


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
@pytest.mark.parametrize("more", [(BYTES,), ("--profile", BYTES)], ids=["argument", "option"])
def test_bytes_that_are_no_text_are_refused_before_anything_is_done(
    signed_in: Cli, plane: ControlPlane, path: tuple[str, ...], more: tuple[str, ...]
) -> None:
    said = signed_in.run(*path, *more)
    assert (said.code, said.err) == (2, f"orgate: argument {len(path) + len(more)} is no text in UTF-8\n")
    assert plane.seen == []


def test_so_are_those_in_its_variables(signed_in: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGATE_ORG", BYTES)
    said = signed_in("limit", "list")
    assert (said.code, said.err) == (2, "orgate: ORGATE_ORG is no text in UTF-8\n")


def test_a_folder_with_such_a_name_is_no_traceback(
    signed_in: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / BYTES
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert signed_in("limit", "acl").code == 2


@pytest.mark.parametrize("name", ["", ".", ".."])
@pytest.mark.parametrize(
    "argv",
    [
        ("limit", "show", "NAME"),
        ("limit", "set", "NAME", "--amount", "3"),
        ("limit", "delete", "NAME", "--yes"),
        ("limit", "usage", "NAME"),
        ("limit", "reset", "NAME", "--yes"),
        ("model", "show", "NAME"),
        ("upstream", "delete", "NAME", "--yes"),
        ("member", "suspend", "NAME", "--yes"),
        ("team", "add", "NAME", "mem_1"),
        ("team", "add", "blue", "NAME"),
        ("client", "show", "NAME"),
        ("org", "show", "NAME"),
        ("org", "delete", "NAME", "--yes"),
    ],
    ids=" ".join,
)
def test_what_is_no_name_is_asked_for(
    signed_in: Cli, plane: ControlPlane, argv: tuple[str, ...], name: str
) -> None:
    said = signed_in(*(name if part == "NAME" else part for part in argv))
    assert said.code == 2
    assert "name" in said.err or "id is" in said.err
    assert not plane.seen


def nested(kind: str) -> str:
    return {"toml": "a = ", "json": "", "yaml": ""}[kind] + "[" * DEEP


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("p.json", f'[{{"model": "m", "input": {DIGITS}, "output": 1}}]', "a number in it is too long"),
        ("p.json", nested("json"), "nested too deeply"),
        ("p.toml", f"a = {DIGITS}", "a number in it is too long"),
        ("p.toml", nested("toml"), "nested too deeply"),
        ("p.toml", f"[[prices]]\nmodel = 'm'\ninput = 1e{DIGITS}\noutput = 1", "input"),
        ("p.csv", f"model,input,output\nm,{DIGITS},1", "input"),
        ("p.csv", f"model,input,output\nm,1e{DIGITS},1", "input"),
        ("p.csv", 'model,input,output\n"' + "x" * 200_000 + '",1,1', "line"),
    ],
    ids=lambda value: value[:12],
)
def test_prices_without_end_are_refused(signed_in: Cli, tmp_path: Path, file: str, text: str, says: str) -> None:
    (tmp_path / file).write_text(text)
    said = signed_in("price", "import", str(tmp_path / file), "--yes")
    assert said.code == 2
    assert says in said.err
    assert len(said.err) < 1_000


@pytest.mark.parametrize("text", [nested("yaml"), DIGITS, "- name: 2026-99-99", "a: !!int x", "{" * DEEP])
def test_rules_without_end_are_refused(signed_in: Cli, tmp_path: Path, text: str) -> None:
    (tmp_path / "rules.yaml").write_text(text)
    said = signed_in("policy", "apply", str(tmp_path / "rules.yaml"), "--yes")
    assert said.code == 2
    assert "rules.yaml" in said.err
    assert len(said.err) < 1_000


@pytest.mark.parametrize("text", [f"a = {DIGITS}", nested("toml")])
def test_a_configuration_without_end_is_damaged(cli: Cli, text: str) -> None:
    cli.folder.mkdir(mode=0o700)
    (cli.folder / "config.toml").write_text(text)
    said = cli("limit", "list")
    assert said.code == 1
    assert "config.toml is damaged" in said.err


@pytest.mark.parametrize("text", [f"a = {DIGITS}", nested("toml")])
def test_settings_without_end_are_no_toml(cli: Cli, tmp_path: Path, text: str) -> None:
    (tmp_path / "orgate.toml").write_text(text)
    said = cli("limit", "acl", "--settings", str(tmp_path / "orgate.toml"))
    assert said.code == 2
    assert "is not TOML" in said.err


def test_a_prompt_without_end_is_no_request(signed_in: Cli, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text('{"prompt": ' + nested("json"))
    said = signed_in("audit", "prompt-hash", str(tmp_path / "body.json"))
    assert said.code == 2


@pytest.mark.parametrize("body", [b"[" * DEEP, b'{"detail": ' + b"[" * DEEP, DIGITS.encode()])
@pytest.mark.parametrize("status", [200, 422])
def test_an_answer_without_end_is_not_understood(
    signed_in: Cli, plane: ControlPlane, status: int, body: bytes
) -> None:
    plane.script("GET", "/admin/v1/orgs/acme/models/code", (status, body, {"content-type": "application/json"}))
    assert signed_in("model", "show", "code").code == 1


@pytest.mark.parametrize(
    "argv",
    [
        ("limit", "set", "x", "--scope", "org", "--unit", "requests", "--amount", "1" + ",000" * 2_000),
        ("limit", "set", "x", "--scope", "org", "--unit", "requests", "--amount", DIGITS),
        ("limit", "set", "x", "--scope", "org", "--unit", "requests", "--amount", "1", "--notify-at", DIGITS),
        ("model", "create", "m", "--upstream", "u", "--model", "m", "--max-tokens", DIGITS),
        ("limit", "top", "--every", "nan"),
        ("audit", "query", "--since", DIGITS),
        ("key", "rotate", "u", "--overlap", DIGITS),
        ("limit", "simulate", "--scope", "org", "--unit", "requests", "--amount", "1", "--since", DIGITS + "d"),
    ],
    ids=lambda argv: " ".join(part[:12] for part in argv[:9]),
)
def test_numbers_without_end_are_refused(signed_in: Cli, argv: tuple[str, ...]) -> None:
    said = signed_in(*argv)
    assert said.code in (1, 2)
    assert len(said.err) < 1_000


@pytest.mark.parametrize("option", ["--per", "--window"])
def test_what_counts_at_one_moment_has_no_time(signed_in: Cli, plane: ControlPlane, option: str) -> None:
    plane.put("acme", "limits", "c", scope="org", unit="concurrency", amount=4, period_s=0)
    said = signed_in("limit", "set", "c", option, "day")
    assert (said.code, said.out, plane.writes) == (2, "", [])
    assert "limit 'c' counts concurrency, at one moment and not per time" in said.err
    assert f"leave out {option}" in said.err
    # Counting something else from now on, it may.
    assert signed_in("limit", "set", "c", option, "day", "--unit", "requests", "--amount", "9").code == 0


ORG = {"name": "Acme", "state": "active", "hosts": [], "timezone": "UTC"}


@pytest.mark.parametrize(
    ("argv", "kind", "key", "item", "field"),
    [
        (("org", "set", "--timezone", ""), "orgs", "acme", ORG, "timezone"),
        (("org", "set", "--name", ""), "orgs", "acme", ORG, "name"),
        (("model", "set", "m", "--model", ""), "models", "m", {"upstream": "u", "model": "x"}, "model"),
        (("model", "set", "m", "--upstream", ""), "models", "m", {"upstream": "u", "model": "x"}, "upstream"),
    ],
)
def test_what_is_given_empty_is_judged_by_the_server_and_not_ignored(
    signed_in: Cli,
    plane: ControlPlane,
    argv: tuple[str, ...],
    kind: str,
    key: str,
    item: dict[str, Any],
    field: str,
) -> None:
    plane.put("" if kind == "orgs" else "acme", kind, key, **item)
    assert signed_in(*argv, "--dry-run", "--output", "json").out.count(f'"{field}": ""') == 1


@pytest.mark.parametrize("verb", ["reset", "usage"])
def test_an_empty_subject_is_not_everybody(signed_in: Cli, plane: ControlPlane, verb: str) -> None:
    plane.put("acme", "limits", "each", scope="member", unit="requests", amount=4, period_s=60)
    yes = ("--yes",) if verb == "reset" else ()
    said = signed_in("limit", verb, "each", "--subject", "", *yes)
    assert (said.code, plane.seen) == (2, [])
    assert "--subject is empty" in said.err
