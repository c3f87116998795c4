"""The platform's secrets in envelopes: unwrapped once, wrapped anew, and nothing lost while Vault is away."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.secret import Secret
from gateway.secrets.envelope import BareSecrets, EnvelopeSecrets, WrappingError, is_envelope, unwrap_all
from gateway.secrets.sealed import SealedFile
from gateway.secrets.store import StoreUnavailableError


class Key:
    """A wrapping key with versions, that can be away. Counts what it is asked."""

    wrapping_key = "transit/orgate"

    def __init__(self) -> None:
        self.version = 1
        self.away = False
        self.asked: list[str] = []

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.away:
            raise StoreUnavailableError("the server at https://vault is sealed or down (503: Vault is sealed)")

    async def encrypt(self, plain: Secret) -> str:
        self._ask("encrypt")
        return f"vault:v{self.version}:{plain.reveal()[::-1].hex()}"

    async def decrypt(self, wrapped: str) -> Secret:
        self._ask("decrypt")
        return Secret(bytes.fromhex(wrapped.split(":")[2])[::-1])

    async def rewrap(self, wrapped: str) -> str:
        self._ask("rewrap")
        return f"vault:v{self.version}:{wrapped.split(':')[2]}"


@pytest.fixture
def inner(tmp_path: Path) -> SealedFile:
    return SealedFile(tmp_path / "secrets.sealed", Secret(b"m" * 32))


async def text(store: Any, name: str) -> bytes | None:
    found = await store.load(name)
    return found.reveal() if found is not None else None


async def test_what_is_stored_lies_in_an_envelope_and_comes_out_of_it(inner: SealedFile) -> None:
    key = Key()
    await EnvelopeSecrets(inner, key).store("signing/keys", Secret(b"\x00private\xff"))
    lies = await inner.load("signing/keys")
    assert lies is not None
    assert is_envelope(lies)
    assert b"private" not in lies.reveal()
    assert await text(EnvelopeSecrets(inner, key), "signing/keys") == b"\x00private\xff"
    assert await text(EnvelopeSecrets(inner, key), "oauth/hmac") is None


async def test_it_is_unwrapped_once_and_a_vault_sealed_later_is_not_noticed(inner: SealedFile) -> None:
    key = Key()
    await EnvelopeSecrets(inner, key).store("signing/keys", Secret(b"one"))
    store = EnvelopeSecrets(inner, key)
    await store.load("signing/keys")
    key.away = True
    assert await text(store, "signing/keys") == b"one"
    assert key.asked == ["encrypt", "decrypt"]
    with pytest.raises(WrappingError, match="sealed"):
        await EnvelopeSecrets(inner, key).load("signing/keys")


async def test_what_another_process_stored_is_unwrapped_anew(inner: SealedFile) -> None:
    key = Key()
    one, other = EnvelopeSecrets(inner, key), EnvelopeSecrets(inner, key)
    await one.store("signing/keys", Secret(b"one"))
    assert await text(other, "signing/keys") == b"one"
    await one.store("signing/keys", Secret(b"two"))
    assert await text(other, "signing/keys") == b"two"


async def test_what_lay_there_without_an_envelope_gets_one(inner: SealedFile) -> None:
    await inner.store("signing/keys", Secret(b"from before"))
    key = Key()
    key.away = True
    with pytest.raises(WrappingError):
        await EnvelopeSecrets(inner, key).load("signing/keys")
    assert await text(inner, "signing/keys") == b"from before"
    key.away = False
    assert await text(EnvelopeSecrets(inner, key), "signing/keys") == b"from before"
    lies = await inner.load("signing/keys")
    assert lies is not None
    assert is_envelope(lies)


async def test_a_vault_that_is_away_when_something_is_stored_changes_nothing(inner: SealedFile) -> None:
    key = Key()
    store = EnvelopeSecrets(inner, key)
    await store.store("signing/keys", Secret(b"one"))
    key.away = True
    with pytest.raises(WrappingError):
        await store.store("signing/keys", Secret(b"two"))
    assert await text(store, "signing/keys") == b"one"


async def test_a_newer_version_of_the_wrapping_key_wraps_anew_without_unwrapping(inner: SealedFile) -> None:
    key = Key()
    store = EnvelopeSecrets(inner, key)
    await store.store("signing/keys", Secret(b"one"))
    await store.store("oauth/hmac", Secret(b"two"))
    assert await store.rewrap() == 0
    key.version = 2
    assert await store.rewrap() == 2
    assert await store.rewrap() == 0
    assert "decrypt" not in key.asked
    lies = await inner.load("signing/keys")
    assert lies is not None
    assert msgspec.json.decode(lies.reveal())["wrapped"].startswith("vault:v2:")
    key.away = True
    assert await text(store, "signing/keys") == b"one"
    key.away = False
    assert await text(EnvelopeSecrets(inner, key), "signing/keys") == b"one"


@pytest.mark.parametrize("field", ["box", "wrapped", "name", "format"])
async def test_an_envelope_that_was_tampered_with_does_not_open(inner: SealedFile, field: str) -> None:
    key = Key()
    await EnvelopeSecrets(inner, key).store("signing/keys", Secret(b"one"))
    await EnvelopeSecrets(inner, key).store("oauth/hmac", Secret(b"two"))
    lies, other = await inner.load("signing/keys"), await inner.load("oauth/hmac")
    assert lies is not None
    assert other is not None
    content = msgspec.json.decode(lies.reveal())
    match field:
        case "name":
            content = msgspec.json.decode(other.reveal())
        case "box":
            box = bytearray(b64decode(content["box"]))
            box[-1] ^= 1
            content["box"] = bytes(box)
        case "wrapped":
            content["wrapped"] = msgspec.json.decode(other.reveal())["wrapped"]
        case "format":
            content["format"] = "orgate-envelope-9"
    await inner.store("signing/keys", Secret(msgspec.json.encode(content)))
    with pytest.raises(StoreUnavailableError, match="signing/keys has") as caught:
        await EnvelopeSecrets(inner, key).load("signing/keys")
    assert not isinstance(caught.value, WrappingError), "waiting does not mend it"


async def test_without_transit_an_envelope_says_what_it_needs(inner: SealedFile) -> None:
    await EnvelopeSecrets(inner, Key()).store("signing/keys", Secret(b"one"))
    bare = BareSecrets(inner)
    with pytest.raises(StoreUnavailableError, match=r"wrapped by transit/orgate .*secrets\.system = transit"):
        await bare.load("signing/keys")
    await bare.store("oauth/hmac", Secret(b"two"))
    assert await text(bare, "oauth/hmac") == b"two"
    assert await unwrap_all(inner, Key(), ["signing/keys", "oauth/hmac", "audit/ed25519"]) == 1
    assert await text(bare, "signing/keys") == b"one"
