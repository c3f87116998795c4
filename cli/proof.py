"""A key that this machine's logins are bound to, and the proofs that it makes: DPoP, RFC 9449.

Whoever copies the login's tokens alone has nothing. Whoever copies the whole file has the key with them: it
protects against tokens that leak on their way, in logs and histories, and not against a thief of the disk.
"""

from __future__ import annotations

import secrets
import time
from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import json

if TYPE_CHECKING:  # 20 ms of import, for who needs it
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

HEADER = "dpop"


class ProofKey:
    """An ES256 key. `pem`: PKCS#8 without a password, as the login keeps it."""

    def __init__(self, pem: str) -> None:
        self.pem = pem
        self._key: EllipticCurvePrivateKey | None = None

    def __repr__(self) -> str:
        return "ProofKey(***)"

    @classmethod
    def new(cls) -> ProofKey:
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        made = generate_private_key(SECP256R1())
        return cls(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())

    @property
    def thumbprint(self) -> str:
        """RFC 7638."""
        jwk = self._jwk()
        return _text(sha256(json.encode({name: jwk[name] for name in ("crv", "kty", "x", "y")})).digest())

    def proof(self, method: str, url: str, *, token: str = "", nonce: str = "") -> str:
        """For one request to `url`, with `token` if it carries one. A new one for each."""
        claims: dict[str, str | int] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url.partition("?")[0],
            "iat": int(time.time()),
        }
        if token:
            claims["ath"] = _text(sha256(token.encode()).digest())
        if nonce:
            claims["nonce"] = nonce
        head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self._jwk()}
        signed = f"{_text(json.encode(head))}.{_text(json.encode(claims))}"
        return f"{signed}.{_text(self._signature(signed.encode()))}"

    def _jwk(self) -> dict[str, str]:
        point = self._private().public_key().public_numbers()
        x, y = (_text(value.to_bytes(32, "big")) for value in (point.x, point.y))
        return {"crv": "P-256", "kty": "EC", "x": x, "y": y}

    def _signature(self, signed: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256

        r, s = decode_dss_signature(self._private().sign(signed, ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def _private(self) -> EllipticCurvePrivateKey:
        if self._key is None:
            from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
            from cryptography.hazmat.primitives.serialization import load_pem_private_key

            found = load_pem_private_key(self.pem.encode(), password=None)
            if not isinstance(found, EllipticCurvePrivateKey):
                raise TypeError("the login's key is none for ES256")
            self._key = found
        return self._key


def _text(data: bytes) -> str:
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(data).rstrip(b"=").decode()
