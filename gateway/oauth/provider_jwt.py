"""JWTs of outside issuers, read strictly: RFC 7515, 7519, 8725; ID Tokens by OpenID Connect Core 1.0.

Pure. What a token may be signed with is decided here and by the issuer's keys, never by the token.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Final, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from msgspec import Struct

MAX_TOKEN: Final = 64 * 1024
"""Bytes. An ID Token with a thousand groups has about 40 KiB."""

MAX_KEYS: Final = 100
MAX_SUBJECT: Final = 255
"""OpenID Connect Core 1.0 section 2."""

RSA_BITS: Final = range(2_048, 8_192 + 1)
"""From RFC 7518 section 3.3; and what takes a fraction of a millisecond to verify with."""

_LONGEST_EXPONENT: Final = 8

_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
ALGORITHMS: Final = (*(f"{kind}{bits}" for kind in ("RS", "PS") for bits in (256, 384, 512)), *_CURVES)
"""Signatures with a public key, and no other: neither `none` nor an HMAC, whose key would be the client secret or,
in the classic attack, the public key itself."""

_STEERING: Final = frozenset({"crit", "b64", "jwk", "jku", "x5u", "x5c", "zip"})
"""Header members that would have a verifier do something else, or believe a key that came along."""

_PART: Final = re.compile(r"[A-Za-z0-9_-]+")
_LATEST: Final = 1 << 53
_REGISTRY: Final = jws.JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
"""Lax about members it does not know, such as `x5t#S256`: what must not be there is in `_STEERING`."""

PublicKey = RSAKey | ECKey | OKPKey


class OutsideTokenError(Exception):
    """Not a token to believe. Says why in words that may be shown: nothing of the token is in them."""


class UnknownKeyError(OutsideTokenError):
    """Signed with a key that is not among those known."""


class Key(Struct, frozen=True):
    """`kid` '' where it has none; `alg` '' where it does not say."""

    kid: str
    alg: str
    public: PublicKey

    def suits(self, algorithm: str) -> bool:
        if self.alg and self.alg != algorithm:
            return False
        if algorithm[:2] in ("RS", "PS"):
            return isinstance(self.public, RSAKey)
        return not isinstance(self.public, RSAKey) and self.public.curve_name == _CURVES[algorithm]


KeySet = tuple[Key, ...]


def parse_keys(body: bytes) -> KeySet:
    """The keys of a JWK Set that verify signatures. Others, and kinds that are not known here, are passed over
    (RFC 7517 section 5). Raises `OutsideTokenError` for what is no set, or has no key that does."""
    try:
        found = json.loads(body)
        listed = found["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OutsideTokenError("the provider's key set is no JWK Set") from None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise OutsideTokenError(f"the provider's key set has more than {MAX_KEYS} keys, or none")
    keys = tuple(key for jwk in listed if (key := _key(jwk)) is not None)
    if not keys:
        raise OutsideTokenError("the provider's key set has no key that verifies signatures")
    return keys


def _key(jwk: Any) -> Key | None:
    match jwk:
        case {"kty": "RSA" | "EC" | "OKP" as kind}:
            pass
        case _:
            return None
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    kid, alg = jwk.get("kid", ""), jwk.get("alg", "")
    if not isinstance(kid, str) or not isinstance(alg, str) or (alg and alg not in ALGORITHMS):
        return None
    # Only the public half is read: one that a provider publishes by mistake stays out of this process.
    public = {name: jwk[name] for name in ("kty", "n", "e", "crv", "x", "y") if isinstance(jwk.get(name), str)}
    made: PublicKey
    try:
        match kind:
            case "RSA":
                if len(public["n"]) * 6 // 8 * 8 not in RSA_BITS or len(public["e"]) > _LONGEST_EXPONENT:
                    return None
                made = RSAKey.import_key(public)
            case "EC":
                made = ECKey.import_key(public)
                if made.curve_name not in _CURVES.values():
                    return None
            case _:
                made = OKPKey.import_key(public)
                if made.curve_name not in _CURVES.values():
                    return None
        made.raw_value  # noqa: B018  # joserfc reads numbers when they are asked for: here, where it may fail
    except (JoseError, ValueError, KeyError, TypeError, UnsupportedAlgorithm):
        return None
    return Key(kid, alg, made)


def verified(token: str, keys: KeySet) -> dict[str, Any]:
    """The claims of `token`, signed with one of `keys`. Raises `OutsideTokenError`."""
    parts = token.split(".") if len(token) <= MAX_TOKEN else []
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
        _refuse("the token is no signed JWT, or is too long")
    header = _object(parts[0])
    if _STEERING & header.keys():
        _refuse("the token's header wants something of its reader that is not done here")
    algorithm, kid = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or not isinstance(kid, str):
        _refuse("the token is signed by an algorithm that is not accepted")
    suiting = [key for key in keys if key.suits(algorithm) and (not kid or key.kid == kid)]
    if not suiting:
        raise UnknownKeyError("the token is signed with a key that the provider does not publish")
    if not kid and len(suiting) > 1:
        _refuse("the token does not say which of the provider's keys signed it")
    if not any(_signed(token, key, algorithm) for key in suiting):
        _refuse("the token's signature is wrong")
    return _object(parts[1])


def _signed(token: str, key: Key, algorithm: str) -> bool:
    try:
        jws.deserialize_compact(token, key.public, algorithms=[algorithm], registry=_REGISTRY)
    except (JoseError, ValueError):
        return False
    return True


def half_hash(token: str, text: str) -> str:
    """What `at_hash` says of the access token `text` in an ID Token that was `verified` (OpenID Connect Core 1.0
    section 3.1.3.6): half of its hash, by the algorithm that the ID Token is signed with."""
    algorithm = str(_object(token.partition(".")[0]).get("alg"))
    name = f"sha{algorithm[2:]}" if algorithm[2:].isdigit() else "sha512"  # Ed25519 hashes with it
    digest = hashlib.new(name, text.encode()).digest()
    return urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def check_claims(claims: dict[str, Any], issuer: str, audience: str, now: float, leeway_s: float) -> None:
    """Who made it, for whom, and whether it counts at `now` (Unix seconds). Raises `OutsideTokenError`."""
    if claims.get("iss") != issuer:
        _refuse("the token is from another issuer")
    audiences = claims.get("aud")
    listed = [audiences] if isinstance(audiences, str) else audiences
    if not isinstance(listed, list) or audience not in listed:
        _refuse("the token is for another audience")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
        _refuse("the token does not say who it is about")
    expires, issued = instant(claims, "exp"), instant(claims, "iat")
    if expires is None or issued is None:
        _refuse("the token does not say when it was issued or when it ends")
    if now >= expires + leeway_s:
        _refuse("the token has expired")
    begins = instant(claims, "nbf") if "nbf" in claims else issued
    if begins is None or max(issued, begins) > now + leeway_s:
        _refuse("the token begins later than now: one of the two clocks is wrong")


def instant(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2); None for what is none."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST:
        return None
    return float(value)


def _object(part: str) -> dict[str, Any]:
    try:
        text = urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise OutsideTokenError("the token is no signed JWT") from None
    if not isinstance(found, dict):
        _refuse("the token is no signed JWT")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ on which of two equal names counts: neither does (RFC 7519 section 4)."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is there twice")
    return made


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _refuse(reason: str) -> NoReturn:
    raise OutsideTokenError(reason)
