"""The client credentials grant beside what may happen meanwhile: RFC 6749 section 4.4."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.oauth.clients import Client
from gateway.oauth.errors import InvalidClientError, InvalidGrantError, OAuthError
from tenants.models import Revocation, State
from tests.unit.oauth.conftest import ACME, BY, HERE, Bench
from tests.unit.oauth.registered import CI, MACHINE, account, basic, register

FORM = {"grant_type": "client_credentials"}


async def machine(bench: Bench) -> Client:
    await account(bench)
    await register(bench, **MACHINE)
    return await bench.service.clients.client({}, HERE, (basic(),))


async def suspend_client(bench: Bench) -> None:
    clients = bench.control.for_org(ACME).clients
    await clients.replace(replace(await clients.get("app"), state=State.SUSPENDED), 1, BY)


async def suspend_service(bench: Bench) -> None:
    services = bench.control.for_org(ACME).services
    await services.replace(replace(await services.get(CI), state=State.SUSPENDED), 1, BY)


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (suspend_client, InvalidClientError),
        (suspend_service, InvalidGrantError),
        (Bench.suspend_org, InvalidClientError),
    ],
)
async def test_who_is_suspended_after_the_client_was_known_gets_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, act: object, error: type[OAuthError]
) -> None:
    """Between knowing the client and signing. Its revocation would end where such a token begins."""
    client = await machine(bench)
    read = bench.control.revocations

    async def revocations(now: int) -> tuple[Revocation, ...]:
        await act(bench)  # type: ignore[operator]
        return await read(now)

    monkeypatch.setattr(bench.control, "revocations", revocations)
    with pytest.raises(error):
        await bench.service.token(FORM, HERE, client)
    assert await bench.noted("session.") == []


async def test_a_token_of_the_second_of_a_revocation_begins_after_it(bench: Bench) -> None:
    client = await machine(bench)
    await suspend_service(bench)
    services = bench.control.for_org(ACME).services
    found = await services.get(CI)
    await services.replace(replace(found, state=State.ACTIVE), 2, BY)
    tokens = await bench.service.token(FORM, HERE, client)
    claims = bench.signing.own_claims(tokens["access_token"]) or {}
    assert claims["iat"] == found.not_before == int(bench.now) + 1
    assert "refresh_token" not in tokens
    assert "groups" not in claims


async def test_an_account_that_is_gone_gets_nothing(bench: Bench) -> None:
    client = await machine(bench)
    store = bench.control.for_org(ACME)
    await store.clients.delete("app", 1, BY)
    await store.services.delete(CI, 1, BY)
    with pytest.raises(InvalidClientError):
        await bench.service.token(FORM, HERE, client)
