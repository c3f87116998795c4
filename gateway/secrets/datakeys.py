"""One data key for each organization, in envelopes: what wraps the keys of the people in its audit log.

The data keys lie in the control store, each wrapped (AES-256-GCM) by one key of the platform's, which is a system
secret like those that sign: in the sealed file under the master key, or with `secrets.system = "transit"` in an
envelope that Vault's Transit has to open. That happens once, at the start: a Vault that is sealed later stops
neither a new organization nor a new person (docs/design/0015-person-keys.md).

Trusted: whoever can read the control store, the sealed file and the master key (or may use the Transit key).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.secret import Secret
from gateway.secrets.store import StoreUnavailableError, SystemSecrets
from tenants.ids import OrgId
from tenants.persons import PersonBook, WrappedDataKey

WRAPPING_NAME: Final = "data-keys/wrapping"
"""The system secret that wraps the data keys."""
KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
MOST: Final = 4_096
"""Organizations whose data keys are kept unwrapped at once, those not used for longest given up first."""

# RFC 5869: `info` binds a derived key to its one use.
_WRAPS: Final = b"orgate data key, AES-256-GCM, version 1"
_FINDS: Final = b"orgate data key, HMAC-SHA-256, version 1"
_PROMPTS: Final = b"orgate prompts, HMAC-SHA-256, version 1"

log = logging.getLogger(__name__)


class DataKey:
    """One organization's data key, unwrapped. `id` names it."""

    def __init__(self, org: OrgId, key_id: str, key: Secret) -> None:
        self.id = key_id
        self._bound = f"{org}\n{key_id}\n"
        self._cipher = AESGCM(_derived(key, _WRAPS))
        self._finds = Secret(_derived(key, _FINDS))
        self.prompts = Secret(_derived(key, _PROMPTS))
        """Hashes the organization's prompts (`gateway.audit.prompt`)."""

    def wrap(self, name: str, plain: Secret, random: Callable[[int], bytes] = os.urandom) -> str:
        """Base64 of nonce, ciphertext and tag. Bound to the organization, to this key and to `name`."""
        return sealed(self._cipher, self._bound + name, plain.reveal(), random)

    def unwrap(self, name: str, wrapped: str) -> Secret:
        """Raises `ValueError` for what this key did not wrap under that name."""
        return Secret(opened(self._cipher, self._bound + name, wrapped))

    def finder(self, text: str) -> str:
        """A digest of `text` that only who has the key can make. 43 characters."""
        return b64encode(hmac.digest(self._finds.reveal(), text.encode(), "sha256")).decode().rstrip("=")


class DataKeys:
    """Makes an organization's data key when it is first asked for. `clock` gives Unix seconds."""

    def __init__(
        self,
        book: PersonBook,
        wrapping: Secret,
        clock: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
        *,
        most: int = MOST,
    ) -> None:
        self._book = book
        self._cipher = AESGCM(wrapping.reveal())
        self._clock = clock
        self._random = random
        self._most = most
        self._held: OrderedDict[OrgId, DataKey] = OrderedDict()
        self._turn = asyncio.Lock()

    async def check(self) -> None:
        """At the start: raises `StoreUnavailableError` when the keys in the store and the sealed file are not of
        one time. With new ones nobody in the log could be named, or erased."""
        if (row := await self._book.any_data_key()) is not None:
            self._open(row)

    async def get(self, org: OrgId) -> DataKey:
        """Raises `StoreUnavailableError`, `tenants.store.StoreUnavailableError`."""
        async with self._turn:
            found = self._held.get(org)
            if found is None:
                found = self._open(await self._book.data_key(org) or await self._make(org))
                self._held[org] = found
                while len(self._held) > self._most:
                    self._held.popitem(last=False)
            self._held.move_to_end(org)
            return found

    async def _make(self, org: OrgId) -> WrappedDataKey:
        """Durable before it wraps anything. Crash before: the next call makes another."""
        key_id = self._random(8).hex()
        wrapped = sealed(self._cipher, _aad(org, key_id), self._random(KEY_BYTES), self._random)
        return await self._book.add_data_key(WrappedDataKey(org, key_id, wrapped, int(self._clock())))

    def _open(self, row: WrappedDataKey) -> DataKey:
        try:
            return DataKey(row.org, row.id, Secret(opened(self._cipher, _aad(row.org, row.id), row.wrapped)))
        except ValueError:
            raise StoreUnavailableError(
                f"the data key of '{row.org}' in the control store does not open with the key in the sealed file:"
                " restore both from one backup"
            ) from None


async def load_wrapping_key(secrets: SystemSecrets, random: Callable[[int], bytes] = os.urandom) -> Secret:
    """The stored key, or a fresh one, stored before it wraps anything."""
    found = await secrets.load(WRAPPING_NAME)
    if found is None:
        found = Secret(random(KEY_BYTES))
        await secrets.store(WRAPPING_NAME, found)
    return found


def sealed(cipher: AESGCM, name: str, plain: bytes, random: Callable[[int], bytes]) -> str:
    nonce = random(_NONCE_BYTES)
    return b64encode(nonce + cipher.encrypt(nonce, plain, name.encode())).decode()


def opened(cipher: AESGCM, name: str, box: str) -> bytes:
    """Raises `ValueError`, which quotes nothing."""
    try:
        raw = b64decode(box, validate=True)
        return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], name.encode())
    except (InvalidTag, ValueError):
        raise ValueError("it was not sealed with this key under this name") from None


def _aad(org: OrgId, key_id: str) -> str:
    return f"orgate data key 1\n{org}\n{key_id}"


def _derived(key: Secret, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key.reveal())
