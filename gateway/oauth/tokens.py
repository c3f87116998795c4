"""Access tokens as RFC 9068 describes them, signed by this server for one audience."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import floor
from typing import Any, Protocol

from msgspec import Struct

from gateway.oauth.published import SigningKey
from tenants.models import Member, Service


class TokenSigner(Protocol):
    """What signs access tokens: `signing.SigningKeys` in this process, `remote_signing` elsewhere."""

    async def signed(self, claims: Mapping[str, Any]) -> str:
        """A JWT access token (RFC 9068). Raises `errors.TemporarilyUnavailableError`."""

    def own_claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a token that this signer signed; None: not one of ours."""

    def jwks_json(self) -> str:
        """The public keys, RFC 7517 section 5."""

    def facts(self) -> tuple[SigningKey, ...]:
        """The current one first."""

    async def rotate(self) -> None:
        """Sign with the next one. Raises `errors.RotatedLatelyError`, `errors.RotatedElsewhereError`, and what the
        store of secrets raises."""


class AccessToken(Struct, frozen=True):
    """`expires_in` in seconds from now, as RFC 6749 section 5.1 counts; `kind` is its `token_type`."""

    text: str
    expires_in: int
    kind: str = "Bearer"


class AccessTokens:
    """Makes access tokens that live for `lifetime_s`."""

    def __init__(
        self,
        *,
        issuer: str,
        keys: TokenSigner,
        random: Callable[[int], bytes],
        lifetime_s: int,
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self._random = random
        self._lifetime_s = lifetime_s

    async def issue(
        self,
        member: Member | Service,
        client: str,
        audience: str,
        scope: str,
        *,
        asked_at: float,
        teams: Sequence[str] = (),
        amr: Sequence[str] = (),
        auth_time: int = 0,
        jkt: str = "",
    ) -> AccessToken:
        """A token for `member`, which was read from the store after `asked_at` (Unix seconds). `teams` are the
        claim `groups` (RFC 9068 section 2.2.3.1), left out when there are none; `amr` and `auth_time` those of its
        section 2.2.1, left out when nobody wrote them down. `jkt`: the key that it is bound to (RFC 9449 section
        6.1), '' for a bearer token.

        `iat` is never later than that reading: whatever is taken from the member while the token is being made
        also takes back this token. A member whose tokens were revoked within this second gets one that begins
        where the revocation ends. Raises `errors.TemporarilyUnavailableError` when nothing signs now.
        """
        issued_at = max(floor(asked_at), member.not_before)
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": audience,
            "sub": member.id,
            "org": member.org,
            "roles": [role.value for role in member.roles],
            "scope": scope,
            "client_id": client,
            "jti": self._random(16).hex(),
            "iat": issued_at,
            "exp": issued_at + self._lifetime_s,
        }
        if teams:
            claims["groups"] = list(teams)
        if amr:
            claims["amr"] = list(amr)
        if auth_time:
            claims["auth_time"] = auth_time
        if jkt:
            claims["cnf"] = {"jkt": jkt}
        kind = "DPoP" if jkt else "Bearer"
        return AccessToken(await self._keys.signed(claims), self._lifetime_s, kind)
