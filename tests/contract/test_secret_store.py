"""One suite for every secret store. A backend is a factory: called again, it opens the same store anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.secret import Secret
from gateway.secrets.sealed import SealedFile
from gateway.secrets.store import NoSuchSecretError, UpstreamKeys
from tenants.ids import InvalidIdError, OrgId
from tests.kit.vault import KINDS, vault_place

ACME, GLOBEX = OrgId("acme"), OrgId("globex")


Open = Callable[[], UpstreamKeys]


def _sealed(folder: Path) -> SealedFile:
    return SealedFile(folder / "secrets.sealed", Secret(b"m" * 32))


@pytest.fixture(params=["sealed", *(f"{kind} Vault" for kind in KINDS)])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """The same store, opened anew at each call."""
    if request.param == "sealed":
        yield lambda: _sealed(tmp_path)
        return
    opened = []
    with vault_place(request.param.split()[0], tmp_path) as place:
        vault = place.prepare(ACME, GLOBEX)

        def open_one() -> UpstreamKeys:
            opened.append(place.keys(vault))
            return opened[-1]

        yield open_one
        for store in opened:
            await store.aclose()


async def test_a_key_reads_back_with_its_version(reopen: Open) -> None:
    store = reopen()
    assert await store.put(ACME, "openai", Secret("sk-1")) == 1
    assert await store.put(ACME, "openai", Secret("sk-2")) == 2
    found = await reopen().get(ACME, "openai")
    assert (found.version, found.secret.reveal()) == (2, b"sk-2")


async def test_what_was_never_stored_is_absent(reopen: Open) -> None:
    with pytest.raises(NoSuchSecretError):
        await reopen().get(ACME, "openai")
    with pytest.raises(NoSuchSecretError):
        await reopen().delete(ACME, "openai")


async def test_organizations_are_apart(reopen: Open) -> None:
    store = reopen()
    await store.put(ACME, "openai", Secret("of-acme"))
    with pytest.raises(NoSuchSecretError):
        await store.get(GLOBEX, "openai")
    await store.put(GLOBEX, "openai", Secret("of-globex"))
    await store.delete(GLOBEX, "openai")
    assert (await store.get(ACME, "openai")).secret.reveal() == b"of-acme"


async def test_a_deleted_key_is_gone_and_its_version_is_spent(reopen: Open) -> None:
    store = reopen()
    first = await store.put(ACME, "openai", Secret("sk-1"))
    await store.delete(ACME, "openai")
    for reader in (store, reopen()):
        with pytest.raises(NoSuchSecretError):
            await reader.get(ACME, "openai")
        with pytest.raises(NoSuchSecretError):
            await reader.delete(ACME, "openai")
    assert await store.put(ACME, "openai", Secret("sk-3")) > first


async def test_a_reader_sees_the_writer_s_next_version(reopen: Open) -> None:
    writer, reader = reopen(), reopen()
    for n in range(1, 6):
        await writer.put(ACME, "openai", Secret(f"sk-{n}"))
        assert (await reader.get(ACME, "openai")).secret.reveal() == f"sk-{n}".encode()


async def test_writers_take_turns(reopen: Open) -> None:
    stores = [reopen() for _ in range(4)]
    versions = await asyncio.gather(
        *(store.put(ACME, "openai", Secret(f"sk-{n}")) for n in range(5) for store in stores)
    )
    assert sorted(versions) == list(range(1, 21))


async def test_system_secrets_are_replaced_whole(tmp_path: Path) -> None:
    store = _sealed(tmp_path)
    assert await store.load("signing/keys") is None
    await store.store("signing/keys", Secret(b"\x00one\xff"))
    await store.store("refresh/hmac", Secret(b"other"))
    await store.store("signing/keys", Secret(b"two"))
    found = await _sealed(tmp_path).load("signing/keys")
    assert found is not None
    assert found.reveal() == b"two"


async def test_an_empty_key_is_a_mistake(reopen: Open) -> None:
    with pytest.raises(ValueError, match="empty"):
        await reopen().put(ACME, "openai", Secret(b""))


@pytest.mark.parametrize(
    ("org", "name"), [("acme/upstreams/x", "y"), ("acme", "../globex"), ("acme", "a/b"), ("", "a")]
)
async def test_a_name_is_never_a_path(reopen: Open, org: str, name: str) -> None:
    with pytest.raises(InvalidIdError):
        await reopen().put(OrgId(org), name, Secret("sk"))
    with pytest.raises(InvalidIdError):
        await reopen().get(OrgId(org), name)


async def test_a_rotation_keeps_the_key_before_until_it_is_told_to_forget_it(reopen: Open) -> None:
    store = reopen()
    for number in (1, 2):
        assert await store.put(ACME, "openai", Secret(f"sk-{number}")) == number
    with pytest.raises(NoSuchSecretError):
        await store.get_before(ACME, "openai", 2)
    assert await store.put(ACME, "openai", Secret("sk-3"), keep=True) == 3
    kept = await reopen().get_before(ACME, "openai", 3)
    assert (kept.version, kept.secret.reveal()) == (2, b"sk-2")
    assert (await reopen().get(ACME, "openai")).secret.reveal() == b"sk-3"
    assert await store.put(ACME, "openai", Secret("sk-4"), keep=True) == 4
    assert (await reopen().get_before(ACME, "openai", 4)).secret.reveal() == b"sk-3"
    for version in (2, 3):
        with pytest.raises(NoSuchSecretError):
            await store.get_before(ACME, "openai", version)
    for _ in range(2):
        await store.forget_before(ACME, "openai", 4)
        with pytest.raises(NoSuchSecretError):
            await reopen().get_before(ACME, "openai", 4)
    assert (await reopen().get(ACME, "openai")).secret.reveal() == b"sk-4"


@pytest.mark.parametrize("then", ["put", "delete"])
async def test_nothing_is_kept_beyond_the_next_put_or_a_delete(reopen: Open, then: str) -> None:
    store = reopen()
    await store.put(ACME, "openai", Secret("sk-1"))
    await store.put(ACME, "openai", Secret("sk-2"), keep=True)
    if then == "put":
        newest = await store.put(ACME, "openai", Secret("sk-3"))
    else:
        await store.delete(ACME, "openai")
        newest = await store.put(ACME, "openai", Secret("sk-3"), keep=True)
    for version in range(2, newest + 1):
        with pytest.raises(NoSuchSecretError):
            await reopen().get_before(ACME, "openai", version)
    with pytest.raises(NoSuchSecretError):
        await store.get_before(GLOBEX, "openai", newest)
