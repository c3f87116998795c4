"""What attacks on JSON Web Tokens are made from: the server's key, a good token, and JWS parts written by hand."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

Part = str | bytes | Mapping[str, Any]
GONE: Any = ...
"""In a change: the member is left out."""


@dataclass
class Target:
    """`key` signs what the server signs; `head` and `claims` are those of a token that is good now."""

    key: rsa.RSAPrivateKey
    head: Mapping[str, Any]
    claims: Mapping[str, Any]
    attacker: rsa.RSAPrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )

    def header(self, **changes: Any) -> dict[str, Any]:
        return _changed(self.head, changes)

    def body(self, **changes: Any) -> dict[str, Any]:
        return _changed(self.claims, changes)

    def sign(self, head: Part, body: Part, key: rsa.RSAPrivateKey | None = None) -> str:
        """A compact JWS over exactly these bytes: a str or bytes is taken as raw JSON."""
        signed = signing_input(head, body)
        return f"{signed}.{b64((key or self.key).sign(signed.encode(), PKCS1v15(), SHA256()))}"

    def good(self) -> str:
        return self.sign(self.head, self.claims)

    def jwk(self, key: rsa.RSAPrivateKey | None = None) -> dict[str, str]:
        numbers = (key or self.key).public_key().public_numbers()
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}


Family = Callable[[Target], Iterator[str | bytes]]
"""Makes the tokens of one kind of attack."""


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def signing_input(head: Part, body: Part) -> str:
    parts = [value if isinstance(value, str | bytes) else json.dumps(value) for value in (head, body)]
    return ".".join(b64(part.encode() if isinstance(part, str) else part) for part in parts)


def _changed(made: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**made, **changes}.items() if value is not GONE}


def _number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))
