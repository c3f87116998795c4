"""Every command explains itself, with an example, and the root lists them all without importing them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer

from cli.main import COMMANDS, LazyCommands, app
from tests.unit.cli.conftest import Cli


def _paths() -> list[list[str]]:
    found: list[list[str]] = [[]]
    for name, command in LazyCommands().items():
        found.append([name])
        commands: dict[str, Any] = getattr(command, "commands", {})
        for inner, below in commands.items():
            found.append([name, inner])
            found += [[name, inner, innermost] for innermost in getattr(below, "commands", {})]
    return found


@pytest.mark.parametrize("path", _paths(), ids=lambda path: " ".join(path) or "orgate")
def test_help_has_a_usage_and_an_example(cli: Cli, path: list[str]) -> None:
    said = cli(*path, "--help")
    assert said.code == 0
    assert "Usage: " + " ".join(["orgate", *path]) in said.out
    assert "Examples:" in said.out
    example = said.out.partition("Examples:")[2]
    assert " ".join(["orgate", *path]) in example or path == []


@pytest.mark.parametrize("path", _paths(), ids=lambda path: " ".join(path) or "orgate")
def test_what_a_group_says_of_its_commands_is_not_cut_off(cli: Cli, path: list[str]) -> None:
    listed = cli(*path, "--help").out.partition("Commands:")[2].partition("Examples:")[0]
    assert not [line for line in listed.splitlines() if line.endswith("...")]


def test_the_table_of_the_root_says_what_each_command_says_of_itself() -> None:
    for name, command in LazyCommands().items():
        own = (command.help or "").splitlines()[0]
        assert own.startswith(COMMANDS[name][2].rstrip(".")), name


def test_help_imports_typer_and_nothing_heavy() -> None:
    code = (
        "import sys; from cli.main import main; main(['--help']); "
        "heavy = {'httpx', 'msgspec', 'rich', 'yaml', 'gateway.settings', 'litestar'} & set(sys.modules); "
        "sys.exit(' '.join(heavy) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_version(cli: Cli) -> None:
    assert cli("--version").out.startswith("orgate 0.")


def test_an_unknown_command_is_wrong_usage_and_gets_a_suggestion(cli: Cli) -> None:
    said = cli("modle", "list")
    assert said.code == 2
    assert "model" in said.err


@pytest.mark.parametrize(
    "argv",
    [
        ("model", "list", "--output", "xml"),
        ("model", "create", "code"),
        ("limit", "set", "x", "--amount", "-1"),
        ("login", "--nonsense"),
        ("model",),
        (),
    ],
)
def test_wrong_usage_is_2(cli: Cli, argv: tuple[str, ...]) -> None:
    assert cli(*argv).code == 2


def test_the_app_is_a_typer_app() -> None:
    assert isinstance(app, typer.Typer)
