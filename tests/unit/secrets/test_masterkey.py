"""The master key's file: created once, refused when others could read it."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from gateway.secrets.masterkey import MasterKeyError, create_master_key, read_master_key


def test_a_created_key_is_private_and_reads_back(tmp_path: Path) -> None:
    create_master_key(tmp_path / "master.key", random=lambda size: b"k" * size)
    assert stat.S_IMODE((tmp_path / "master.key").stat().st_mode) == 0o600
    assert read_master_key("master.key", tmp_path).reveal() == b"k" * 32


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    create_master_key(tmp_path / "master.key")
    before = (tmp_path / "master.key").read_bytes()
    with pytest.raises(FileExistsError):
        create_master_key(tmp_path / "master.key")
    assert (tmp_path / "master.key").read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_wider_modes_are_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    key = tmp_path / "master.key"
    create_master_key(key)
    key.chmod(mode)
    with pytest.raises(MasterKeyError, match=f"mode {mode:04o}; run `chmod 600 "):
        read_master_key("master.key", tmp_path)


def test_a_missing_key_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyError, match="orgate init"):
        read_master_key("master.key", tmp_path)


@pytest.mark.parametrize("text", ["", "abcd", "zz" * 32, "ab" * 31, "ab" * 33, "é" * 64])
def test_a_malformed_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    key = tmp_path / "master.key"
    key.touch(mode=0o600)
    key.write_text(text, encoding="utf-8")
    with pytest.raises(MasterKeyError, match="64 hexadecimal digits") as caught:
        read_master_key("master.key", tmp_path)
    assert not text or text not in str(caught.value)


def test_a_folder_is_not_a_key(tmp_path: Path) -> None:
    (tmp_path / "master.key").mkdir(mode=0o700)
    with pytest.raises(MasterKeyError, match="not a regular file"):
        read_master_key("master.key", tmp_path)


def test_the_environment_serves_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        key = read_master_key("env:MASTER", tmp_path, {"MASTER": "0b" * 32})
    assert key.reveal() == b"\x0b" * 32
    assert "development only" in caplog.text
    assert "0b0b" not in caplog.text
    with pytest.raises(MasterKeyError, match="MASTER is not set"):
        read_master_key("env:MASTER", tmp_path, {})
