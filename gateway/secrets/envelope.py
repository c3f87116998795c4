"""The platform's own secrets in envelopes: each under a data key of its own, which Vault's Transit has wrapped.

They lie in the sealed file as before; a copy of it and of the master key no longer opens them: Vault has
to unwrap the data key, and writes a line about it. What was unwrapped stays in this process's memory: a Vault that
is sealed later stops neither signing nor checkpoints.

Trusted: whoever can read the sealed file, the master key, and may use the Transit key. And this process's memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.secret import Secret
from gateway.secrets.store import StoreUnavailableError, SystemSecrets

FORMAT: Final = "orgate-envelope-1"
_BEGINS: Final = b'{"format":"orgate-envelope-'
REWRAP_S: Final = 3600.0
"""Between looks whether the wrapping key has a newer version."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class WrappingError(StoreUnavailableError):
    """The wrapping key cannot be used now: waiting for it may help. Says why, never a secret."""


class Wrapping(Protocol):
    """A key elsewhere that wraps data keys (`transit.Transit`). Raises `StoreUnavailableError`."""

    @property
    def wrapping_key(self) -> str: ...
    async def encrypt(self, plain: Secret) -> str: ...
    async def decrypt(self, wrapped: str) -> Secret: ...
    async def rewrap(self, wrapped: str) -> str: ...


class _Envelope(msgspec.Struct, frozen=True):
    """`wrapped`: the data key, as the wrapping key gave it. `box`: nonce (12 bytes), ciphertext with tag; its
    associated data is the secret's name, so that one is not taken for another."""

    format: str
    key: str
    wrapped: str
    box: bytes


class EnvelopeSecrets:
    """`SystemSecrets` over `inner`. What it finds there without an envelope it puts into one."""

    def __init__(
        self, inner: SystemSecrets, wrapping: Wrapping, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._inner = inner
        self._wrapping = wrapping
        self._random = random
        self._held: dict[str, tuple[bytes, Secret]] = {}
        self._turn = asyncio.Lock()

    async def load(self, name: str) -> Secret | None:
        """As the Protocol says. Asks Vault only for what this process has not unwrapped yet.

        Raises `WrappingError`; `StoreUnavailableError` for an envelope that was tampered with.
        """
        async with self._turn:
            found = await self._inner.load(name)
            if found is None:
                return None
            mark = _mark(found)
            held = self._held.get(name)
            if held is not None and held[0] == mark:
                return held[1]
            if not is_envelope(found):
                # A crash before the write: it lies there without an envelope, and gets one at the next start.
                await self._put(name, found)
                log.info("%s is wrapped by %s from now on", name, self._wrapping.wrapping_key)
                return found
            envelope = _parse(name, found)
            plain = _opened(name, envelope, await _asked(self._wrapping.decrypt(envelope.wrapped)))
            self._held[name] = (mark, plain)
            return plain

    async def store(self, name: str, secret: Secret) -> None:
        """As the Protocol says. Raises `WrappingError`: then nothing was written."""
        async with self._turn:
            await self._put(name, secret)

    async def rewrap(self) -> int:
        """Wrap the data keys that this process has used with the wrapping key's newest version; how many changed.

        From then on older versions can be taken out of use in Vault (`min_decryption_version`).
        """
        changed = 0
        for name in list(self._held):
            async with self._turn:
                found = await self._inner.load(name)
                if found is None or not is_envelope(found):
                    continue
                envelope = _parse(name, found)
                wrapped = await _asked(self._wrapping.rewrap(envelope.wrapped))
                if _version(wrapped) == _version(envelope.wrapped):
                    continue
                renewed = Secret(msgspec.json.encode(msgspec.structs.replace(envelope, wrapped=wrapped)))
                await self._inner.store(name, renewed)
                if name in self._held:
                    self._held[name] = (_mark(renewed), self._held[name][1])
                changed += 1
        return changed

    async def keep_wrapped(self) -> None:
        """Rewrap once an hour, until cancelled."""
        while True:
            try:
                if changed := await self.rewrap():
                    log.info(
                        "%d secrets are wrapped by a newer version of %s", changed, self._wrapping.wrapping_key
                    )
            except StoreUnavailableError as error:
                log.warning("secrets were not wrapped anew; the older version serves on: %s", error)
            await asyncio.sleep(REWRAP_S)

    async def _put(self, name: str, secret: Secret) -> None:
        data_key = Secret(self._random(32))
        wrapped = await _asked(self._wrapping.encrypt(data_key))
        nonce = self._random(12)
        box = nonce + AESGCM(data_key.reveal()).encrypt(nonce, secret.reveal(), name.encode())
        kept = Secret(msgspec.json.encode(_Envelope(FORMAT, self._wrapping.wrapping_key, wrapped, box)))
        await self._inner.store(name, kept)
        self._held[name] = (_mark(kept), secret)


class BareSecrets:
    """`SystemSecrets` where nothing wraps: it says so when what it finds is in an envelope."""

    def __init__(self, inner: SystemSecrets) -> None:
        self._inner = inner

    async def load(self, name: str) -> Secret | None:
        found = await self._inner.load(name)
        if found is not None and is_envelope(found):
            raise StoreUnavailableError(
                f"{name} is wrapped by {_parse(name, found).key} of Vault: set secrets.system = transit, or take"
                " it out of its envelope with `orgate key unwrap`"
            )
        return found

    async def store(self, name: str, secret: Secret) -> None:
        await self._inner.store(name, secret)


async def unwrap_all(inner: SystemSecrets, wrapping: Wrapping, names: Iterable[str]) -> int:
    """Take secrets out of their envelopes, for good; returns how many. Can be broken off and run again."""
    opened = EnvelopeSecrets(inner, wrapping)
    done = 0
    for name in names:
        found = await inner.load(name)
        if found is not None and is_envelope(found) and (plain := await opened.load(name)) is not None:
            await inner.store(name, plain)
            done += 1
    return done


def is_envelope(found: Secret) -> bool:
    return found.reveal().startswith(_BEGINS)


def _parse(name: str, found: Secret) -> _Envelope:
    try:
        envelope = msgspec.json.decode(found.reveal(), type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise StoreUnavailableError(f"the envelope of {name} is damaged") from None
    if envelope.format != FORMAT:
        raise StoreUnavailableError(f"the envelope of {name} has the unknown format {envelope.format[:32]!r}")
    return envelope


def _opened(name: str, envelope: _Envelope, data_key: Secret) -> Secret:
    try:
        return Secret(AESGCM(data_key.reveal()).decrypt(envelope.box[:12], envelope.box[12:], name.encode()))
    except (InvalidTag, ValueError):
        raise StoreUnavailableError(f"the envelope of {name} has been tampered with") from None


async def _asked(work: Awaitable[T]) -> T:
    try:
        return await work
    except StoreUnavailableError as error:
        raise WrappingError(str(error)) from None


def _version(wrapped: str) -> str:
    return wrapped.rpartition(":")[0]


def _mark(found: Secret) -> bytes:
    return hashlib.sha256(found.reveal()).digest()
