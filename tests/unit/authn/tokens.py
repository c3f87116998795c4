"""Makes tokens, right and wrong, without the code under test: raw JSON, raw base64, raw RSA."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import RSAKey

from tenants.ids import OrgId
from tenants.models import Org, Revocation, State
from tenants.snapshot import Snapshot, TenantRecord

ISSUER = "https://gateway.example"
AUDIENCE = "https://gateway.example/v1"
NOW = 1_800_000_000


@cache
def key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk(name: str) -> dict[str, str]:
    public = RSAKey.import_key(key(name).public_key())
    found = public.as_dict(private=False)
    return {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": kid(name),
        "n": str(found["n"]),
        "e": str(found["e"]),
    }


def kid(name: str) -> str:
    return RSAKey.import_key(key(name).public_key()).thumbprint()


def jwks(*names: str) -> str:
    return json.dumps({"keys": [jwk(name) for name in names]})


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    made = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "mem_ada",
        "org": "acme",
        "roles": ["member"],
        "scope": "inference",
        "client_id": "orgate-cli",
        "jti": "token-1",
        "iat": NOW - 10,
        "exp": NOW + 890,
        **changes,
    }
    return {name: value for name, value in made.items() if value is not ...}


def header(**changes: Any) -> dict[str, Any]:
    made = {"typ": "at+jwt", "alg": "RS256", "kid": kid("server"), **changes}
    return {name: value for name, value in made.items() if value is not ...}


def sign(head: str | bytes | dict[str, Any], body: str | bytes | dict[str, Any], name: str = "server") -> str:
    """A compact JWS over exactly these bytes: a str or bytes is taken as raw JSON."""
    parts = [value if isinstance(value, str | bytes) else json.dumps(value) for value in (head, body)]
    signed = ".".join(b64(part.encode() if isinstance(part, str) else part) for part in parts)
    return f"{signed}.{b64(key(name).sign(signed.encode(), PKCS1v15(), SHA256()))}"


def token(**changes: Any) -> str:
    return sign(header(), claims(**changes))


def world(
    *,
    revocations: tuple[Revocation, ...] = (),
    suspended: tuple[str, ...] = (),
    keys: tuple[str, ...] = ("server",),
) -> Snapshot:
    records = [
        TenantRecord(
            Org(
                id=OrgId(name),
                name=name,
                state=State.SUSPENDED if name in suspended else State.ACTIVE,
                hosts=(f"{name}.gateway.example",),
            )
        )
        for name in ("acme", "globex")
    ]
    return Snapshot(1, records, revocations, jwks(*keys))
