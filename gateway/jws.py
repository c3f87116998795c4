"""Compact JWS (RFC 7515) with public keys from JWKs (RFC 7517), read strictly. Pure.

One spelling for each value: base64url is canonical, no member of an object comes twice, a number is a number. An
algorithm is taken from a short list and must fit the key; `none` and shared secrets are not on it.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey as EcKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import Struct

ALGORITHMS: Final = ("ES256", "RS256", "PS256", "EdDSA", "Ed25519")
"""RFC 7518 section 3.1, RFC 8037, and what RFC 9864 calls the latter."""

RSA_BITS: Final = range(2048, 4096 + 1)
_EXPONENT: Final = 65537
"""The one that everybody makes. A large one makes each verification as long as whoever chose it likes."""

_BASE64URL: Final = re.compile(rb"[A-Za-z0-9_-]+")
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_HASH: Final = SHA256()
_ECDSA: Final = ECDSA(_HASH)
_PKCS1: Final = PKCS1v15()
_PSS: Final = PSS(MGF1(_HASH), 32)

PublicKey = EcKey | RSAPublicKey | Ed25519PublicKey


class MalformedError(Exception):
    """It is not what it should be. The reason has no value in it, and may be shown."""


class Jws(Struct, frozen=True):
    """A compact JWS taken apart, its signature not looked at. `header` is still base64url."""

    header: bytes
    payload: bytes
    signature: bytes
    signed: bytes


class VerifyingKey(Struct, frozen=True):
    """A public key with the one algorithm it is used with, and its thumbprint (RFC 7638, SHA-256, base64url)."""

    alg: str
    key: PublicKey
    thumbprint: str

    def verify(self, signature: bytes, signed: bytes) -> bool:
        try:
            if isinstance(self.key, EcKey):
                if len(signature) != 64:  # RFC 7518 section 3.4: r and s, 32 bytes each
                    return False
                r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
                self.key.verify(encode_dss_signature(r, s), signed, _ECDSA)
            elif isinstance(self.key, RSAPublicKey):
                self.key.verify(signature, signed, _PSS if self.alg == "PS256" else _PKCS1, _HASH)
            else:
                self.key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True


def split(text: bytes, most: int) -> Jws:
    """Take `text`, at most `most` bytes, apart. Raises `MalformedError`."""
    if len(text) > most:
        _refuse(f"it is longer than {most} bytes")
    parts = text.split(b".")
    if len(parts) != 3:
        _refuse("it has not three parts")
    return Jws(parts[0], decode(parts[1]), decode(parts[2]), parts[0] + b"." + parts[1])


def decode(part: bytes) -> bytes:
    """Base64url without padding, canonical. Raises `MalformedError`."""
    if not _BASE64URL.fullmatch(part) or len(part) % 4 == 1:
        _refuse("a part is not base64url")
    decoded = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    if encode(decoded) != part:
        _refuse("a part is not canonical base64url")
    return decoded


def encode(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def parse_object(text: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8. Raises `MalformedError`, also for a member that comes twice and for NaN."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)
    except (ValueError, RecursionError):  # ValueError: bad UTF-8, bad JSON, and an integer of 5,000 digits
        raise MalformedError("a part is not JSON") from None
    if not isinstance(value, dict):
        _refuse("a part is not a JSON object")
    return value


def verifying_key(jwk: Mapping[str, Any], alg: str) -> VerifyingKey:
    """A public JWK as a key for `alg`. Raises `MalformedError`: another kind of key, a weak or a private one, or
    one that says it is for something else."""
    if alg not in ALGORITHMS:
        _refuse(f"alg is none of {', '.join(ALGORITHMS)}")
    if not _PRIVATE.isdisjoint(jwk):
        _refuse("the key is not a public one")
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", alg) != alg:
        _refuse("the key is for something else")
    key: PublicKey
    try:
        if alg == "ES256":
            thumb = _named(jwk, kty="EC", crv="P-256") | {"x": jwk["x"], "y": jwk["y"]}
            x, y = (int.from_bytes(_octets(jwk[name], 32), "big") for name in ("x", "y"))
            key = EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
        elif alg in {"RS256", "PS256"}:
            thumb = _named(jwk, kty="RSA") | {"e": jwk["e"], "n": jwk["n"]}
            n, e = (_integer(jwk[name]) for name in ("n", "e"))
            if n.bit_length() not in RSA_BITS or e != _EXPONENT:
                _refuse(f"an RSA key has {RSA_BITS[0]} to {RSA_BITS[-1]} bits and the exponent {_EXPONENT}")
            key = RSAPublicNumbers(e, n).public_key()
        else:
            thumb = _named(jwk, kty="OKP", crv="Ed25519") | {"x": jwk["x"]}
            key = Ed25519PublicKey.from_public_bytes(_octets(jwk["x"], 32))
    except KeyError:
        raise MalformedError("the key lacks a member") from None
    except ValueError:
        raise MalformedError("the key is none") from None
    canonical = json.dumps(thumb, sort_keys=True, separators=(",", ":")).encode()
    return VerifyingKey(alg, key, encode(sha256(canonical).digest()).decode())


def _named(jwk: Mapping[str, Any], **wanted: str) -> dict[str, str]:
    if any(jwk.get(name) != value for name, value in wanted.items()):
        _refuse("the key is of another kind than alg")
    return wanted


def _octets(value: Any, length: int) -> bytes:
    if not isinstance(value, str) or not value.isascii():
        _refuse("a member of the key is no text")
    found = decode(value.encode())
    if len(found) != length:
        _refuse("a member of the key has not its length")
    return found


def _integer(value: Any) -> int:
    """Base64urlUInt (RFC 7518 section 2): as few octets as it takes, so that a key has one thumbprint."""
    if not isinstance(value, str) or not value.isascii() or len(value) > 1024:
        _refuse("a member of the key is no number")
    found = decode(value.encode())
    if found[0] == 0:
        _refuse("a number of the key begins with zeros")
    return int.from_bytes(found, "big")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("a member of an object comes twice")
    return found


def _constant(name: str) -> NoReturn:
    _refuse(f"{name} is not JSON")


def _refuse(reason: str) -> NoReturn:
    raise MalformedError(reason)
