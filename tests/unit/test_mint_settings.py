"""`secrets.mint_commands`: absolute paths, in the file or in the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import SettingsError, load

NAME = "ORGATE_SECRETS__MINT_COMMANDS"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "orgate.toml"
    made.write_text("")
    return made


def test_the_environment_gives_a_list_with_commas(file: Path) -> None:
    settings = load(file, {NAME: "/etc/orgate/mint, /etc/orgate/revoke"})
    assert settings.secrets.mint_commands == (Path("/etc/orgate/mint"), Path("/etc/orgate/revoke"))
    assert load(file, {}).secrets.mint_commands == ()


def test_a_relative_path_is_a_fault(file: Path) -> None:
    file.write_text('[secrets]\nmint_commands = ["/etc/orgate/mint", "bin/mint"]\n')
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    assert [fault[:2] for fault in caught.value.faults] == [
        ("secrets.mint_commands", "bin/mint is no absolute path")
    ]
