"""What every place that upstream keys come from has in common, whoever puts them there."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.secret import Secret
from gateway.secrets.sealed import SealedFile
from gateway.secrets.sources import EnvironmentKeys, MountedKeys, variable
from gateway.secrets.store import NoSuchSecretError, ReadOnlyError, StoreUnavailableError, UpstreamKeys
from tenants.ids import InvalidIdError, OrgId
from tests.kit.vault import KINDS, vault_place

ACME, GLOBEX = OrgId("acme"), OrgId("globex")


class Place:
    """A source opened anew by `open`, and the hand that fills it: the store's own, or somebody else's."""

    def __init__(self, make: Callable[[], UpstreamKeys]) -> None:
        self._make = make
        self._opened: list[UpstreamKeys] = []

    def open(self) -> UpstreamKeys:
        self._opened.append(self._make())
        return self._opened[-1]

    async def write(self, org: OrgId, upstream: str, key: str) -> None:
        await self.open().put(org, upstream, Secret(key))

    async def remove(self, org: OrgId, upstream: str) -> None:
        await self.open().delete(org, upstream)

    async def aclose(self) -> None:
        for store in self._opened:
            await store.aclose()


class Folder(Place):
    def __init__(self, folder: Path) -> None:
        super().__init__(lambda: MountedKeys(folder))
        self._folder = folder
        self._clock = 1_800_000_000

    async def write(self, org: OrgId, upstream: str, key: str) -> None:
        file = self._folder / org / upstream
        file.parent.mkdir(exist_ok=True)
        file.write_text(key)
        self._clock += 1
        os.utime(file, (self._clock, self._clock))

    async def remove(self, org: OrgId, upstream: str) -> None:
        (self._folder / org / upstream).unlink()


class Environment(Place):
    def __init__(self) -> None:
        self._variables: dict[str, str] = {}
        super().__init__(lambda: EnvironmentKeys(self._variables))

    async def write(self, org: OrgId, upstream: str, key: str) -> None:
        self._variables[variable(org, upstream)] = key

    async def remove(self, org: OrgId, upstream: str) -> None:
        del self._variables[variable(org, upstream)]


@pytest.fixture(params=["sealed", "mounted", "environment", *(f"{kind} Vault" for kind in KINDS)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    match request.param:
        case "sealed":
            yield Place(lambda: SealedFile(tmp_path / "secrets.sealed", Secret(b"m" * 32)))
        case "mounted":
            yield Folder(tmp_path)
        case "environment":
            yield Environment()
        case kind:
            with vault_place(kind.split()[0], tmp_path) as server:
                vault = server.prepare(ACME, GLOBEX)
                made = Place(lambda: server.keys(vault))
                yield made
                await made.aclose()


async def test_what_was_put_there_is_read(place: Place) -> None:
    await place.write(ACME, "openai", "sk-1")
    found = await place.open().get(ACME, "openai")
    assert found.version >= 1
    assert found.secret.reveal() == b"sk-1"


async def test_what_never_was_there_is_absent(place: Place) -> None:
    with pytest.raises(NoSuchSecretError):
        await place.open().get(ACME, "openai")


async def test_an_open_reader_sees_what_is_put_there_next(place: Place, request: pytest.FixtureRequest) -> None:
    reader = place.open()
    seen = []
    for n in range(3):
        await place.write(ACME, "openai", f"sk-{n}")
        found = await reader.get(ACME, "openai")
        assert found.secret.reveal() == f"sk-{n}".encode()
        seen.append(found.version)
    if not isinstance(place, Environment):  # what a process has of it never changes
        assert seen == sorted(set(seen)), "each is a version of its own, and they count up"


async def test_what_was_taken_away_is_absent(place: Place) -> None:
    await place.write(ACME, "openai", "sk-1")
    reader = place.open()
    await reader.get(ACME, "openai")
    await place.remove(ACME, "openai")
    for store in (reader, place.open()):
        with pytest.raises(NoSuchSecretError):
            await store.get(ACME, "openai")


async def test_organizations_are_apart(place: Place) -> None:
    await place.write(ACME, "openai", "of-acme")
    with pytest.raises(NoSuchSecretError):
        await place.open().get(GLOBEX, "openai")
    await place.write(GLOBEX, "openai", "of-globex")
    assert (await place.open().get(ACME, "openai")).secret.reveal() == b"of-acme"


async def test_two_upstreams_are_apart(place: Place) -> None:
    await place.write(ACME, "openai", "sk-openai")
    await place.write(ACME, "openai-eu", "sk-eu")
    assert (await place.open().get(ACME, "openai")).secret.reveal() == b"sk-openai"
    with pytest.raises(NoSuchSecretError):
        await place.open().get(ACME, "eu")


@pytest.mark.parametrize(
    ("org", "name"), [("acme/upstreams/x", "y"), ("acme", "../globex"), ("acme", "a/b"), ("", "a"), ("..", "a")]
)
async def test_a_name_is_never_a_path(place: Place, org: str, name: str) -> None:
    with pytest.raises(InvalidIdError):
        await place.open().get(OrgId(org), name)


@pytest.mark.parametrize("key", ["", " \n", "sk\n1", "sk-ä", "x" * 8193, "{no json"])
async def test_what_others_put_there_is_judged(place: Place, key: str) -> None:
    if not isinstance(place, Folder | Environment):
        pytest.skip("the store judges what is put there itself")
    await place.write(ACME, "openai", key)
    with pytest.raises(StoreUnavailableError) as caught:
        await place.open().get(ACME, "openai")
    assert key.strip() == "" or key.strip() not in str(caught.value)


async def test_a_key_in_several_fields_may_be_spread_over_lines(place: Place) -> None:
    if not isinstance(place, Folder | Environment):
        pytest.skip("the admin API writes them on one line")
    await place.write(ACME, "bedrock", '{\n  "region": "us-east-1",\n  "service": "bedrock"\n}\n')
    found = await place.open().get(ACME, "bedrock")
    assert found.secret.reveal() == b'{"region":"us-east-1","service":"bedrock"}'


async def test_a_source_that_is_only_read_says_where_its_keys_come_from(place: Place) -> None:
    if not isinstance(place, Folder | Environment):
        pytest.skip("it is written")
    store = place.open()
    with pytest.raises(ReadOnlyError, match=r"openai|OPENAI"):
        await store.put(ACME, "openai", Secret("sk-1"))
    with pytest.raises(NoSuchSecretError):
        await store.delete(ACME, "openai")
    await place.write(ACME, "openai", "sk-1")
    with pytest.raises(ReadOnlyError):
        await store.delete(ACME, "openai")
    assert (await store.get(ACME, "openai")).secret.reveal() == b"sk-1"
