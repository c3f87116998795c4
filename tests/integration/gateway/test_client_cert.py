"""A model behind mutual TLS, through the gateway: let in with the right certificate, else a 502 that says why."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.pki import make_ca
from tests.integration.gateway.bed import prepare
from tests.integration.gateway.refusals import refused
from tests.integration.gateway.world import Log, World, bind
from tests.kit.client_certs import Demanding, Doorman, issue, texts
from tests.kit.upstream import RecordingUpstream


@pytest.fixture
def demanding(tmp_path: Path, world: World) -> Demanding:
    return Demanding(tmp_path, world.pki)


async def admin(world: World, method: str, model: str, what: str, **more: Any) -> Any:
    path = f"/admin/v1/orgs/acme/upstreams/{model}/{what}"
    answer = await asyncio.to_thread(world.owner.admin, method, path, **more)
    return answer.json() if answer.content else None


async def complete(world: World, model: str, upstream: RecordingUpstream | None = None) -> tuple[int, Any]:
    """One completion; its status and, when it was refused, its error."""
    log = await asyncio.to_thread(Log, world.owner)
    async with await world.connect() as client:
        asked, headers, body = prepare(world.ada.session, model, stream=False)
        asked.stream = client.request("POST", "/v1/completions", headers, body)
        if upstream is not None:
            request = await (await upstream.arrived(len(upstream.requests) or 1)).complete()
            request.respond_json({"object": "text_completion", "choices": []})
        stream = await asked.stream.complete()
        entry = (await log.of([asked.request_id]))[asked.request_id]
        assert entry["status"] == stream.status
        if stream.status == 200:
            return 200, None
        assert entry["outcome"] == "upstream_error"
        return stream.status, refused(
            stream.status, stream.headers, stream.body, expect=502, code="upstream_error"
        )


async def test_a_certificate_lets_in_until_it_is_removed(world: World, demanding: Demanding) -> None:
    async with RecordingUpstream(tls=demanding.context()) as upstream:
        model = await asyncio.to_thread(bind, world.owner, world.pki, upstream.url)
        status, _ = await complete(world, model)
        assert status == 502

        stranger = texts(issue(make_ca("Somebody's CA")))
        await admin(world, "PUT", model, "cert", json=stranger)
        status, _ = await complete(world, model)
        assert status == 502

        await admin(world, "PUT", model, "cert", json=texts(issue(demanding.ca, "gw.acme.example")))
        assert (await complete(world, model, upstream))[0] == 200
        probing = asyncio.ensure_future(admin(world, "POST", model, "test"))
        (await (await upstream.arrived(2)).complete()).respond_json({"data": []})
        assert (await probing)["ok"] is True
        assert (await admin(world, "GET", model, "cert"))["subject"] == "CN=gw.acme.example"

        await admin(world, "DELETE", model, "cert")
        status, _ = await complete(world, model)
        assert status == 502
        assert len(upstream.requests) == 2


async def test_the_refusal_says_what_the_server_wants(world: World, demanding: Demanding) -> None:
    with Doorman(demanding.context()) as upstream:
        model = await asyncio.to_thread(bind, world.owner, world.pki, upstream.url)
        _, error = await complete(world, model)
        assert "wants a client certificate, and none is set" in error["message"]
        assert "wants a client certificate" in (await admin(world, "POST", model, "test"))["detail"]
        await admin(world, "PUT", model, "cert", json=texts(issue(make_ca("Somebody's CA"))))
        _, error = await complete(world, model)
        assert "refused the gateway's client certificate" in error["message"]
