"""A service account in a whole gateway: it asks, is limited and written down in its own name, and is shut out."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from tests.integration.gateway.bed import lay
from tests.integration.gateway.test_limits_path import answer, denied, limited, refused
from tests.integration.gateway.world import SSE_HEAD, World, sse
from tests.kit.gateway import Session


def made(world: World, name: str) -> tuple[str, str]:
    """A service account with a client of the same name: (its id, the client's secret)."""
    service = world.owner.create("services", name=name)
    world.owner.create(
        "clients",
        name=name,
        title=name,
        auth_method="client_secret_basic",
        grant_types=["client_credentials"],
        service=service["id"],
    )
    path = f"/admin/v1/orgs/acme/clients/{name}/secret"
    secret = world.owner.admin("POST", path, json={}).json()["secret"]
    return service["id"], secret


def token_of(world: World, name: str, secret: str) -> httpx.Response:
    form = {"grant_type": "client_credentials"}
    return world.gateway.http.post(world.gateway.url + "/oauth/token", data=form, auth=(f"acme.{name}", secret))


def session_of(world: World, name: str, secret: str) -> Session:
    found = token_of(world, name, secret)
    assert found.status_code == 200, found.text
    return Session(world.gateway, "acme", "", found.json()["access_token"], "")


def models(world: World, session: Session) -> int:
    """The status of a request that needs no model."""
    return world.gateway.http.get(world.gateway.url + "/v1/models", headers=session.bearer).status_code


async def test_a_service_account_asks_in_its_own_name(world: World) -> None:
    service, secret = await asyncio.to_thread(made, world, "ci")
    session = await asyncio.to_thread(session_of, world, "ci", secret)
    async with lay(world, slots=4) as bed:
        with limited(
            world.owner, "ci-only", scope="member", subject=service, unit="requests", amount=1, period_s=3_600
        ):
            asked, request = await bed.next(session=session)
            await answer(asked, request, 5)
            later, error = await refused(bed, session)
            assert error["limit"] == "ci-only"
            denied(later, "ci-only", "rate_limit_exceeded")
            entries = await bed.verify(resets=0)
        for one in (asked, later):
            assert (entries[one.request_id]["actor"], entries[one.request_id]["client"]) == (service, "acme.ci")


async def test_a_suspended_service_account_is_shut_out(world: World) -> None:
    service, secret = await asyncio.to_thread(made, world, "cd")
    session = await asyncio.to_thread(session_of, world, "cd", secret)

    def act(verb: str) -> dict[str, Any]:
        path = f"/admin/v1/orgs/acme/services/{service}/{verb}"
        found: dict[str, Any] = world.owner.admin("POST", path).json()
        return found

    async with lay(world, slots=4) as bed:
        asked, request = await bed.next(session=session)
        request.respond(200, SSE_HEAD)
        request.send(sse("w"))
        await asked.stream.received(1)
        await asyncio.to_thread(act, "suspend")
        await request.reset()
        asked.outcome, asked.entry = "revoked", {"status": 401, "sent": True}
        assert await asyncio.to_thread(models, world, session) == 401
        refusal = await asyncio.to_thread(token_of, world, "cd", secret)
        assert (refusal.status_code, refusal.json()["error"]) == (400, "invalid_grant")
        await asyncio.to_thread(act, "resume")
        fresh = await asyncio.to_thread(session_of, world, "cd", secret)
        assert await asyncio.to_thread(models, world, fresh) == 200
        assert await asyncio.to_thread(models, world, session) == 401
        await bed.verify(resets=1)
