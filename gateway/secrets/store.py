"""The secret store's Protocol. Backends: `sealed` (a file); Vault later behind the same."""

from __future__ import annotations

from typing import Protocol

from gateway.exchange import Credential
from gateway.secret import Secret
from tenants.ids import OrgId


class NoSuchSecretError(Exception):
    """Nothing is stored under that organization and name."""


class StoreUnavailableError(Exception):
    """The store cannot be read now (sealed, down, wrong master key). Says which, never a secret."""


class UpstreamKeys(Protocol):
    """Keys of upstreams, at a path that begins with the organization. Versions count up from 1.

    Durable when `put` returns (fsync), atomic: a reader sees the old version or the new one, also after
    kill -9 at any point. Readers and one writer at a time, in different processes.
    Trusted: whoever can read this and the master key can spend every organization's money.
    """

    async def get(self, org: OrgId, upstream: str) -> Credential: ...
    async def put(self, org: OrgId, upstream: str, secret: Secret) -> int:
        """Store a new version and return its number."""

    async def delete(self, org: OrgId, upstream: str) -> None: ...


class SystemSecrets(Protocol):
    """The platform's own secrets: token-signing keys, the refresh tokens' HMAC key, the audit log's key.

    Same durability and atomicity. `name` is one of a few fixed words, e.g. `signing/current`.
    """

    async def load(self, name: str) -> Secret | None: ...
    async def store(self, name: str, secret: Secret) -> None: ...
