"""RFC 8414: what the server says of itself, held against its routes and against what it does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from msgspec import structs

from gateway.api.relay_control import RELAYED
from gateway.oauth.client_auth import ALGORITHMS
from tenants.clients import AuthMethod, GrantType
from tests.unit.oauth.conftest import ACME, BY, ISSUER, Bench
from tests.unit.oauth.registered import EC, ED, RSA, SECRET, Key, assertion, basic, jwks, register

Http = AsyncTestClient[Litestar]
WELL_KNOWN = "/.well-known/oauth-authorization-server"
PAGES = {"/oauth/device", "/oauth/invitation", "/oauth/account"}
"""Of people alone: no client is sent there by what it reads in the metadata."""


async def said(client: Http) -> dict[str, Any]:
    answer = await client.get(WELL_KNOWN)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_every_endpoint_is_served_and_every_one_that_is_served_is_said(client: Http) -> None:
    found = await said(client)
    assert found["issuer"] == ISSUER
    named = {url.removeprefix(ISSUER) for name, url in found.items() if name.endswith(("_endpoint", "_uri"))}
    for path in named:
        method = "GET" if "GET" in RELAYED[path] else "POST"
        assert (await client.request(method, path)).status_code not in {404, 405}, path
    people = {path for path in RELAYED if path in PAGES or path.startswith(("/oauth/account", "/oauth/sso"))}
    factors = {path for path in RELAYED if "factor" in path}
    assert set(RELAYED) - people - factors - {WELL_KNOWN} == named


async def test_a_grant_is_supported_exactly_when_it_is_said(client: Http, bench: Bench) -> None:
    await register(bench)
    grants = (await said(client))["grant_types_supported"]
    assert set(grants) == set(GrantType)
    for grant in [*grants, "password", "implicit", "urn:ietf:params:oauth:grant-type:jwt-bearer"]:
        form = {"grant_type": grant, "client_id": "orgate-cli"}
        answer = await client.post("/oauth/token", data=form)
        assert (answer.json()["error"] == "unsupported_grant_type") == (grant not in grants), grant


@pytest.mark.parametrize("endpoint", ["token", "revocation", "introspection"])
async def test_a_client_authenticates_exactly_as_is_said(client: Http, bench: Bench, endpoint: str) -> None:
    """Each method that there is, tried at each endpoint with a client that is registered for it."""
    supported = (await said(client))[f"{endpoint}_endpoint_auth_methods_supported"]
    path = {"token": "token", "revocation": "revoke", "introspection": "introspect"}[endpoint]
    made = await register(bench)
    clients = bench.control.for_org(ACME).clients
    ways: dict[AuthMethod, tuple[dict[str, str], dict[str, str]]] = {
        AuthMethod.CLIENT_SECRET_BASIC: ({}, {"authorization": basic()}),
        AuthMethod.CLIENT_SECRET_POST: ({"client_id": "acme.app", "client_secret": SECRET}, {}),
        AuthMethod.PRIVATE_KEY_JWT: (assertion(bench), {}),
        AuthMethod.NONE: ({"client_id": "acme.app"}, {}),
    }
    assert set(ways) == set(AuthMethod)
    for version, (method, (form, headers)) in enumerate(ways.items(), start=1):
        keys = jwks(EC) if method is AuthMethod.PRIVATE_KEY_JWT else ""
        await clients.replace(structs.replace(made, auth_method=method, jwks=keys), version, BY)
        asked = {"grant_type": "refresh_token", "refresh_token": "x", "token": "x", **form}
        answer = await client.post(f"/oauth/{path}", data=asked, headers=headers)
        assert (answer.status_code == 401) == (method not in supported), method


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_assertions_are_signed_exactly_as_is_said(client: Http, bench: Bench) -> None:
    found = await said(client)
    said_of = {name: algs for name, algs in found.items() if name.endswith("_auth_signing_alg_values_supported")}
    assert len(said_of) == 3
    assert {json.dumps(algs) for algs in said_of.values()} == {json.dumps(ALGORITHMS)}
    await register(bench, auth_method=AuthMethod.PRIVATE_KEY_JWT, jwks=jwks(RSA, EC, ED))
    keys: dict[str, Key] = {"ES256": EC, "EdDSA": ED, "Ed25519": ED}
    for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "ES256", "EdDSA", "Ed25519"):
        form = {**assertion(bench, keys.get(alg, RSA), alg, jti=alg), "token": "x"}
        answer = await client.post("/oauth/introspect", data=form)
        assert (answer.status_code == 200) == (alg in ALGORITHMS), alg


async def test_what_is_said_of_authorization_requests_holds(client: Http) -> None:
    found = await said(client)
    asked = {
        "client_id": "orgate-cli",
        "redirect_uri": "http://127.0.0.1:9/callback",
        "response_type": "code",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
    }
    assert (found["response_types_supported"], found["response_modes_supported"]) == (["code"], ["query"])
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert found["require_pushed_authorization_requests"] is False
    for changes, good in (
        ({}, True),
        ({"response_mode": "query"}, True),
        ({"response_mode": "fragment"}, False),
        ({"response_type": "token"}, False),
        ({"code_challenge_method": "plain"}, False),
        *(({"scope": scope}, scope == "inference") for scope in found["scopes_supported"]),
    ):
        answer = await client.get("/oauth/authorize", params={**asked, **changes}, follow_redirects=False)
        assert (answer.status_code == 200) == good, changes
        if not good:
            assert f"iss={ISSUER.replace(':', '%3A').replace('/', '%2F')}" in answer.headers["location"]
    assert found["authorization_response_iss_parameter_supported"] is True
