"""Registered clients for tests: making them, and what they show of themselves."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from urllib.parse import quote_plus

from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.oauth.client_auth import ASSERTION_TYPE
from gateway.oauth.digests import sha256
from policies.facts import Role
from tenants.clients import AuthMethod, GrantType, OAuthClient, Plane
from tenants.ids import OrgId, ServiceId
from tenants.models import Service
from tests.unit.oauth.conftest import ACME, BY, ISSUER, Bench

SECRET = "s3cret+/% with:colons"
CI = ServiceId("svc_ci")
MACHINE: dict[str, Any] = {
    "auth_method": AuthMethod.CLIENT_SECRET_BASIC,
    "grant_types": (GrantType.CLIENT_CREDENTIALS,),
    "redirect_uris": (),
    "service": CI,
}
Key = RSAKey | ECKey | OKPKey
RSA = RSAKey.generate_key(2048, parameters={"kid": "rsa"})
EC = ECKey.generate_key("P-256", parameters={"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", parameters={"kid": "ed"})


def jwks(*keys: Key) -> str:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]})


async def register(bench: Bench, name: str = "app", org: OrgId = ACME, **changes: Any) -> OAuthClient:
    """A client of `org`, with `SECRET` where it has one."""
    values: dict[str, Any] = {
        "title": "An App",
        "auth_method": AuthMethod.CLIENT_SECRET_BASIC,
        "redirect_uris": ("https://app.example/cb",),
        "planes": (Plane.DATA,),
        **changes,
    }
    store = bench.control.for_org(org)
    made = await store.clients.create(OAuthClient(org=org, name=name, **values), BY)
    if made.auth_method in {AuthMethod.CLIENT_SECRET_BASIC, AuthMethod.CLIENT_SECRET_POST}:
        await store.clients.add_secret(name, sha256(SECRET), 0, BY)
    return made


async def account(bench: Bench, org: OrgId = ACME, **changes: Any) -> Service:
    values: dict[str, Any] = {"name": "ci", "roles": (Role.MEMBER,), **changes}
    return await bench.control.for_org(org).services.create(Service(org=org, id=CI, **values), BY)


def basic(client: str = "acme.app", secret: str = SECRET) -> str:
    return "Basic " + b64encode(f"{quote_plus(client)}:{quote_plus(secret)}".encode()).decode()


def assertion(bench: Bench, key: Key = EC, alg: str = "ES256", **changes: Any) -> dict[str, str]:
    """The parameters of `private_key_jwt`. A change to None leaves a claim out; `header` changes that."""
    header = {"alg": alg, "kid": key.kid, **changes.pop("header", {})}
    now = int(bench.now)
    claims = {"iss": "acme.app", "sub": "acme.app", "aud": ISSUER, "jti": "one", "iat": now, "exp": now + 60}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    text = jwt.encode({k: v for k, v in header.items() if v is not None}, claims, key, algorithms=[header["alg"]])
    return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": text}
