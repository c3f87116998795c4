"""A person's own key: what makes their pseudonym, and what their id lies under.

The key is wrapped under the data key of their organization; each box is bound to the place where it lies
(AES-256-GCM, associated data), so that a row is worth nothing in another's place.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.audit.pseudonym import pseudonym
from gateway.errors import UnavailableError
from gateway.secret import Secret
from tenants.ids import OrgId
from tenants.persons import Person

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12

# RFC 5869: `info` binds a derived key to its one use.
_NAMES: Final = b"orgate person, pseudonym, HMAC-SHA-256, version 1"
_HOLDS: Final = b"orgate person, member id, AES-256-GCM, version 1"


class OrgKey(Protocol):
    """An organization's data key (`gateway.secrets.datakeys.DataKey`)."""

    def wrap(self, name: str, plain: Secret) -> str: ...
    def unwrap(self, name: str, wrapped: str) -> Secret:
        """Raises `ValueError` for what it did not wrap under `name`."""

    def finder(self, text: str) -> str: ...
    @property
    def prompts(self) -> Secret: ...


class OrgKeys(Protocol):
    """Where the data keys come from (`gateway.secrets.datakeys.DataKeys`): made when first asked for."""

    async def get(self, org: OrgId) -> OrgKey: ...


class Known(NamedTuple):
    """Who a pseudonym stands for. `key` (hexadecimal) proves it to whoever has the entry: `pseudonym`."""

    person: str
    member: str
    key: str


def make_person(org: OrgId, member: str, key: OrgKey, made_at: int, random: Callable[[int], bytes]) -> Person:
    """A row with a fresh key. `made_at`: Unix seconds."""
    own = Secret(random(KEY_BYTES))
    person = pseudonym(_derived(own, _NAMES), org, member)
    nonce = random(_NONCE_BYTES)
    box = nonce + AESGCM(_derived(own, _HOLDS).reveal()).encrypt(nonce, member.encode(), _aad(org, person))
    wrapped = key.wrap(_name(person), own)
    return Person(org, person, key.finder(member), wrapped, b64encode(box).decode(), made_at)


def open_person(row: Person, key: OrgKey) -> Known:
    """Who a row is about. Raises `UnavailableError` for one that was changed by somebody else."""
    try:
        own = key.unwrap(_name(row.id), row.key)
        box = b64decode(row.member, validate=True)
        cipher = AESGCM(_derived(own, _HOLDS).reveal())
        member = cipher.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], _aad(row.org, row.id)).decode()
    except (InvalidTag, ValueError):
        raise tampered(row) from None
    naming = _derived(own, _NAMES)
    if pseudonym(naming, row.org, member) != row.id:
        raise tampered(row)
    return Known(row.id, member, naming.reveal().hex())


def tampered(row: Person) -> UnavailableError:
    return UnavailableError(f"the record of {row.id} in the control store was tampered with", retry_after_s=60)


def _name(person: str) -> str:
    return f"orgate person key 1\n{person}"


def _aad(org: str, person: str) -> bytes:
    return f"orgate person member 1\n{org}\n{person}".encode()


def _derived(key: Secret, info: bytes) -> Secret:
    return Secret(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key.reveal()))
