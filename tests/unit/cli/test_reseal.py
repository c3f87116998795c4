"""`orgate key reseal` and `orgate key unwrap`: the sealed file under another key, and out of its envelopes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.secret import Secret
from gateway.secrets.envelope import EnvelopeSecrets, is_envelope
from gateway.secrets.masterkey import read_master_key
from gateway.secrets.sealed import SealedFile
from gateway.secrets.store import StoreUnavailableError
from gateway.secrets.transit import Transit
from tenants.ids import PLATFORM, OrgId
from tests.kit.vault import VaultPlace, vault_place
from tests.unit.cli.conftest import Cli

ACME = OrgId("acme")


@pytest.fixture
def home(installed: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(installed, tmp_path / "home")
    asyncio.run(sealed(folder, "master.key").put(ACME, "openai", Secret("sk-planted")))
    return folder


def sealed(home: Path, source: str) -> SealedFile:
    return SealedFile(home / "secrets.sealed", read_master_key(source, home))


def run(cli: Cli, home: Path, *words: str) -> Any:
    return cli("key", *words, "--settings", str(home / "orgate.toml"))


def test_a_passphrase_takes_the_place_of_the_key_file(cli: Cli, home: Path) -> None:
    (home / "phrase").write_text("correct horse battery staple\n")
    (home / "phrase").chmod(0o600)
    said = run(cli, home, "reseal", "--to", "passphrase:phrase")
    assert said.code == 0, said.err
    assert 'next: master_key = "passphrase:phrase" under [secrets]' in said.err
    assert "battery" not in said.out + said.err
    found = asyncio.run(sealed(home, "passphrase:phrase").get(ACME, "openai"))
    assert found.secret.reveal() == b"sk-planted"
    assert asyncio.run(sealed(home, "passphrase:phrase").load("signing/keys")) is not None
    with pytest.raises(StoreUnavailableError, match="sealed with a passphrase"):
        asyncio.run(sealed(home, "master.key").get(ACME, "openai"))


def test_a_new_key_file_is_made(cli: Cli, home: Path) -> None:
    assert run(cli, home, "reseal", "--to", "new.key").code == 0
    assert asyncio.run(sealed(home, "new.key").get(ACME, "openai")).secret.reveal() == b"sk-planted"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("env:KEY", "a key file or a passphrase"),
        ("passphrase:prompt", "there is no terminal"),
        ("passphrase:absent", "cannot be opened"),
    ],
)
def test_what_cannot_seal_it_changes_nothing(cli: Cli, home: Path, target: str, says: str) -> None:
    before = (home / "secrets.sealed").read_bytes()
    said = run(cli, home, "reseal", "--to", target)
    assert said.code != 0
    assert says in said.err
    assert (home / "secrets.sealed").read_bytes() == before


def test_a_short_passphrase_changes_nothing(cli: Cli, home: Path) -> None:
    (home / "phrase").write_text("short\n")
    (home / "phrase").chmod(0o600)
    before = (home / "secrets.sealed").read_bytes()
    said = run(cli, home, "reseal", "--to", "passphrase:phrase")
    assert said.code == 1
    assert "needs 12 characters" in said.err
    assert (home / "secrets.sealed").read_bytes() == before


@pytest.fixture
def place(home: Path) -> Iterator[VaultPlace]:
    with vault_place("fake", home) as made:
        vault = made.prepare(PLATFORM)
        with (home / "orgate.toml").open("a", encoding="utf-8") as file:
            file.write(f'[vault]\naddress = "{vault.address}"\nrole = "{vault.role}"\n')

        async def wrap() -> None:
            inner = sealed(home, "master.key")
            transit = Transit(vault, home, inner, lambda: 0.0)
            await EnvelopeSecrets(inner, transit).load("signing/keys")
            await transit.aclose()

        asyncio.run(wrap())
        yield made


def test_envelopes_are_opened_for_good(cli: Cli, home: Path, place: VaultPlace) -> None:
    assert place.fake is not None
    wrapped = asyncio.run(sealed(home, "master.key").load("signing/keys"))
    assert wrapped is not None
    assert is_envelope(wrapped)
    place.fake.sealed = True
    said = run(cli, home, "unwrap")
    assert said.code == 1
    assert "sealed" in said.err
    place.fake.sealed = False
    said = run(cli, home, "unwrap")
    assert said.code == 0, said.err
    assert "taken out of their envelopes: 1" in said.err
    plain = asyncio.run(sealed(home, "master.key").load("signing/keys"))
    assert plain is not None
    assert not is_envelope(plain)
