"""`orgate doctor` looks at where upstream keys come from, and at what opens the sealed file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Cli


def findings(cli: Cli, home: Path) -> dict[str, tuple[str, str]]:
    said = cli("doctor", "--settings", str(home / "orgate.toml"), "-o", "json")
    return {row["check"]: (row["result"], row["seen"]) for row in json.loads(said.out)}


@pytest.fixture
def home(installed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(installed, tmp_path / "home")


def choose(home: Path, *lines: str) -> None:
    file = home / "orgate.toml"
    file.write_text(
        file.read_text().replace("[secrets]\n", "[secrets]\n" + "".join(f"{line}\n" for line in lines))
    )


def test_mounted_files_are_counted(cli: Cli, home: Path) -> None:
    choose(home, 'upstream_keys = "mounted-files"')
    (home / "keys" / "acme" / "..data").mkdir(parents=True)
    (home / "keys" / "acme" / "vllm").write_text("sk-planted")
    result, seen = findings(cli, home)["upstream keys"]
    assert (result, seen) == ("ok", f"1 files in {home / 'keys'}")


def test_the_environment_is_a_warning(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(home, 'upstream_keys = "environment"')
    monkeypatch.setenv("ORGATE_KEY_ACME__VLLM", "sk-planted")
    result, seen = findings(cli, home)["upstream keys"]
    assert result == "warning"
    assert "sk-planted" not in seen


def test_a_passphrase_is_named_and_tried(cli: Cli, home: Path) -> None:
    (home / "phrase").write_text("correct horse battery staple")
    (home / "phrase").chmod(0o600)
    assert cli("key", "reseal", "--to", "passphrase:phrase", "--settings", str(home / "orgate.toml")).code == 0
    file = home / "orgate.toml"
    file.write_text(file.read_text().replace('master_key = "master.key"', 'master_key = "passphrase:phrase"'))
    found = findings(cli, home)
    assert found["master key"] == ("ok", "a passphrase (passphrase:phrase)")
    assert found["secret store"][0] == "ok"
    (home / "phrase").write_text("another passphrase")
    assert "the passphrase does not fit" in findings(cli, home)["secret store"][1]
