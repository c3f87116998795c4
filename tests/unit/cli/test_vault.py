"""`orgate key vault-setup`: what it shows, what it writes, what it refuses. Against the fake, over a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.doctor import FAILED, OK, WARNING, examine
from tests.fakes.vault import ROOT, FakeVault
from tests.kit.ports import free_port
from tests.unit.cli.conftest import Cli


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVault]:
    for name in ("VAULT_TOKEN", "BAO_TOKEN", "VAULT_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with FakeVault() as vault:
        yield vault


def settings(folder: Path, address: str, *more: str) -> str:
    file = folder / "orgate.toml"
    lines = ['[secrets]\nupstream_keys = "vault"\n[vault]', f'address = "{address}"', *more]
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def test_shown_are_the_commands_of_vault_and_nothing_is_written(cli: Cli, fake: FakeVault, tmp_path: Path) -> None:
    said = cli("key", "vault-setup", "--org", "acme", "--settings", settings(tmp_path, fake.address))
    assert said.code == 0
    assert "vault secrets enable -path=orgate -version=2 kv" in said.out
    assert "vault auth enable -path=approle approle" in said.out
    assert "vault policy write orgate-acme - <<'EOF'" in said.out
    assert "vault write auth/approle/role/orgate-acme/role-id role_id=orgate-acme" in said.out
    assert "nothing was written" in said.err
    assert fake.seen == []


def test_json_has_each_write(cli: Cli, fake: FakeVault, tmp_path: Path) -> None:
    said = cli("key", "vault-setup", "--org", "acme", "--settings", settings(tmp_path, fake.address), "-o", "json")
    assert [row["what"] for row in json.loads(said.out)][:3] == [
        "the KV v2 engine",
        "the auth method",
        "the policy",
    ]


def test_applied_it_is_tried_and_can_be_repeated(cli: Cli, fake: FakeVault, tmp_path: Path) -> None:
    argv = ("key", "vault-setup", "--org", "acme", "--apply", "--settings", settings(tmp_path, fake.address))
    said = cli(*argv, stdin=ROOT + "\n")
    assert said.code == 0, said.err
    assert "tried: orgate-acme logs in" in said.err
    file = tmp_path / "vault/acme.secret-id"
    assert file.stat().st_mode & 0o777 == 0o600
    secret_id = file.read_text()
    assert secret_id.strip() not in said.out + said.err
    again = cli(*argv, stdin=ROOT + "\n")
    assert "kept" in again.err
    assert file.read_text() == secret_id
    assert cli(*argv, "--new-secret-id", stdin=ROOT + "\n").code == 0
    assert file.read_text() != secret_id


def test_the_token_may_be_in_the_environment(
    cli: Cli, fake: FakeVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", ROOT)
    assert (
        cli("key", "vault-setup", "--org", "acme", "--apply", "--settings", settings(tmp_path, fake.address)).code
        == 0
    )


def test_a_wrapped_secret_id_is_left_for_the_gateway(cli: Cli, fake: FakeVault, tmp_path: Path) -> None:
    file = settings(tmp_path, fake.address, "wrapped = true")
    argv = ("key", "vault-setup", "--org", "acme", "--apply", "--settings", file)
    refused = cli(*argv, stdin=ROOT + "\n")
    assert (refused.code, "--wrap 1h" in refused.err) == (2, True)
    assert cli(*argv, "--wrap", "60s", stdin=ROOT + "\n").code == 0
    assert not fake.calls("/unwrap")
    assert (tmp_path / "vault/acme.secret-id").read_text().startswith("s.")


@pytest.mark.parametrize(
    ("token", "code", "words"),
    [
        ("", 2, "no Vault token was given"),
        ("s.nobody", 1, "denies permission"),
        ("s.no body", 2, "that is no Vault token"),
    ],
)
def test_without_an_administrator_s_token_nothing_is_set_up(
    cli: Cli, fake: FakeVault, tmp_path: Path, token: str, code: int, words: str
) -> None:
    argv = ("key", "vault-setup", "--org", "acme", "--apply", "--settings", settings(tmp_path, fake.address))
    said = cli(*argv, stdin=token + "\n")
    assert (said.code, words in said.err) == (code, True), said.err


def test_bad_calls_say_what_is_missing(cli: Cli, fake: FakeVault, tmp_path: Path) -> None:
    file = settings(tmp_path, fake.address)
    for argv, words in (
        (("--settings", file), "which organization's keys?"),
        (("--org", "acme", "--settings", str(tmp_path / "none.toml")), "cannot be read"),
        (("--org", "../x", "--settings", file), "--org '../x'"),
        (("--org", "acme", "--settings", file, "--wrap", "1h"), "vault.wrapped is false"),
    ):
        said = cli("key", "vault-setup", *argv)
        assert (said.code, words in said.err) == (2, True), said.err
    file = settings(tmp_path, fake.address, 'auth = "kubernetes"')
    said = cli("key", "vault-setup", "--org", "acme", "--settings", file)
    assert (said.code, "--service-account" in said.err) == (2, True)
    said = cli("key", "vault-setup", "--org", "acme", "--settings", file, "--new-secret-id")
    assert said.code == 2


def test_nobody_at_the_address_is_unreachable(cli: Cli, fake: FakeVault, tmp_path: Path) -> None:
    file = settings(tmp_path, f"http://127.0.0.1:{free_port()}")
    said = cli("key", "vault-setup", "--org", "acme", "--apply", "--settings", file, stdin=ROOT + "\n")
    assert (said.code, "no connection" in said.err) == (4, True)


def test_the_doctor_looks_at_vault(fake: FakeVault, tmp_path: Path) -> None:
    def result() -> str:
        return next(finding.result for finding in examine(file) if finding.check == "vault")

    file = Path(settings(tmp_path, fake.address))
    assert result() == OK
    fake.sealed = True
    assert result() == FAILED
    fake.sealed = False
    file = Path(settings(tmp_path, fake.address, 'auth = "token"', 'credential = "t"'))
    assert result() == WARNING
