"""The public half of the keys that sign access tokens: what the JWKS shows, and what says "one of ours"."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey
from msgspec import Struct


class KeyUse(StrEnum):
    """`NEXT`: published ahead of its first use, so that every verifier has it by then. `RETIRED`: signs no more,
    and is published until the last token it signed has ended."""

    CURRENT = "current"
    NEXT = "next"
    RETIRED = "retired"


class SigningKey(Struct, frozen=True):
    """One key as an operator sees it. `kid`: RFC 7638. `since`: when it was made, or began to sign; `gone_at`:
    when it leaves the JWKS. Unix seconds, 0 for not known or not yet."""

    kid: str
    use: KeyUse
    since: int = 0
    gone_at: int = 0


class Published(Struct, frozen=True):
    """A public JWK (RFC 7517) for RS256. `gone_at` (Unix seconds), 0: it stays."""

    kid: str
    jwk: dict[str, str]
    gone_at: float = 0

    @classmethod
    def of(cls, n: str, e: str, gone_at: float = 0) -> Published:
        """From the public members alone: importing a private RSA key checks it, which takes 0.1 s."""
        public = {"kty": "RSA", "n": n, "e": e}
        kid = RSAKey.import_key({**public}).thumbprint()
        return cls(kid, {**public, "use": "sig", "alg": "RS256", "kid": kid}, gone_at)


class PublicKeys:
    """Made once for each set of keys: the publisher asks for them at every change."""

    def __init__(self, keys: Sequence[Published]) -> None:
        self.keys = tuple(keys)
        self._verifying = KeySet([RSAKey.import_key({**key.jwk}) for key in self.keys])

    def jwks_json(self, now: float) -> str:
        """RFC 7517 section 5: those that are there at `now`, Unix seconds."""
        live = [key.jwk for key in self.keys if key.gone_at == 0 or key.gone_at > now]
        return msgspec.json.encode({"keys": live}).decode()

    def own_claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a token that one of these signed, whatever its times say. None: not one of ours."""
        try:
            found = jws.deserialize_compact(token, self._verifying, algorithms=["RS256"])
            claims = msgspec.json.decode(found.payload)
        except (JoseError, ValueError, RecursionError):
            return None
        own = isinstance(claims, dict) and found.headers().get("typ") == "at+jwt"
        return claims if own else None
