"""`orgate audit witness`: how a gateway's witnesses are shown, and what is wrong with a witness's arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.policy import parse_policy
from gateway.witness.folder import WitnessFolder, make
from tests.fakes.control_plane import ControlPlane
from tests.fakes.growinglog import GrowingLog
from tests.kit.ports import free_port
from tests.unit.cli.conftest import Cli

STATUS = "/admin/v1/orgs/acme/audit/witnesses"
AT = 1_763_690_000
LOG = GrowingLog(3)


def witnessing(late_s: float = 0.0) -> dict[str, Any]:
    return {
        "quorum": "both",
        "size": 11,
        "witnessed_size": 10,
        "late_s": late_s,
        "said": "the quorum both is met: w1 at \x1b[31m",
        "items": [
            {"name": "w1", "key": "k1", "size": 11, "at": AT, "fault": "", "fault_at": 0},
            {"name": "w2", "key": "k2", "size": 0, "at": 0, "fault": "it cannot be reached", "fault_at": AT},
        ],
    }


def scripted(plane: ControlPlane, late_s: float = 0.0) -> None:
    plane.script("GET", STATUS, (200, witnessing(late_s), {}))


def test_each_witness_is_a_row(signed_in: Cli, plane: ControlPlane) -> None:
    scripted(plane)
    shown = signed_in("audit", "witness", "status")
    assert shown.code == 0
    rows = [line.split() for line in shown.out.splitlines()]
    assert rows[1] == ["w1", "11", "2025-11-21T01:53:20Z"]
    assert rows[2][:3] == ["w2", "0", "never"]
    assert "it cannot be reached" in shown.out
    assert "newest checkpoint: 11 entries; the quorum both is met" in shown.err
    assert "\x1b" not in shown.err + shown.out
    scripted(plane)
    assert json.loads(signed_in("audit", "witness", "status", "-o", "json").out) == witnessing()


def test_a_quorum_that_is_late_is_a_failure(signed_in: Cli, plane: ControlPlane) -> None:
    scripted(plane, 61.0)
    shown = signed_in("audit", "witness", "status")
    assert shown.code == 1
    assert "for 61 s no new checkpoint has had its quorum" in shown.err
    assert "w2" in shown.out


def test_the_policy_is_printed_as_it_is(signed_in: Cli, plane: ControlPlane) -> None:
    text = f"log {LOG.key}\nquorum none\n"
    plane.script("GET", "/admin/v1/orgs/acme/audit/policy", (200, text, {}))
    printed = signed_in("audit", "witness", "policy").out
    assert printed == text
    assert parse_policy(printed).logs[0].key == LOG.key


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make(tmp_path / "w", "w1.example")
    return tmp_path / "w"


def test_logs_are_added_listed_and_removed(cli: Cli, place: Path, tmp_path: Path) -> None:
    folder = ("--folder", str(place))
    (tmp_path / "log.key").write_text(f"{LOG.key}\n")
    assert "is served now" in cli("audit", "witness", "add", "log.key", *folder).err
    assert "was served already" in cli("audit", "witness", "add", str(LOG.key), *folder).err
    (row,) = json.loads(cli("audit", "witness", "list", *folder, "-o", "json").out)
    assert row == {"origin": LOG.origin, "size": 0, "at": 0, "refused": 0, "keys": [str(LOG.key)]}
    assert "never" in cli("audit", "witness", "list", *folder).out
    assert cli("audit", "witness", "key", *folder).out.strip() == str(WitnessFolder(place).key)
    assert "no longer served" in cli("audit", "witness", "remove", LOG.origin, *folder).err
    assert "no logs yet" in cli("audit", "witness", "list", *folder).err


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("nowhere", "there is no such file, and it is no key"),
        ("a+b", "not of the form"),
        (str(LOG.key).replace("acme+", "acmf+"), "id does not fit"),
    ],
)
def test_a_key_that_is_none_is_refused(cli: Cli, place: Path, key: str, said: str) -> None:
    refused = cli("audit", "witness", "add", key, "--folder", str(place))
    assert (refused.code, said in refused.err) == (2, True), refused.err


def test_files_that_cannot_be_used_are_told(cli: Cli, place: Path, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    assert "cannot be read" in cli("audit", "witness", "add", "bytes", "--folder", str(place)).err
    (place / "key").chmod(0o644)
    refused = cli("audit", "witness", "key", "--folder", str(place))
    assert (refused.code, "chmod 600" in refused.err) == (1, True)
    (tmp_path / "file").write_text("")


@pytest.mark.parametrize("listen", ["localhost", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:70000", ":8446", "[::1]"])
def test_an_address_that_is_none_is_refused(cli: Cli, place: Path, listen: str) -> None:
    refused = cli("audit", "witness", "serve", "--folder", str(place), "--listen", listen)
    assert (refused.code, "no address and port" in refused.err) == (2, True)


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> str:
    """A free address; this process stays open to debuggers."""
    monkeypatch.setattr("gateway.witness.serve.keep_memory_private", lambda: None)
    return f"127.0.0.1:{free_port()}"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 1, "there is no witness in this folder"),
        (("--name", "two words"), 1, "can be no witness's name"),
        (("--name", "w", "--folder", "file/w"), 1, "Not a directory"),
        (("--folder", "w", "--name", "v"), 1, "this witness is called w1.example"),
        (("--folder", "w", "--log", "nowhere.key"), 2, "it is no key"),
        (("--folder", "w", "--listen", "0.0.0.0:8446"), 2, "is not loopback, and there is no certificate"),
        (("--folder", "w", "--tls-cert", "cert.pem"), 2, "belong together"),
        (("--folder", "w", "--tls-cert", "no.pem", "--tls-key", "no.key"), 2, "No such file"),
        (("--folder", "w", "--tls-cert", "file", "--tls-key", "file"), 2, "is not PKCS#8"),
    ],
)
def test_a_start_that_cannot_be_says_why(
    cli: Cli, place: Path, listen: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    (place.parent / "file").write_text("")
    refused = cli("audit", "witness", "serve", "--listen", listen, *arguments)
    assert (refused.code, said in refused.err) == (code, True), refused.err
    assert not (cli.folder / "witness").exists()


def test_a_memory_that_was_changed_stops_the_start(cli: Cli, place: Path, listen: str) -> None:
    WitnessFolder(place).add(LOG.key)
    (folder,) = (place / "logs").iterdir()
    (folder / "checkpoint").write_text("nonsense")
    refused = cli("audit", "witness", "serve", "--listen", listen, "--folder", str(place))
    assert (refused.code, "cannot say what it has seen" in refused.err) == (1, True), refused.err
