"""The secret store's Protocols. Backends: `sealed` (a file) for all, `vault` for the keys of upstreams."""

from __future__ import annotations

from typing import Protocol

from gateway.exchange import Credential
from gateway.secret import Secret
from tenants.ids import OrgId, resource_name
from tenants.ids import org_id as parse_org


class NoSuchSecretError(Exception):
    """Nothing is stored under that organization and name."""


class StoreUnavailableError(Exception):
    """The store cannot be read now (sealed, down, wrong master key). Says which, never a secret."""


def upstream_path(org: OrgId, upstream: str) -> str:
    """Where a key is, in every backend. Raises `tenants.ids.InvalidIdError`.

    Parsed again here: a slash or a '#' in either part would let one organization name another's path.
    """
    return f"orgs/{parse_org(org)}/upstreams/{resource_name(upstream)}"


def cert_path(org: OrgId, upstream: str) -> str:
    """Where the client certificate for an upstream is, with its key: below the upstream's own key."""
    return f"{upstream_path(org, upstream)}/client-cert"


class KeyReader(Protocol):
    """The half of `UpstreamKeys` that a request needs."""

    async def get(self, org: OrgId, upstream: str) -> Credential:
        """The newest version. Raises `NoSuchSecretError` and `StoreUnavailableError`."""


class UpstreamKeys(KeyReader, Protocol):
    """Keys of upstreams, at a path that begins with the organization. Versions count up from 1.

    Durable when `put` returns (fsync), atomic: a reader sees the old version or the new one, also after
    kill -9 at any point. Readers and one writer at a time, in different processes.
    Trusted: whoever can read this and the master key can spend every organization's money.
    """

    async def put(self, org: OrgId, upstream: str, secret: Secret) -> int:
        """Store a new version and return its number. The older ones are gone for good. Raises `ValueError`
        for a key that is empty or that no header could carry."""

    async def delete(self, org: OrgId, upstream: str) -> None:
        """Destroy the key. Its version number is spent: the next `put` counts on from it."""

    async def aclose(self) -> None:
        """Give back what the store holds elsewhere: connections, tokens. Nothing is called after it."""


class CertReader(Protocol):
    """The half of `ClientCerts` that a connection needs."""

    async def get(self, org: OrgId, upstream: str) -> Credential:
        """The newest pair, as `gateway.secrets.pair.judge` made it. Raises as `KeyReader.get` does."""


class ClientCerts(CertReader, Protocol):
    """Client certificates for upstreams, each with its private key. As `UpstreamKeys` in all else.

    Trusted: whoever can read this and the master key can show themselves to the upstreams as this gateway.
    """

    async def put(self, org: OrgId, upstream: str, pair: Secret) -> int: ...
    async def delete(self, org: OrgId, upstream: str) -> None: ...


class SystemSecrets(Protocol):
    """The platform's own secrets: token-signing keys, the refresh tokens' HMAC key, the audit log's key.

    Same durability and atomicity. `name` is one of a few fixed words, e.g. `signing/current`.
    """

    async def load(self, name: str) -> Secret | None: ...
    async def store(self, name: str, secret: Secret) -> None: ...
