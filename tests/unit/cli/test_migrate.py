"""`orgate key migrate`: keys go over whole, it can be broken off, and none is lost. Against the fake."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.secret import Secret
from gateway.secrets.masterkey import read_master_key
from gateway.secrets.sealed import SealedFile
from gateway.secrets.store import NoSuchSecretError
from tenants.ids import PLATFORM, OrgId
from tenants.models import Org, Upstream
from tenants.sql.store import open_store, sqlite_url
from tenants.store import Actor
from tests.kit.vault import VaultPlace, vault_place
from tests.unit.cli.conftest import Cli

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
UPSTREAMS = ((ACME, "openai"), (ACME, "vllm"), (GLOBEX, "vllm"))


@pytest.fixture
def place(installed: Path, tmp_path: Path) -> Iterator[VaultPlace]:
    """A server that stands, with three upstreams; all but acme's second one have a key in the sealed file."""
    home = shutil.copytree(installed, tmp_path / "home")
    with vault_place("fake", home) as made:
        vault = made.prepare(ACME, GLOBEX)
        with (home / "orgate.toml").open("a", encoding="utf-8") as file:
            file.write(f'[vault]\naddress = "{vault.address}"\nmount = "{vault.mount}"\nrole = "{vault.role}"\n')
        asyncio.run(_populate(home))
        yield made


async def _populate(home: Path) -> None:
    store = await open_store(sqlite_url(home / "control.db"), clock=lambda: 1_800_000_000.0)
    by = Actor(org=PLATFORM, member="installer", client="test")
    await store.orgs.create(Org(id=GLOBEX, name="Globex"), by)
    for org, name in UPSTREAMS:
        await store.for_org(org).upstreams.create(
            Upstream(org=org, name=name, base_url="https://models.example"), by
        )
    await store.close()
    for org, name in UPSTREAMS:
        if (org, name) != (ACME, "vllm"):
            await sealed(home).put(org, name, Secret(f"sk-{org}-{name}"))


def sealed(home: Path) -> SealedFile:
    return SealedFile(home / "secrets.sealed", read_master_key("master.key", home))


def in_vault(place: VaultPlace, org: str, name: str) -> Any:
    answer = place.call("GET", f"{place.prefix}/data/orgs/{org}/upstreams/{name}")
    return answer.json()["data"]["data"]["key"] if answer.status_code == 200 else None


def move(cli: Cli, place: VaultPlace, *more: str, back: bool = False) -> Any:
    way = ("--from", "vault", "--to", "file") if back else ("--from", "file", "--to", "vault")
    return cli("key", "migrate", *way, "--settings", str(place.home / "orgate.toml"), "-o", "json", *more)


def outcomes(said: Any) -> list[str]:
    return [row["outcome"] for row in json.loads(said.out)]


def test_keys_are_copied_and_stay_where_they_were(cli: Cli, place: VaultPlace) -> None:
    said = move(cli, place)
    assert said.code == 0, said.err
    assert outcomes(said) == ["copied", "no key", "copied"]
    assert 'next: upstream_keys = "vault"' in said.err
    assert "sk-" not in said.out + said.err
    assert in_vault(place, "globex", "vllm") == "sk-globex-vllm"
    assert asyncio.run(sealed(place.home).get(ACME, "openai")).secret.reveal() == b"sk-acme-openai"


def test_broken_off_it_goes_on_where_it_was(cli: Cli, place: VaultPlace) -> None:
    assert place.fake is not None
    secret_id = place.home / "vault/globex.secret-id"
    kept = secret_id.read_bytes()
    secret_id.unlink()
    said = move(cli, place)
    assert (said.code, "vault-setup --org globex" in said.err, "goes on where it was" in said.err) == (
        1,
        True,
        True,
    )
    assert in_vault(place, "acme", "openai") == "sk-acme-openai"
    place.credential("globex", Secret(kept))
    assert outcomes(move(cli, place)) == ["already there", "no key", "copied"]


def test_cleared_is_only_what_was_verified(cli: Cli, place: VaultPlace) -> None:
    said = move(cli, place, "--clear")
    assert said.code == 0, said.err
    assert "keys cleared from file: 2" in said.err
    for org, name in UPSTREAMS:
        with pytest.raises(NoSuchSecretError):
            asyncio.run(sealed(place.home).get(org, name))
    assert asyncio.run(sealed(place.home).load("signing/keys")) is not None
    back = move(cli, place, back=True)
    assert outcomes(back) == ["copied", "no key", "copied"]
    assert asyncio.run(sealed(place.home).get(ACME, "openai")).secret.reveal() == b"sk-acme-openai"


def test_another_key_in_its_place_is_left_for_a_person(cli: Cli, place: VaultPlace) -> None:
    path = f"{place.prefix}/data/orgs/acme/upstreams/openai"
    place.call("POST", path, {"data": {"key": "sk-other"}})
    said = move(cli, place, "--clear")
    assert said.code == 1
    assert outcomes(said) == ["another key is there", "no key", "copied"]
    assert "nothing was cleared" in said.err
    assert in_vault(place, "acme", "openai") == "sk-other"
    for org, name in ((ACME, "openai"), (GLOBEX, "vllm")):
        assert asyncio.run(sealed(place.home).get(org, name)).secret.reveal() == f"sk-{org}-{name}".encode()


def test_a_server_that_runs_is_not_migrated(cli: Cli, place: VaultPlace) -> None:
    lock = place.home / "run/serve.lock"
    lock.parent.mkdir()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = move(cli, place)
    assert (said.code, "stop it first" in said.err) == (1, True)
    assert in_vault(place, "acme", "openai") is None


@pytest.mark.parametrize("way", [("file", "file"), ("vault", "vault"), ("here", "there")])
def test_both_stores_must_be_named(cli: Cli, place: VaultPlace, way: tuple[str, str]) -> None:
    argv = ("--from", way[0], "--to", way[1], "--settings", str(place.home / "orgate.toml"))
    said = cli("key", "migrate", *argv)
    assert (said.code, "--from file --to vault" in said.err) == (2, True)
