"""A witness's folder: what makes one, what it refuses to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.audit.cosignature import parse_cosigner_key
from gateway.witness.folder import FolderError, WitnessFolder, make
from tests.fakes.growinglog import GrowingLog

ACME = GrowingLog()
NAME = "w1.example/audit"


def test_a_new_witness_has_a_key_that_only_it_can_read(tmp_path: Path) -> None:
    make(tmp_path / "w", NAME)
    assert (tmp_path / "w" / "key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o700
    kept = WitnessFolder(tmp_path / "w")
    assert kept.name == NAME
    assert parse_cosigner_key(str(kept.key)) == kept.key == WitnessFolder(tmp_path / "w").key
    with pytest.raises(FolderError, match="already"):
        make(tmp_path / "w", NAME)
    make(tmp_path / "v", NAME)
    assert WitnessFolder(tmp_path / "v").key != kept.key


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\nb", "\x1b[31m"])
def test_a_name_that_no_note_can_carry_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FolderError, match="name"):
        make(tmp_path / "w", name)
    assert not (tmp_path / "w").exists()


def test_a_folder_without_a_witness_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no witness") as caught:
        WitnessFolder(tmp_path)
    assert "--name" in caught.value.fix


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "w", NAME)
    (tmp_path / "w" / "key").chmod(0o640)
    with pytest.raises(FolderError, match="others may read") as caught:
        WitnessFolder(tmp_path / "w")
    assert caught.value.fix.startswith("run `chmod 600")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda key: key.replace("w1.", "w2."), "does not fit"),
        (lambda key: key.replace("PRIVATE+KEY+", ""), "no private key"),
        (lambda key: key[: len(key) // 2], "base64|no private key"),
        (lambda _: "", "no private key"),
        (lambda _: "PRIVATE+KEY+w1+00000000+AAAA", "no private key"),
    ],
)
def test_a_key_that_was_changed_is_refused(tmp_path: Path, change, said: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "w", NAME)
    path = tmp_path / "w" / "key"
    path.write_text(change(path.read_text()))
    with pytest.raises(FolderError, match=said):
        WitnessFolder(tmp_path / "w")
    path.write_bytes(b"\xff")
    with pytest.raises(FolderError, match="no key"):
        WitnessFolder(tmp_path / "w")


def test_logs_are_listed_by_origin(tmp_path: Path) -> None:
    make(tmp_path / "w", NAME)
    kept = WitnessFolder(tmp_path / "w")
    assert kept.logs() == []
    for origin in ("b.example", "a.example"):
        assert kept.add(GrowingLog(1, origin=origin).key)
    assert [(one.origin, one.known) for one in kept.logs()] == [("a.example", None), ("b.example", None)]


def test_keys_of_another_log_and_keys_that_are_none_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "w", NAME)
    kept = WitnessFolder(tmp_path / "w")
    kept.add(ACME.key)
    (path,) = (tmp_path / "w" / "logs").glob("*/keys")
    path.write_text(f"{GrowingLog(1, origin='globex').key}\n")
    with pytest.raises(FolderError, match="another log, globex"):
        kept.keys(ACME.origin)
    path.write_text("nonsense\n")
    with pytest.raises(FolderError, match="form"):
        kept.logs()


def test_one_process_serves_from_a_folder(tmp_path: Path) -> None:
    make(tmp_path / "w", NAME)
    kept = WitnessFolder(tmp_path / "w")
    with kept.held(), pytest.raises(FolderError, match="another witness"), kept.held():
        pass
    with kept.held():
        pass
