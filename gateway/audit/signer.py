"""The key that signs checkpoints: one for the platform, a name of its own for each organization's log."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit import note
from gateway.audit.log import KeyStore
from gateway.secret import Secret
from tenants.ids import OrgId

KEY_NAME = "audit/ed25519"


class Signer:
    """Signs what the sequencer made durable, and nothing else. `host` is the server's host name and port."""

    def __init__(self, host: str, private: Ed25519PrivateKey) -> None:
        self._host = host
        self._private = private

    def origin(self, org: OrgId) -> str:
        """The log's name everywhere and for ever (C2SP tlog-checkpoint): it names the organization."""
        return f"{self._host}/audit/{org}"

    def key(self, org: OrgId) -> note.VerifierKey:
        return note.VerifierKey(self.origin(org), self._private.public_key().public_bytes_raw())

    def checkpoint(self, org: OrgId, size: int, root: bytes) -> str:
        """The signed note. Ed25519 is deterministic: the same tree gives the same bytes."""
        origin = self.origin(org)
        return note.sign(note.Checkpoint(origin, size, root).text(), origin, self._private)


async def load_signer(host: str, keys: KeyStore) -> Signer:
    """The stored key, or a fresh one, stored before it signs anything.

    Crash before `store` returns: no checkpoint was signed with the lost key, the next start makes another.
    """
    secret = await keys.load(KEY_NAME)
    if secret is None:
        secret = Secret(Ed25519PrivateKey.generate().private_bytes_raw())
        await keys.store(KEY_NAME, secret)
    return Signer(host, Ed25519PrivateKey.from_private_bytes(secret.reveal()))
