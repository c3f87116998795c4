"""Access tokens as RFC 9068 describes them, signed by this server for one audience."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import floor

from msgspec import Struct

from gateway.oauth.signing import SigningKeys
from tenants.models import Member


class AccessToken(Struct, frozen=True):
    """`expires_in` in seconds from now, as RFC 6749 section 5.1 counts."""

    text: str
    expires_in: int


class AccessTokens:
    """Makes access tokens that live for `lifetime_s`."""

    def __init__(
        self,
        *,
        issuer: str,
        keys: SigningKeys,
        random: Callable[[int], bytes],
        lifetime_s: int,
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self._random = random
        self._lifetime_s = lifetime_s

    async def issue(
        self, member: Member, client: str, audience: str, scope: str, *, asked_at: float
    ) -> AccessToken:
        """A token for `member`, which was read from the store after `asked_at` (Unix seconds).

        `iat` is never later than that reading: whatever is taken from the member while the token is being made
        also takes back this token. A member whose tokens were revoked within this second gets one that begins
        where the revocation ends.
        """
        issued_at = max(floor(asked_at), member.not_before)
        claims = {
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
        return AccessToken(await asyncio.to_thread(self._keys.sign, claims), self._lifetime_s)
