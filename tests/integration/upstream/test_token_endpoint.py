"""Asking a token endpoint over real sockets: whatever it does, a token or words that may be logged, within 2 s."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.secret import Secret
from gateway.upstream.auth.grant import LONGEST_LIFE_S, UNSAID_LIFE_S, Grant, GrantError, TokenEndpoints
from gateway.upstream.auth.shapes import Client
from tenants.ids import OrgId
from tenants.models import Upstream
from tests.fakes.token_endpoint import TokenEndpoint
from tests.integration.upstream.caller import LOOPBACK
from tests.kit.certs import Pki
from tests.kit.ports import free_port

UP = Upstream(OrgId("acme"), "up", "https://model.example")
ENDPOINTS = TokenEndpoints(allowed=LOOPBACK)


async def ask(endpoint: TokenEndpoint | None = None, **fields: Any) -> Grant:
    secret = Secret(fields.pop("client_secret", "cs-planted"))
    url = endpoint.url if endpoint is not None else fields.pop("token_url")
    return await ENDPOINTS.ask(UP, Client(url, fields.pop("client_id", "gw"), secret, **fields))


async def refused(endpoint: TokenEndpoint | None = None, **fields: Any) -> str:
    with pytest.raises(GrantError) as error:
        await ask(endpoint, **fields)
    assert "planted" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("client_auth", ["basic", "post"])
async def test_a_client_says_who_it_is_in_one_way(client_auth: str) -> None:
    async with TokenEndpoint() as endpoint:
        grant = await ask(endpoint, client_auth=client_auth, scope="models", audience="https://model.example")
        assert (grant.token.reveal().decode(), grant.life_s) == (endpoint.given[0], 3600.0)
        sent = bytes(endpoint.server.requests[0].body)
        assert b"scope=models&audience=https%3A%2F%2Fmodel.example" in sent
        assert not endpoint.server.faults


async def test_what_would_break_basic_is_coded_first() -> None:
    """RFC 6749 section 2.3.1: a ':' in the id or a '%' in the secret is not what it seems."""
    async with TokenEndpoint() as endpoint:
        endpoint.clients["acme:gw"] = "cs planted%2F+"
        await ask(endpoint, client_id="acme:gw", client_secret="cs planted%2F+")
        assert len(endpoint.given) == 1


async def test_over_tls_with_an_authority_of_its_own(pki: Pki) -> None:
    async with TokenEndpoint(tls=pki.server_context()) as endpoint:
        await ask(endpoint, ca_pem=pki.ca_pem)
        assert "cannot be asked (ConnectError)" in await refused(endpoint)
        assert len(endpoint.given) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"client_secret": "cs-planted-2"}, "answered status 401 (invalid_client)"),
        ({"client_id": "planted"}, "answered status 401 (invalid_client)"),
        ({"scope": "planted"}, "answered status 400 (invalid_scope)"),
    ],
)
async def test_a_refusal_is_told_by_its_code_alone(fields: dict[str, str], says: str) -> None:
    async with TokenEndpoint() as endpoint:
        assert says in await refused(endpoint, **fields)


@pytest.mark.parametrize("status", [302, 307, 400, 401, 403, 429, 500, 503])
async def test_an_answer_that_is_none_is_not_passed_on(status: int) -> None:
    async with TokenEndpoint() as endpoint:
        endpoint.status = status
        assert await refused(endpoint) == f"the token endpoint answered status {status}"
        assert endpoint.asked == 1, "a redirect is not followed"


@pytest.mark.parametrize(
    ("body", "life_s"),
    [
        (b'{"access_token": "t", "token_type": "BEARER", "expires_in": 1}', 1.0),
        (b'{"access_token": "t", "token_type": "Bearer", "expires_in": "3599"}', 3599.0),
        (b'{"access_token": "t", "token_type": "Bearer", "expires_in": 1.5, "scope": "x"}', 1.5),
        (b'{"access_token": "t", "token_type": "Bearer"}', UNSAID_LIFE_S),
        (b'{"access_token": "t", "token_type": "Bearer", "expires_in": 1e300}', LONGEST_LIFE_S),
    ],
)
async def test_a_life_as_endpoints_write_it(body: bytes, life_s: float) -> None:
    async with TokenEndpoint() as endpoint:
        endpoint.raw = body
        assert (await ask(endpoint)).life_s == life_s


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>planted",
        b"[" * 60_000,
        b'["planted"]',
        b'{"access_token": 7, "token_type": "Bearer"}',
        b'{"access_token": "planted"}',
        b'{"access_token": "planted", "token_type": "mac"}',
        b'{"access_token": "", "token_type": "Bearer"}',
        b'{"access_token": "planted\\r\\nx: y", "token_type": "Bearer"}',
        b'{"access_token": "planted\\u20ac", "token_type": "Bearer"}',
        b'{"access_token": "planted", "token_type": "Bearer", "expires_in": 0}',
        b'{"access_token": "planted", "token_type": "Bearer", "expires_in": -5}',
        b'{"access_token": "planted", "token_type": "Bearer", "expires_in": true}',
        b'{"access_token": "planted", "token_type": "Bearer", "expires_in": "soon"}',
        b'{"access_token": "planted", "token_type": "Bearer", "expires_in": null}',
        b'{"access_token": "' + b"planted" * 10_000 + b'", "token_type": "Bearer"}',
    ],
)
async def test_what_is_no_token_is_not_taken_for_one(body: bytes) -> None:
    async with TokenEndpoint() as endpoint:
        endpoint.raw = body
        await refused(endpoint)


async def test_one_that_is_silent_is_not_waited_for() -> None:
    async with TokenEndpoint() as endpoint:
        endpoint.go_on.clear()
        async with asyncio.timeout(60):
            assert await refused(endpoint) == "the token endpoint did not answer in 1.8 s"
        endpoint.go_on.set()


async def test_one_that_is_down() -> None:
    said = await refused(token_url=f"http://127.0.0.1:{free_port()}/token")
    assert said == "the token endpoint cannot be asked (ConnectError)"


@pytest.mark.parametrize("host", ["169.254.169.254", "10.1.2.3", "[::ffff:10.1.2.3]", "0.0.0.0", "[fd00::1]"])
async def test_it_may_not_be_in_a_private_network(host: str) -> None:
    said = await refused(token_url=f"https://{host}/latest/meta-data")
    assert "the token endpoint is refused" in said
    assert "not allowed" in said


async def test_a_secret_does_not_go_out_in_clear_text() -> None:
    """A key that another hand put into the store has been judged by nobody."""
    said = await refused(token_url="http://idp.example/planted")
    assert said == "token_url begins with https://: the client's secret is sent there"


async def test_a_name_that_leads_to_a_private_network_is_refused() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["10.1.2.3"]

    endpoints = TokenEndpoints(resolver=resolve)
    with pytest.raises(GrantError, match="a private address"):
        await endpoints.ask(UP, Client("https://idp.example/token", "gw", Secret("cs-planted")))
