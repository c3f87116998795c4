"""The public half of the keys that sign access tokens: what the JWKS shows, and what says "one of ours"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from joserfc.jwk import RSAKey
from msgspec import Struct

from gateway.jws import MalformedError, decode, parse_object, split, verifying_key
from policies.facts import Role
from tenants.revocations import LONGEST_TOKEN_S

MAX_TOKEN_BYTES: Final = 8 * 1024
SKEW_S: Final = 30
_HEADER: Final = frozenset({"alg", "typ", "kid"})
_TEXTS: Final = ("iss", "aud", "sub", "org", "scope", "client_id", "jti")
_NAMES: Final = ("sub", "org", "client_id", "jti")
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]{1,256}")
_ROLES: Final = frozenset(role.value for role in Role)
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_UNBOUND: Final[Mapping[str, str]] = {"jkt": ""}
_LATEST: Final = 1 << 53  # what every JSON reader agrees on (RFC 8259 section 6)


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
        self._verifying = {key.kid: verifying_key(key.jwk, "RS256") for key in self.keys}

    def jwks_json(self, now: float) -> str:
        """RFC 7517 section 5: those that are there at `now`, Unix seconds."""
        live = [key.jwk for key in self.keys if key.gone_at == 0 or key.gone_at > now]
        return msgspec.json.encode({"keys": live}).decode()

    def own_claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a token that one of these signed, whatever its times say. None: not one of ours.

        Its header and its JSON are read as strictly as `gateway.authn.claims` reads them; what the claims are is
        not looked at.
        """
        try:
            found = split(token.encode(), MAX_TOKEN_BYTES)
            head = parse_object(decode(found.header))
            kid = head.get("kid")
            key = self._verifying.get(kid) if isinstance(kid, str) else None
            if key is None or head.keys() != _HEADER or (head["alg"], head["typ"]) != ("RS256", "at+jwt"):
                return None
            if not key.verify(found.signature, found.signed):
                return None
            claims = parse_object(found.payload)
        except (MalformedError, ValueError):  # ValueError: half of a surrogate pair
            return None
        return claims


def is_access_token(claims: Mapping[str, Any]) -> bool:
    """Whether each claim is of the kind that `tokens.AccessTokens` writes (RFC 9068 section 2.2): what no verifier
    takes is nothing that anybody should be told of."""
    roles, cnf = claims.get("roles"), claims.get("cnf", _UNBOUND)
    begins, ends = (claims.get(name) for name in ("iat", "exp"))
    return (
        all(isinstance(claims.get(name), str) for name in _TEXTS)
        and all(_PRINTABLE.fullmatch(claims[name]) for name in _NAMES)
        and claims["aud"].startswith(f"{claims['iss']}/")  # every audience is beneath the issuer
        and isinstance(roles, list)
        and all(isinstance(role, str) and role in _ROLES for role in roles)
        and isinstance(cnf, dict)
        and cnf.keys() == {"jkt"}
        and isinstance(cnf["jkt"], str)
        and (cnf is _UNBOUND or _THUMBPRINT.fullmatch(cnf["jkt"]) is not None)
        and type(begins) is int  # a bool is an int to Python
        and type(ends) is int
        and 0 < begins < ends < _LATEST
        and ends - begins <= LONGEST_TOKEN_S + SKEW_S
        and "nbf" not in claims
    )
