"""`orgate doctor` looks at the policy of witnesses, and asks each of them."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.cosignature import key_of
from gateway.witness.folder import WitnessFolder, make
from gateway.witness.protocol import Witness
from tests.kit.ports import free_port
from tests.kit.receiver import Receiver, receiving
from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_doctor_sources import findings, home

__all__ = ["home"]  # a fixture


def policy(home: Path, *urls: str) -> None:
    text = (home / "orgate.toml").read_text()
    if "witness_policy" not in text:
        (home / "orgate.toml").write_text(text.replace("[audit]\n", '[audit]\nwitness_policy = "policy"\n'))
    keys = [key_of("w", Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in range(len(urls))]
    lines = [f"witness w{n} {keys[n]} {url}\n" for n, url in enumerate(urls)]
    (home / "policy").write_text("".join(lines) + "quorum w0\n")


def test_each_witness_is_asked(cli: Cli, home: Path, tmp_path: Path) -> None:
    make(tmp_path / "w", "w")
    refusal = Witness(WitnessFolder(tmp_path / "w"), lambda: 0).judge(b"old 0\n")
    assert refusal.status == 400
    with receiving() as one, receiving() as other:
        _answer(one, refusal.status)
        _answer(other, 302)
        away = f"http://127.0.0.1:{free_port()}"
        policy(home, one.url, other.url, away)
        found = findings(cli, home)
    assert found["witness w0"] == ("ok", f"{one.url} answers")
    assert found["witness w1"] == ("warning", f"{other.url} answers status 302: it is no witness")
    assert found["witness w2"] == ("warning", f"{away}: it cannot be reached")


def test_a_policy_that_cannot_be_read_fails(cli: Cli, home: Path) -> None:
    policy(home, "http://127.0.0.1:1")
    (home / "policy").write_text("quorum w\n")
    result, seen = findings(cli, home)["witnesses"]
    assert result == "failed"
    assert "line 1: 'w' is no witness" in seen


def _answer(receiver: Receiver, status: int) -> None:
    receiver.statuses.append(status)
