"""Keys that make DPoP proofs, right and wrong, without the code under test: raw JSON, raw base64."""

from __future__ import annotations

import hashlib
import json
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass(frozen=True)
class ProofKey:
    """One client's key. `alg` is what its proofs are signed with."""

    alg: str
    private: PrivateKey

    @classmethod
    def make(cls, alg: str = "ES256") -> ProofKey:
        if alg == "ES256":
            return cls(alg, ec.generate_private_key(ec.SECP256R1()))
        if alg in {"RS256", "PS256"}:
            return cls(alg, rsa_key())
        return cls(alg, ed25519.Ed25519PrivateKey.generate())

    @property
    def jwk(self) -> dict[str, str]:
        public = self.private.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey):
            point = public.public_numbers()
            x, y = (b64(value.to_bytes(32, "big")) for value in (point.x, point.y))
            return {"kty": "EC", "crv": "P-256", "x": x, "y": y}
        if isinstance(public, rsa.RSAPublicKey):
            of = public.public_numbers()
            return {"kty": "RSA", "n": number(of.n), "e": number(of.e)}
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}

    @property
    def jkt(self) -> str:
        """RFC 7638: the required members alone, in their order."""
        canonical = json.dumps(self.jwk, sort_keys=True, separators=(",", ":"))
        return b64(hashlib.sha256(canonical.encode()).digest())

    def sign(self, header: str | dict[str, Any], payload: str | dict[str, Any]) -> str:
        """A compact JWS over exactly these; a str is taken as raw JSON."""
        parts = [part if isinstance(part, str) else json.dumps(part) for part in (header, payload)]
        signed = ".".join(b64(part.encode()) for part in parts)
        return f"{signed}.{b64(self.signature(signed.encode()))}"

    def signature(self, signed: bytes) -> bytes:
        key = self.private
        if isinstance(key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if isinstance(key, rsa.RSAPrivateKey):
            padding = PSS(MGF1(SHA256()), 32) if self.alg == "PS256" else PKCS1v15()
            return key.sign(signed, padding, SHA256())
        return key.sign(signed)

    def header(self, **changes: Any) -> dict[str, Any]:
        """A proof's header; `...` takes a member away."""
        return _changed({"typ": "dpop+jwt", "alg": self.alg, "jwk": self.jwk}, changes)

    def proof(
        self, method: str, url: str, now: float, *, token: str = "", head: Any = None, **changes: Any
    ) -> str:
        """A good proof with `changes` of its claims, and of its header by `head` (a dict)."""
        claims = {"jti": uuid.uuid4().hex, "htm": method, "htu": url, "iat": int(now)}
        if token:
            claims["ath"] = b64(hashlib.sha256(token.encode()).digest())
        return self.sign(self.header(**(head or {})), _changed(claims, changes))


def _changed(made: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (made | changes).items() if value is not ...}
