"""`[vault]` is judged when it is used, and all that does not fit together is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import SettingsError, load

VAULT = '[secrets]\nupstream_keys = "vault"\n[vault]\n'


def faults(folder: Path, text: str) -> dict[str, str]:
    file = folder / "orgate.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    return {key: wrong for key, wrong, _ in caught.value.faults}


def sound(folder: Path, text: str) -> None:
    file = folder / "orgate.toml"
    file.write_text(text)
    load(file, {})


def test_without_vault_nothing_of_it_is_asked_for(tmp_path: Path) -> None:
    sound(tmp_path, "")
    sound(tmp_path, '[vault]\nauth = "jwt"\n')


@pytest.mark.parametrize(
    "address",
    [
        "https://vault.example",
        "https://v:8200/",
        "http://127.0.0.1:8200",
        "http://localhost:8200",
        "http://[::1]:8200",
    ],
)
def test_addresses_that_are_taken(tmp_path: Path, address: str) -> None:
    sound(tmp_path, f'{VAULT}address = "{address}"\n')


@pytest.mark.parametrize(
    "address",
    [
        "vault.example:8200",
        "ftp://v",
        "https://",
        "https://u:p@v",
        "https://v/v1",
        "https://v?x",
        "https://v:0",
        "https://v:x",
    ],
)
def test_addresses_that_are_none(tmp_path: Path, address: str) -> None:
    assert "vault.address" in faults(tmp_path, f'{VAULT}address = "{address}"\n')


def test_a_missing_authority_is_told_at_the_start(tmp_path: Path) -> None:
    text = f'{VAULT}address = "https://v"\nca = "ca.pem"\n'
    assert str(tmp_path / "ca.pem") in faults(tmp_path, text)["vault.ca"]
    (tmp_path / "ca.pem").touch()
    sound(tmp_path, text)


@pytest.mark.parametrize("host", ["vault.example", "10.0.0.7", "128.0.0.1", "localhost.example"])
def test_plain_http_to_another_machine_is_refused_unless_allowed(tmp_path: Path, host: str) -> None:
    text = f'{VAULT}address = "http://{host}:8200"\n'
    assert "plain http" in faults(tmp_path, text)["vault.address"]
    sound(tmp_path, text + "allow_http = true\n")


def test_everything_that_does_not_fit_is_told_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, VAULT + 'role = "orgate"\ncredential = "secret-id"\n')
    assert set(found) == {"vault.address", "vault.role", "vault.credential"}
    found = faults(tmp_path, VAULT + 'auth = "jwt"\nwrapped = true\naddress = "http://v"\n')
    assert set(found) == {"vault.address", "vault.credential", "vault.wrapped"}
    assert set(faults(tmp_path, VAULT + 'auth = "token"\naddress = "https://v"\n')) == {"vault.credential"}


@pytest.mark.parametrize("path", ["../sys", "a/../b", "a//b", "", "a b", "a?x", "a#b", "ключ", "%2e%2e"])
def test_a_path_never_leads_out_of_itself(tmp_path: Path, path: str) -> None:
    found = faults(tmp_path, f'{VAULT}address = "https://v"\nmount = "{path}"\nrole = "{path}/{{org}}"\n')
    assert {"vault.mount", "vault.role"} >= set(found) >= {"vault.mount"}


def test_what_was_given_is_not_a_secret_that_is_shown(tmp_path: Path) -> None:
    found = faults(tmp_path, f'{VAULT}address = "https://user:hunter2@vault.example"\n')
    assert "hunter2" not in str(found)
