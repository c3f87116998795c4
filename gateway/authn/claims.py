"""A token's text → claims, or a reason why not. Pure: RFC 7515, 7519, 8725 and 9068, read strictly.

Nothing here looks at the clock, the organization or a revocation: that is looked at on every request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import RSAKey
from msgspec import Struct

from gateway.dpop import JKT
from gateway.exchange import Principal
from gateway.jws import MalformedError, decode, parse_object, split
from policies.facts import Role
from tenants.ids import PLATFORM, InvalidIdError
from tenants.ids import org_id as parse_org
from tenants.revocations import LONGEST_TOKEN_S

MAX_TOKEN_BYTES: Final = 8 * 1024
SKEW_S: Final = 30
"""How far a clock may be ahead of or behind the issuer's."""

_HEADER_MEMBERS: Final = frozenset({"alg", "typ", "kid"})
_TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
_BASE64URL: Final = re.compile(rb"[A-Za-z0-9_-]+")
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]{1,256}")
_LATEST: Final = 1 << 53  # what every JSON reader agrees on (RFC 8259 section 6)
_ROLES: Final = {role.value: role for role in Role}
_PADDING: Final = PKCS1v15()
_HASH: Final = SHA256()


class InvalidTokenError(Exception):
    """Not a token of ours. The reason is for tests and debugging; callers are told nothing of it."""


class Claims(Struct, frozen=True):
    """What a valid signature vouches for. Times are Unix seconds; `not_before` is 0 when the token has none."""

    principal: Principal
    audiences: tuple[str, ...]
    issued_at: int
    not_before: int
    expires_at: int


def parse_jwks(jwks: str) -> dict[str, RSAPublicKey]:
    """The verifying keys by `kid`. Keys that are not RSA for RS256 signatures are passed over (RFC 7517, 5)."""
    keys: dict[str, RSAPublicKey] = {}
    if not jwks:
        return keys
    for jwk in json.loads(jwks)["keys"]:
        if jwk.get("kty") == "RSA" and jwk.get("use", "sig") == "sig" and jwk.get("alg", "RS256") == "RS256":
            key = RSAKey.import_key({"kty": "RSA", "n": jwk["n"], "e": jwk["e"]})
            keys[jwk["kid"]] = key.public_key
    return keys


def verify(token: bytes, keys: Mapping[str, RSAPublicKey], issuer: str, audience: str) -> Claims:
    """Check the signature, then read the claims. Raises `InvalidTokenError` for anything out of the ordinary.

    A token meant for another audience is read all the same; `Principal.audience` is then ''.
    """
    try:
        jws = split(token, MAX_TOKEN_BYTES)
        key = keys.get(_kid(parse_object(decode(jws.header))))
        if key is None:
            _refuse("unknown kid")
        key.verify(jws.signature, jws.signed, _PADDING, _HASH)
        claims = parse_object(jws.payload)
    except InvalidSignature:
        raise InvalidTokenError("signature") from None
    except MalformedError as error:
        raise InvalidTokenError(str(error)) from None
    return _claims(claims, issuer, audience)


def _kid(header: dict[str, Any]) -> str:
    # An allow-list: no jwk, jku, x5u, x5c, crit, b64 or whatever comes next can steer the verification.
    if header.keys() != _HEADER_MEMBERS:
        _refuse("header members")
    if header["alg"] != "RS256":
        _refuse("alg")
    typ, kid = header["typ"], header["kid"]
    if not isinstance(typ, str) or typ.lower() not in _TYPES:
        _refuse("typ")
    if not isinstance(kid, str):
        _refuse("kid")
    return kid


def _claims(claims: dict[str, Any], issuer: str, audience: str) -> Claims:
    if claims.get("iss") != issuer:
        _refuse("iss")
    audiences = _audiences(claims.get("aud"))
    issued_at, expires_at = _instant(claims.get("iat")), _instant(claims.get("exp"))
    if not 0 < expires_at - issued_at <= LONGEST_TOKEN_S + SKEW_S:
        _refuse("lifetime")
    if not isinstance(claims.get("scope"), str):
        _refuse("scope")
    roles = claims.get("roles")
    if not isinstance(roles, list) or not all(isinstance(role, str) and role in _ROLES for role in roles):
        _refuse("roles")
    try:
        org = parse_org(_text(claims.get("org")))
    except InvalidIdError:
        raise InvalidTokenError("org") from None
    known = frozenset(_ROLES[role] for role in roles)
    if Role.OPERATOR in known and org != PLATFORM:
        _refuse("an operator outside the platform")
    principal = Principal(
        org=org,
        member=_text(claims.get("sub")),
        roles=known,
        client=_text(claims.get("client_id")),
        token_id=_text(claims.get("jti")),
        audience=audience if audience in audiences else "",
        issued_at=issued_at,
        expires_at=expires_at,
        teams=_teams(claims.get("groups", [])),
        jkt=_bound_to(claims["cnf"]) if "cnf" in claims else "",
    )
    not_before = _instant(claims["nbf"]) if "nbf" in claims else 0
    return Claims(principal, audiences, issued_at, not_before, expires_at)


def _bound_to(cnf: Any) -> str:
    """RFC 7800 section 3.1: whoever confirms a key in a way that is not known here confirms nothing."""
    jkt = cnf.get("jkt") if isinstance(cnf, dict) and len(cnf) == 1 else None
    if not isinstance(jkt, str) or not JKT.fullmatch(jkt):
        _refuse("cnf")
    return jkt


def _teams(groups: Any) -> tuple[str, ...]:
    if not isinstance(groups, list) or not all(isinstance(name, str) for name in groups):
        _refuse("groups")
    return tuple(groups)


def _audiences(aud: Any) -> tuple[str, ...]:
    if isinstance(aud, str):
        return (aud,)
    if not isinstance(aud, list) or not aud or not all(isinstance(item, str) for item in aud):
        _refuse("aud")
    return tuple(aud)


def _instant(value: Any) -> int:
    # bool is an int to Python; a float may be 1e308, and NaN compares as nobody expects
    if type(value) is not int or not 0 < value < _LATEST:
        _refuse("time")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        _refuse("text")
    return value


def _refuse(reason: str) -> NoReturn:
    raise InvalidTokenError(reason)
