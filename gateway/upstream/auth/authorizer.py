"""From a credential to header fields: the one place where an upstream's key is revealed for a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import httpx

from gateway.errors import UnavailableError
from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.upstream.auth.shapes import STRUCTURED, ShapeError, SigningKey, parts, quoted, read, structured
from gateway.upstream.auth.sigv4 import Signer
from gateway.upstream.fields import Header
from tenants.models import CredentialKind, Upstream

ANTHROPIC_VERSION: Final = b"2023-06-01"
"""The version of Anthropic's API that is spoken; it has had no other since."""

NO_KEY: Final = Credential(0, Secret(b""))
"""What goes with `CredentialKind.NONE`."""

RETRY_S: Final = 30

Sign = Callable[[bytes, bytes, Sequence[Header], bytes], tuple[Header, ...]]
"""Method, path with query, the other header fields and the body → fields for this one request."""


class Authorizer(Protocol):
    """Of one upstream and one credential; good for as long as that credential is.

    `fixed`: fields that every request says alike, made once. `sign`: None when there are no others.
    """

    @property
    def fixed(self) -> tuple[Header, ...]: ...

    @property
    def sign(self) -> Sign | None: ...

    def quoted_in(self, text: bytes) -> bool:
        """Whether `text`, an upstream's own words, holds any part of the key."""


class Token(Credential, frozen=True):
    """An access token that was fetched with `client`, the key that is stored."""

    client: Credential


class _Authorizer:
    __slots__ = ("_parts", "fixed", "sign")

    def __init__(
        self, secrets: Callable[[], tuple[bytes, ...]], fixed: tuple[Header, ...] = (), sign: Sign | None = None
    ) -> None:
        self.fixed: Final = fixed
        self.sign: Final = sign
        self._parts = secrets

    def quoted_in(self, text: bytes) -> bool:
        return quoted(self._parts(), text)


def authorizer(upstream: Upstream, credential: Credential, now: Callable[[], float]) -> Authorizer:
    """`credential`: the stored key, or the `Token` that was fetched with it. `now`: Unix seconds.

    Raises `UnavailableError` when the store holds a key of another kind than the upstream's `auth`: it was put
    there by another hand, or `auth` was changed a moment ago.
    """
    kind, secret = upstream.auth, credential.secret
    stored = credential.client if isinstance(credential, Token) else credential

    def secrets() -> tuple[bytes, ...]:
        own = parts(kind, stored)
        return own if stored is credential else (*own, secret.reveal())

    if kind not in STRUCTURED and structured(secret):
        # A request pinned to the snapshot from before `auth` was changed: it must not show the model all of it.
        raise other_kind(upstream)
    match kind:
        case CredentialKind.NONE:
            return _Authorizer(secrets)
        case CredentialKind.API_KEY:
            return _Authorizer(secrets, ((b"api-key", secret.reveal()),))
        case CredentialKind.X_API_KEY:
            version = (b"anthropic-version", ANTHROPIC_VERSION)
            return _Authorizer(secrets, ((b"x-api-key", secret.reveal()), version))
        case CredentialKind.AWS_SIGV4:
            return _Authorizer(secrets, sign=_signing(upstream, credential, now))
        case CredentialKind.OAUTH_CLIENT_CREDENTIALS if stored is credential:
            raise AssertionError("unreachable: a client's secret goes to its token endpoint alone")
        case _:
            return _Authorizer(secrets, ((b"authorization", b"Bearer " + secret.reveal()),))


def _signing(upstream: Upstream, credential: Credential, now: Callable[[], float]) -> Sign:
    try:
        key = read(SigningKey, credential.secret)
    except ShapeError:
        raise other_kind(upstream) from None
    host = httpx.URL(upstream.base_url).netloc
    secret, token = key.secret_access_key, key.session_token
    signer = Signer(key.access_key_id, secret, key.region, key.service, host=host, token=token)

    def sign(method: bytes, target: bytes, headers: Sequence[Header], body: bytes) -> tuple[Header, ...]:
        return signer.sign(method, target, headers, body, now())

    return sign


def other_kind(upstream: Upstream) -> UnavailableError:
    return UnavailableError(
        f"the key of upstream '{upstream.name}' is not of the kind '{upstream.auth}'; an admin must set it again",
        retry_after_s=RETRY_S,
    )
