"""Stage 1: access token → `Principal`. Local: no network, no database, no call to the issuer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.authn.claims import SKEW_S, Claims, InvalidTokenError, parse_jwks, verify
from gateway.authn.dpop import BoundTokens
from gateway.authn.hosts import is_elsewhere
from gateway.authn.statickeys import STATIC_PREFIX, StaticKeys
from gateway.authn.words import (
    BOUND,
    EXPIRED,
    INVALID,
    MISSING,
    NO_KEYS,
    REQUIRED,
    SUSPENDED_RULE,
    UNBOUND,
)
from gateway.dpop import Presented
from gateway.errors import ProofNeededError, SuspendedError, UnauthenticatedError, UnavailableError
from gateway.exchange import Principal
from tenants.ids import PLATFORM
from tenants.snapshot import Snapshot

__all__ = ["EXPIRED", "INVALID", "MISSING", "Authenticator"]


class Authenticator:
    """Verifies the access tokens of one `issuer` for one `audience`. Belongs to one event loop.

    The cache (least recently used, `cache_size` tokens) holds only that a signature is valid and what the
    token says. Expiry, revocation, the organization's state, the audience and the host name are looked at
    on every call. It is dropped when the snapshot brings other keys. `clock` gives Unix seconds.

    `url` is what clients put before a path here, the issuer's if it is not given: proofs are about it. `unbound`:
    clients whose tokens never leave this process, which need no proof where an organization wants one.
    `static_keys`: who judges personal tokens; None: they open nothing here.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        clock: Callable[[], float],
        cache_size: int = 10_000,
        *,
        url: str = "",
        unbound: frozenset[str] = frozenset(),
        static_keys: StaticKeys | None = None,
    ) -> None:
        self._issuer = issuer
        self._bound = BoundTokens(url or issuer, clock)
        self._unbound = unbound
        self._static_keys = static_keys
        self._audience = audience
        self._clock = clock
        self._cache_size = cache_size
        self._cache: OrderedDict[bytes, Claims] = OrderedDict()
        self._jwks = ""
        self._keys: dict[str, RSAPublicKey] = {}

    def authenticate(
        self, authorization: bytes | None, host: str, snapshot: Snapshot, presented: Presented | None = None
    ) -> Principal:
        """Who is calling. `authorization` is the header's value, `host` the name that was called (port allowed),
        `presented` the DPoP proof that came with it.

        Raises `UnauthenticatedError`; `SuspendedError` when the token is good and its organization suspended;
        `UnavailableError` while the control process, which has the keys, was not heard since this worker started.
        """
        if authorization is not None and authorization[:7].lower() == b"bearer ":
            if self._static_keys is not None and authorization.startswith(STATIC_PREFIX, 7):
                return self._static_keys.authenticate(authorization[7:], host, snapshot)
            return self._judged(authorization[7:], host, snapshot, bearer=True)
        if authorization is None or authorization[:5].lower() != b"dpop ":
            raise UnauthenticatedError(MISSING)
        token = authorization[5:]
        try:
            principal = self._judged(token, host, snapshot, bearer=False)
        except UnauthenticatedError as error:
            raise ProofNeededError(error.message) from None
        tenant = snapshot.tenants.get(principal.org)
        self._bound.check(principal, token, presented, tenant.hosts if tenant is not None else ())
        return principal

    def _judged(self, token: bytes, host: str, snapshot: Snapshot, *, bearer: bool) -> Principal:
        if not snapshot.jwks:
            raise UnavailableError(NO_KEYS, retry_after_s=2)
        if snapshot.jwks is not self._jwks and snapshot.jwks != self._jwks:
            self._cache.clear()
            self._keys = parse_jwks(snapshot.jwks)
            self._jwks = snapshot.jwks
        claims = self._cache.get(token)
        if claims is None:
            claims = self._verify(token)
        else:
            self._cache.move_to_end(token)
        now = self._clock()
        principal = claims.principal
        if now >= claims.expires_at:
            raise UnauthenticatedError(EXPIRED)
        org = principal.org
        if (
            principal.audience != self._audience
            or claims.issued_at > now + SKEW_S
            or claims.not_before > now + SKEW_S
        ):
            raise UnauthenticatedError(INVALID)
        tenant = snapshot.tenants.get(org)
        if tenant is None and org != PLATFORM:
            raise UnauthenticatedError(INVALID)
        if snapshot.hosts and is_elsewhere(snapshot, host, org):
            raise UnauthenticatedError(INVALID)
        # Before the revocations: suspending an organization revokes its tokens, so that they stay dead when it
        # is resumed. Meanwhile 403 says why, and keeps clients from renewing in vain.
        if tenant is not None and not tenant.active:
            raise SuspendedError(f"organization '{org}' is suspended", rule=SUSPENDED_RULE)
        if snapshot.revoked(org, principal.member, principal.token_id, claims.issued_at, principal.client):
            raise UnauthenticatedError(INVALID)
        if bearer is not (principal.jkt == "") or (tenant is not None and tenant.proof_required):
            self._scheme_must_fit(principal, bearer=bearer)
        return principal

    def _scheme_must_fit(self, principal: Principal, *, bearer: bool) -> None:
        """RFC 9449 section 7.1: whoever stole a token that is bound to a key would send it as one that is not."""
        if bearer is not (principal.jkt == ""):
            raise ProofNeededError(BOUND if bearer else UNBOUND)
        if bearer and principal.client not in self._unbound:
            raise ProofNeededError(REQUIRED)

    def _verify(self, token: bytes) -> Claims:
        try:
            claims = verify(token, self._keys, self._issuer, self._audience)
        except InvalidTokenError:
            raise UnauthenticatedError(INVALID) from None
        self._cache[token] = claims
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return claims
