"""Revocation, RFC 7009, and metadata, RFC 8414."""

from __future__ import annotations

import pytest

from gateway.oauth.errors import InvalidClientError, InvalidGrantError, InvalidRequestError
from tests.unit.oauth.conftest import ACME, ADA, HERE, ISSUER, Bench


async def _revoke(bench: Bench, token: str, client: str = "orgate-cli") -> None:
    await bench.service.revoke({"token": token, "client_id": client}, HERE)


async def test_a_refresh_token_ends_its_family_also_one_already_rotated(bench: Bench) -> None:
    first = (await bench.login())["refresh_token"]
    second = (await bench.refresh(first))["refresh_token"]
    await _revoke(bench, first)
    with pytest.raises(InvalidGrantError):
        await bench.refresh(second)
    await _revoke(bench, first)
    assert [c.target for c in await bench.noted("session.revoke")] == [ADA]


async def test_an_access_token_goes_onto_the_revocation_list_alone(bench: Bench) -> None:
    tokens = await bench.login()
    claims = bench.signing.own_claims(tokens["access_token"])
    assert claims is not None
    await _revoke(bench, tokens["access_token"])
    (entry,) = await bench.control.revocations(int(bench.now))
    assert (entry.org, entry.member, entry.token_id) == (ACME, ADA, claims["jti"])
    assert entry.expires_at > claims["exp"]
    assert (await bench.refresh(tokens["refresh_token"]))["refresh_token"]


async def test_taking_an_access_token_back_again_writes_nothing(bench: Bench) -> None:
    token = (await bench.login())["access_token"]
    await _revoke(bench, token)
    version, written = await bench.control.version(), await bench.control.outbox()
    for _ in range(3):
        await _revoke(bench, token)
    assert (await bench.control.version(), await bench.control.outbox()) == (version, written)


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_another_client_s_token_is_not_taken_back(bench: Bench, kind: str) -> None:
    tokens = await bench.login()
    with pytest.raises(InvalidGrantError):
        await _revoke(bench, tokens[kind], "orgate-editor")
    assert await bench.control.revocations(int(bench.now)) == ()
    assert (await bench.refresh(tokens["refresh_token"]))["refresh_token"]


@pytest.mark.parametrize(
    "token", ["x", "a.b.c", "..", "ogr_" + "A" * 86, "e30.e30.e30", "eyJhbGciOiJub25lIn0.e30.", "é", "A" * 9000]
)
async def test_an_unknown_token_is_no_error(bench: Bench, token: str) -> None:
    await _revoke(bench, token)
    assert await bench.noted("session.revoke") == []


async def test_a_forged_access_token_revokes_nothing(bench: Bench) -> None:
    head, body, signature = (await bench.login())["access_token"].split(".")
    await _revoke(bench, f"{head}.{body[:-4]}AAAA.{signature}")
    assert await bench.control.revocations(int(bench.now)) == ()


async def test_the_request_itself_is_judged(bench: Bench) -> None:
    with pytest.raises(InvalidRequestError):
        await bench.service.revoke({"client_id": "orgate-cli"}, HERE)
    with pytest.raises(InvalidClientError):
        await bench.service.revoke({"token": "x"}, HERE)


def test_metadata_names_what_exists_and_nothing_else(bench: Bench) -> None:
    metadata = bench.service.metadata()
    assert metadata["issuer"] == ISSUER
    endpoints = {name: url for name, url in metadata.items() if name.endswith(("_endpoint", "_uri"))}
    assert endpoints == {
        "authorization_endpoint": f"{ISSUER}/oauth/authorize",
        "token_endpoint": f"{ISSUER}/oauth/token",
        "device_authorization_endpoint": f"{ISSUER}/oauth/device_authorization",
        "pushed_authorization_request_endpoint": f"{ISSUER}/oauth/par",
        "revocation_endpoint": f"{ISSUER}/oauth/revoke",
        "introspection_endpoint": f"{ISSUER}/oauth/introspect",
        "jwks_uri": f"{ISSUER}/.well-known/jwks.json",
    }
    assert metadata["response_types_supported"] == ["code"]
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["authorization_response_iss_parameter_supported"] is True
    methods = ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]
    assert metadata["token_endpoint_auth_methods_supported"] == methods
    assert metadata["introspection_endpoint_auth_methods_supported"] == methods[1:]
