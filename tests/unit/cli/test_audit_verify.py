"""`orgate audit verify`: what an auditor reads, and the exit code that a job watches."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.signer import Signer
from tests.audit.packs import POLICY, SOME, Shape, honest, kept, whole
from tests.fakes.audit import ACME, SIGNER
from tests.unit.cli.conftest import Cli

KEY = str(SIGNER.key(ACME))
ALONE = "not proven: that everybody was shown the same log"


def put(folder: Path, shape: Shape) -> Path:
    for name, data in honest(shape).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def pack(tmp_path: Path) -> str:
    return str(put(tmp_path / "pack", whole(30, witnessed=True)))


def test_what_is_proven_and_what_is_not(cli: Cli, pack: str, tmp_path: Path) -> None:
    alone = cli("audit", "verify", pack)
    assert alone.code == 0
    assert alone.err.splitlines()[0].startswith("not proven: the key came with the pack")
    assert ALONE in alone.err
    assert alone.out.splitlines()[-1] == f"{pack}: 30 entries of 'acme', whole, in order, unchanged"
    (tmp_path / "policy").write_bytes(POLICY)
    (tmp_path / "kept").write_bytes(kept())
    given = ("--key", KEY, "--witnesses", "policy", "--since-checkpoint", "kept")
    proven = cli("audit", "verify", pack, *given)
    assert (proven.code, proven.err) == (0, "")
    again = cli("audit", "verify", pack, "--since-checkpoint", pack)
    assert f"proven: the log continues {pack}: its 30 entries are the same" in again.out
    assert [line.partition(" (")[0] for line in proven.out.splitlines()][:3] == [
        "proven: the quorum two-of is met: one at 2025-11-21T01:53:21Z, three at 2025-11-21T01:53:21Z",
        "proven: 1 daily count",
        "proven: the log continues kept: its 9 entries are the same",
    ]


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (Shape(30, 10, 20), "10 entries of 'acme', all of [10, 20) in the log of 30, in order, unchanged"),
        (SOME[0], "10 entries of 'acme', in the log of 30, each at its place, unchanged"),
        (whole(3, format=1), "3 entries of 'acme', whole, in order, unchanged"),
    ],
)
def test_a_part_is_not_called_whole(cli: Cli, tmp_path: Path, shape: Shape, says: str) -> None:
    pack = str(put(tmp_path / "pack", shape))
    said = cli("audit", "verify", pack, "--key", KEY)
    assert (said.code, said.out.splitlines()[-1]) == (0, f"{pack}: {says}")
    assert ("a pack with a filter cannot show what was left out" in said.err) is bool(shape.filter)


def test_a_flipped_byte_in_words_and_for_programs(cli: Cli, pack: str) -> None:
    path = Path(pack) / "entries.jsonl"
    raw = bytearray(path.read_bytes())
    raw[5_000] ^= 1
    path.write_bytes(raw)
    bad = cli("audit", "verify", pack)
    assert (bad.code, bad.out) == (1, "")
    assert f"{pack} does not verify: " in bad.err
    assert "  entries.jsonl line " in bad.err
    report = json.loads(cli("audit", "verify", pack, "-o", "json").out)
    assert report["ok"] is False
    assert any("entries.jsonl line" in fault for fault in report["faults"])
    assert set(report) >= {"pack", "org", "entries", "checkpoint_size", "proven", "unproven"}


def test_many_packs_are_judged_in_one_run(cli: Cli, pack: str, tmp_path: Path) -> None:
    other = str(put(tmp_path / "other", whole(3)))
    (tmp_path / "other" / "key").unlink()
    said = cli("audit", "verify", pack, other, pack, "--key", KEY)
    assert said.code == 1
    assert said.out.count("whole, in order, unchanged") == 2
    assert f"{other} does not verify: 1 fault" in said.err
    found = json.loads(cli("audit", "verify", pack, other, "-o", "json").out)
    assert [one["ok"] for one in found] == [True, False]
    rows = list(csv.DictReader(io.StringIO(cli("audit", "verify", pack, pack, "-o", "csv").out)))
    assert [row["pack"] for row in rows] == [pack, pack]


def test_the_key_may_be_a_file_and_another_key_is_a_fault(cli: Cli, pack: str, tmp_path: Path) -> None:
    (tmp_path / "log.key").write_text(f"{KEY}\n")
    assert "came with the pack" not in cli("audit", "verify", pack, "--key", "log.key").err
    other = str(Signer("gateway.example", Ed25519PrivateKey.generate()).key(ACME))
    assert cli("audit", "verify", pack, "--key", other).code == 1


@pytest.mark.parametrize("given", ["nope.key", "no.key", "acme+00000000+AQ==", "empty.key", "bytes.key"])
def test_a_key_that_is_none_is_a_wrong_call_not_a_bad_pack(
    cli: Cli, pack: str, tmp_path: Path, given: str
) -> None:
    (tmp_path / "no.key").write_text('{"title": "Not found"}')
    (tmp_path / "empty.key").write_text("")
    (tmp_path / "bytes.key").write_bytes(b"\xff\xfe")
    said = cli("audit", "verify", pack, "--key", given)
    assert said.code == 2
    assert f"--key {given}" in said.err
    assert "does not verify" not in said.err


@pytest.mark.parametrize(
    ("option", "data", "code"),
    [
        ("--witnesses", None, 2),
        ("--witnesses", b"quorum of them", 2),
        ("--since-checkpoint", None, 2),
        ("--since-checkpoint", b"\xff", 2),
        ("--since-checkpoint", b"nonsense", 1),
        ("--since-checkpoint", b"x" * 300_000, 1),
    ],
)
def test_what_an_auditor_gives_has_to_be_that(
    cli: Cli, pack: str, tmp_path: Path, option: str, data: bytes | None, code: int
) -> None:
    if data is not None:
        (tmp_path / "given").write_bytes(data)
    said = cli("audit", "verify", pack, option, "given")
    assert said.code == code
    assert "given" in said.err


def test_it_needs_no_server_and_no_login(cli: Cli, tmp_path: Path) -> None:
    assert cli("audit", "verify", str(tmp_path / "none")).code == 2
    (tmp_path / "passwd").write_text("")
    said = cli("audit", "verify", str(tmp_path))
    assert said.code == 1
    assert "this is no pack: manifest.json is missing" in said.err
    assert "passwd" not in said.err
