"""Transit as the gateway uses it, answer by answer: on the fake, and on a real server when there is one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway.errors import UnavailableError
from gateway.secret import Secret
from gateway.secrets.sealed import SealedFile
from gateway.secrets.store import StoreUnavailableError
from gateway.secrets.transit import Transit
from tenants.ids import PLATFORM
from tests.contract.vault_places import place as place  # noqa: PLC0414 - a fixture
from tests.kit.vault import VaultPlace


def prepare(place: VaultPlace, **more: Any) -> Any:
    """A Transit engine of the test's own, and the platform's role."""
    return place.prepare(PLATFORM, transit_mount=f"{place.prefix}-transit", **more)


def transit_of(place: VaultPlace, vault: Any) -> Transit:
    return Transit(vault, place.home, SealedFile(place.home / "secrets.sealed", Secret(b"m" * 32)), time.monotonic)


@pytest.fixture
async def transit(place: VaultPlace) -> AsyncIterator[Transit]:
    made = transit_of(place, prepare(place))
    yield made
    await made.aclose()


def key(place: VaultPlace, *rest: str) -> str:
    return "/".join((f"{place.prefix}-transit/keys", *rest))


async def test_what_is_wrapped_is_unwrapped(transit: Transit) -> None:
    wrapped = await transit.encrypt(Secret(b"\x00key\xff"))
    assert wrapped.startswith("vault:v1:")
    assert (await transit.decrypt(wrapped)).reveal() == b"\x00key\xff"
    assert await transit.encrypt(Secret(b"\x00key\xff")) != wrapped


async def test_a_newer_version_wraps_and_the_older_one_still_opens(transit: Transit, place: VaultPlace) -> None:
    wrapped = await transit.encrypt(Secret(b"one"))
    assert (await transit.rewrap(wrapped)).startswith("vault:v1:")
    assert place.call("POST", key(place, "orgate", "rotate")).status_code in (200, 204)
    assert (await transit.decrypt(wrapped)).reveal() == b"one"
    again = await transit.rewrap(wrapped)
    assert again.startswith("vault:v2:")
    place.call("POST", key(place, "orgate", "config"), {"min_decryption_version": 2})
    assert (await transit.decrypt(again)).reveal() == b"one"
    with pytest.raises(StoreUnavailableError, match="too old"):
        await transit.decrypt(wrapped)


@pytest.mark.parametrize("wrapped", ["", "vault:v1:AAAA", "nonsense", "vault:v9:AAAA"])
async def test_what_was_never_wrapped_is_refused(transit: Transit, wrapped: str) -> None:
    with pytest.raises(StoreUnavailableError):
        await transit.decrypt(wrapped)


async def test_a_signature_is_rs256_of_the_published_version(transit: Transit, place: VaultPlace) -> None:
    place.call("POST", key(place, "orgate-signing", "rotate"))
    versions = await transit.versions()
    assert [version.number for version in versions] == [1, 2]
    assert all(abs(version.created_at - time.time()) < 600 for version in versions)
    for version in versions:
        public = load_pem_public_key(version.pem.encode())
        assert isinstance(public, RSAPublicKey)
        public.verify(await transit.sign(version.number, b"header.claims"), b"header.claims", PKCS1v15(), SHA256())
    with pytest.raises(UnavailableError):
        await transit.sign(3, b"header.claims")


async def test_the_role_may_use_the_keys_and_nothing_else(transit: Transit, place: VaultPlace) -> None:
    await transit.encrypt(Secret(b"x"))
    token = transit._token
    assert token is not None
    bearer = token.value.reveal().decode()
    mount = f"{place.prefix}-transit"
    for method, path in (
        ("GET", f"{mount}/export/encryption-key/orgate"),
        ("GET", f"{mount}/keys/orgate"),
        ("POST", f"{mount}/keys/orgate/config"),
        ("POST", f"{mount}/keys/orgate/rotate"),
        ("DELETE", f"{mount}/keys/orgate"),
        ("POST", f"{mount}/keys/other"),
        ("POST", f"{mount}/encrypt/orgate-signing"),
        ("POST", f"{mount}/sign/orgate-signing/sha2-512"),
        ("GET", f"{place.prefix}/data/orgs/acme/upstreams/openai"),
    ):
        assert place.call(method, path, {} if method == "POST" else None, token=bearer).status_code == 403, path


async def test_an_organization_s_role_may_not_use_them(place: VaultPlace) -> None:
    vault = prepare(place)
    place.prepare("acme", transit_mount=f"{place.prefix}-transit")
    (place.home / "vault/platform.secret-id").write_bytes((place.home / "vault/acme.secret-id").read_bytes())
    stolen = transit_of(place, vault.model_copy(update={"role": vault.role.replace("{org}", "acme")}))
    with pytest.raises(StoreUnavailableError, match="403"):
        await stolen.encrypt(Secret(b"x"))
    await stolen.aclose()


async def test_sealed_it_fails_at_once_and_then_goes_on(transit: Transit, place: VaultPlace) -> None:
    wrapped = await transit.encrypt(Secret(b"one"))
    with place.sealed():
        with pytest.raises(StoreUnavailableError, match="sealed"):
            await transit.decrypt(wrapped)
        with pytest.raises(UnavailableError, match="sealed"):
            await transit.sign(1, b"x")
    assert (await transit.decrypt(wrapped)).reveal() == b"one"


async def test_a_token_that_was_revoked_is_replaced(transit: Transit, place: VaultPlace) -> None:
    wrapped = await transit.encrypt(Secret(b"one"))
    token = transit._token
    assert token is not None
    place.call("POST", "auth/token/revoke-self", token=token.value.reveal().decode())
    assert (await transit.decrypt(wrapped)).reveal() == b"one"
    assert transit._token is not token


async def test_a_wrapped_secret_id_is_unwrapped_once(place: VaultPlace) -> None:
    vault = prepare(place, wrap="300s", wrapped=True)
    for _ in range(2):
        transit = transit_of(place, vault)
        assert (await transit.encrypt(Secret(b"x"))).startswith("vault:v1:")
        await transit.aclose()


async def test_the_token_is_given_back(place: VaultPlace) -> None:
    transit = transit_of(place, prepare(place))
    await transit.encrypt(Secret(b"x"))
    token = transit._token
    assert token is not None
    await transit.aclose()
    bearer = token.value.reveal().decode()
    assert place.call("GET", "auth/token/lookup-self", token=bearer).status_code == 403


async def test_an_engine_or_key_that_is_not_there_is_a_fault(place: VaultPlace) -> None:
    vault = prepare(place)
    for field in ("transit_mount", "transit_key"):
        transit = transit_of(place, vault.model_copy(update={field: "absent"}))
        with pytest.raises(StoreUnavailableError):
            await transit.encrypt(Secret(b"x"))
        await transit.aclose()
