"""The settings of witnesses and publication: faults are told before anything starts, each with its key."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.cosignature import key_of
from gateway.settings import Settings, SettingsError, load, validated
from gateway.witness_files import WitnessSettingsError, read_ca, read_policies
from tests.fakes.audit import ACME, SIGNER
from tests.kit.certs import make_pki

KEY = key_of("w1.example", Ed25519PrivateKey.from_private_bytes(bytes(32)))


def settings(home: Path, **audit: object) -> Settings:
    return validated({"home": home, "audit": audit})


def policy(home: Path, text: str) -> Settings:
    (home / "policy").write_text(text)
    return settings(home, witness_policy="policy")


def test_nothing_is_asked_of_anybody_by_default(tmp_path: Path) -> None:
    plain = settings(tmp_path)
    assert not read_policies(plain)
    assert read_ca(plain) == ""


@pytest.mark.parametrize(
    "url", ["https://w1.example", "https://w1.example:8446/w/1/", "http://127.0.0.1:8446", "http://[::1]:1/"]
)
def test_a_policy_names_witnesses_and_where_they_are(tmp_path: Path, url: str) -> None:
    found = read_policies(policy(tmp_path, f"witness w1 {KEY} {url}\nquorum w1\n"))
    assert found
    assert found.of("acme").witnesses[0].url == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quorum none\n", "names no witness"),
        (f"witness w1 {KEY}\nquorum w1\n", "witness w1 has no URL"),
        (f"witness w1 {KEY} http://w1.example\nquorum w1\n", "without TLS"),
        (f"witness w1 {KEY} ftp://w1.example\nquorum w1\n", "URL that is none"),
        (f"witness w1 {KEY} https://me:secret@w1.example\nquorum w1\n", "URL that is none"),
        (f"witness w1 {KEY} https://w1.example:x/\nquorum w1\n", "URL that is none"),
        (f"witness w1 {KEY} https://w1.example/?a\nquorum w1\n", "URL that is none"),
        (f"log {SIGNER.key(ACME)}\nwitness w1 {KEY} https://w1.example\nquorum w1\n", "lists a log"),
        (f"witness w1 {KEY} https://w1.example\n\nquorum w2\n", "line 3: 'w2' is no witness"),
    ],
)
def test_a_policy_that_cannot_be_used_says_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(WitnessSettingsError, match="witness_policy") as caught:
        read_policies(policy(tmp_path, text))
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_authorities_of_witnesses_are_read(tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "tls")
    assert read_ca(settings(tmp_path, witness_ca=str(pki.files.ca))) == pki.ca_pem
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(WitnessSettingsError, match="no certificate"):
        read_ca(settings(tmp_path, witness_ca="ca.pem"))
    (tmp_path / "ca.pem").write_bytes(b"\xff")
    with pytest.raises(WitnessSettingsError, match="cannot be read"):
        read_ca(settings(tmp_path, witness_ca="ca.pem"))


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    wrong = {
        "witness_policy": "nowhere",
        "witness_ca": "nowhere.pem",
        "publish_file": "nowhere/checkpoints",
        "publish_git": "nowhere.git",
    }
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, **wrong)
    assert {key for key, *_ in caught.value.faults} == {f"audit.{key}" for key in wrong}
    with pytest.raises(SettingsError, match="has no repository"):
        settings(tmp_path, publish_git_remote="origin")
    with pytest.raises(SettingsError, match="name of a remote"):
        settings(tmp_path, publish_git_remote="--upload-pack=x")


def test_they_are_set_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "orgate.toml").write_text("[audit]\npublish_every_s = 60\n")
    found = load(tmp_path / "orgate.toml", {"ORGATE_AUDIT__PUBLISH_WEBHOOK": "true"})
    assert (found.audit.publish_every_s, found.audit.publish_webhook) == (60, True)


def test_each_organization_may_have_a_policy_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    found = settings(tmp_path, witness_policy="policies")
    with pytest.raises(WitnessSettingsError, match="holds no policy"):
        read_policies(found)
    (folder / "acme.policy").write_text(f"witness mine {KEY} https://w1.example\nquorum mine\n")
    (folder / "notes.txt").write_text("not read")
    assert read_policies(found).of("acme").quorum == "mine"
    assert read_policies(found).of("globex").witnesses == ()
    (folder / "_default.policy").write_text(f"witness all {KEY} https://w1.example\nquorum none\n")
    assert read_policies(found).of("globex").witnesses[0].name == "all"
    (folder / "A c.policy").write_text("")
    with pytest.raises(WitnessSettingsError, match="no organization"):
        read_policies(found)
