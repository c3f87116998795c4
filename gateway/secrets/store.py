"""The secret store's Protocols. Backends: `sealed` (a file) for all; for the keys of upstreams alone `vault`, and
`sources` (mounted files, the environment). `envelope` wraps the platform's own with Vault's Transit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from gateway.exchange import Credential
from gateway.secret import Secret
from tenants.ids import OrgId, resource_name
from tenants.ids import org_id as parse_org


class NoSuchSecretError(Exception):
    """Nothing is stored under that organization and name."""


class StoreUnavailableError(Exception):
    """The store cannot be read now (sealed, down, wrong master key). Says which, never a secret."""


class ReadOnlyError(Exception):
    """This gateway does not write these keys. The message says where they come from; it is safe to show."""


def upstream_path(org: OrgId, upstream: str) -> str:
    """Where a key is, in every backend. Raises `tenants.ids.InvalidIdError`.

    Parsed again here: a slash or a '#' in either part would let one organization name another's path.
    """
    return f"orgs/{parse_org(org)}/upstreams/{resource_name(upstream)}"


def cert_path(org: OrgId, upstream: str) -> str:
    """Where the client certificate for an upstream is, with its key: below the upstream's own key."""
    return f"{upstream_path(org, upstream)}/client-cert"


def before_path(org: OrgId, upstream: str) -> str:
    """Where the sealed file keeps the key from before a rotation, until its overlap ends."""
    return f"{upstream_path(org, upstream)}/before"


def webhook_path(org: OrgId) -> str:
    """Where the secret that signs an organization's webhook is. No upstream's path begins so."""
    return f"orgs/{parse_org(org)}/webhook"


def stream_path(org: OrgId, name: str) -> str:
    """Where the secret that a stream of the audit log shows to its receiver is."""
    return f"orgs/{parse_org(org)}/streams/{resource_name(name)}"


def idp_path(org: OrgId) -> str:
    """Where the secret that this gateway shows to an organization's identity provider is."""
    return f"orgs/{parse_org(org)}/idp"


class KeyReader(Protocol):
    """The half of `UpstreamKeys` that a request needs."""

    async def get(self, org: OrgId, upstream: str) -> Credential:
        """The newest version. Raises `NoSuchSecretError` and `StoreUnavailableError`."""

    async def get_before(self, org: OrgId, upstream: str, version: int) -> Credential:
        """The one that was kept when `version` was put. Raises as `get`: most of the time there is none."""


class UpstreamKeys(KeyReader, Protocol):
    """Keys of upstreams, at a path that begins with the organization. Versions count up from 1.

    Durable when `put` returns (fsync), atomic: a reader sees the old version or the new one, also after
    kill -9 at any point. Readers and one writer at a time, in different processes.
    Trusted: whoever can read this and the master key can spend every organization's money.
    """

    async def put(self, org: OrgId, upstream: str, secret: Secret, *, keep: bool = False) -> int:
        """Store a new version and return its number. The older ones are gone for good, but with `keep` for the
        one that it replaces. Raises `ValueError` for a key that is empty or that no header could carry."""

    async def forget_before(self, org: OrgId, upstream: str, version: int) -> None:
        """Destroy what was kept when `version` was put, or before; nothing there: nothing is done."""

    async def delete(self, org: OrgId, upstream: str) -> None:
        """Destroy the key. Its version number is spent: the next `put` counts on from it."""

    async def aclose(self) -> None:
        """Give back what the store holds elsewhere: connections, tokens. Nothing is called after it."""


class ReadOnlyKeys(ABC):
    """`UpstreamKeys` that somebody else puts there."""

    @abstractmethod
    async def get(self, org: OrgId, upstream: str) -> Credential:
        """As `KeyReader` says."""

    async def get_before(self, org: OrgId, upstream: str, version: int) -> Credential:
        """Raises `NoSuchSecretError`: nothing is kept here."""
        raise NoSuchSecretError(f"no key is kept beside the one of {upstream_path(org, upstream)}")

    @abstractmethod
    def whence(self, org: OrgId, upstream: str) -> str:
        """Where this key comes from and how it is changed, for an admin: no path of this machine."""

    async def put(self, org: OrgId, upstream: str, secret: Secret, *, keep: bool = False) -> int:
        """Raises `ReadOnlyError`, always."""
        raise ReadOnlyError(self.whence(org, upstream))

    async def forget_before(  # noqa: B027  # not to be overridden: there is nothing to do
        self, org: OrgId, upstream: str, version: int
    ) -> None:
        """Nothing is kept here."""

    async def delete(self, org: OrgId, upstream: str) -> None:
        """Raises `ReadOnlyError`; `NoSuchSecretError` where there is no key to delete."""
        await self.get(org, upstream)
        raise ReadOnlyError(self.whence(org, upstream))

    async def aclose(self) -> None:  # noqa: B027  # not to be overridden: there is nothing to do
        """Nothing is held: each call reads anew."""


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


class WebhookSecrets(Protocol):
    """The secret that signs an organization's webhook, one for each. Durable when a call returns.

    Trusted: whoever can read this and the master key can tell a receiver that a budget is used up.
    """

    async def get(self, org: OrgId) -> Secret:
        """Raises `NoSuchSecretError` and `StoreUnavailableError`."""

    async def put(self, org: OrgId, secret: Secret) -> None: ...
    async def delete(self, org: OrgId) -> None:
        """Raises `NoSuchSecretError` too."""


class StreamSecrets(Protocol):
    """What each stream of an audit log shows to its receiver: a token, or a certificate chain with its key.
    Durable when a call returns.

    Trusted: whoever can read this and the master key can write into a receiver as this gateway.
    """

    async def get(self, org: OrgId, name: str) -> Secret:
        """Raises `NoSuchSecretError` and `StoreUnavailableError`."""

    async def put(self, org: OrgId, name: str, secret: Secret) -> None: ...
    async def delete(self, org: OrgId, name: str) -> None:
        """Raises `NoSuchSecretError` too."""


class IdpSecrets(Protocol):
    """What this gateway shows to each organization's identity provider, and for which it was given. Durable when a
    call returns.

    Trusted: whoever can read this and the master key can ask that provider who somebody is, as this gateway.
    """

    async def get(self, org: OrgId) -> Secret:
        """Raises `NoSuchSecretError` and `StoreUnavailableError`."""

    async def put(self, org: OrgId, secret: Secret) -> None: ...
    async def delete(self, org: OrgId) -> None:
        """Raises `NoSuchSecretError` too."""


class SystemSecrets(Protocol):
    """The platform's own secrets: token-signing keys, the refresh tokens' HMAC key, the audit log's key.

    Same durability and atomicity. `name` is one of a few fixed words, e.g. `signing/current`.
    """

    async def load(self, name: str) -> Secret | None: ...
    async def store(self, name: str, secret: Secret) -> None: ...
