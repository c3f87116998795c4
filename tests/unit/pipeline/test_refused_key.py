"""A model that does not take the key: the lease is told which version it was, another key is tried once."""

from __future__ import annotations

from contextlib import suppress

import httpx
import pytest

from gateway.errors import GatewayError, KeyRefusedError
from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.upstream.transport import UpstreamAnswer
from tests.unit.pipeline.world import ACME, FakeStream, World, run, upstream_answer


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_tells_the_leases_which_version_was_refused(status: int) -> None:
    world = World()
    world.answers(status, FakeStream(b"{}"))
    with pytest.raises(KeyRefusedError):
        await run(world)
    ((org, upstream, version),) = world.refused_keys
    assert org == ACME
    assert version > 0
    assert upstream
    assert len(world.requests) == 1


async def test_another_key_is_tried_once() -> None:
    world = World()
    world.other_key = Credential(1, Secret(b"sk-before"))
    world.answers(401, FakeStream(b"{}"))
    with pytest.raises(KeyRefusedError):
        await run(world)
    assert [request.headers["authorization"] for request in world.requests][1:] == ["Bearer sk-before"]
    (receipt,) = world.receipts
    assert receipt.key_version == 1
    assert world.outdone_keys == []  # both were refused: the request may be at fault, and anybody can write one


async def test_a_key_is_outdone_by_another_that_the_model_takes_for_the_same_request() -> None:
    world = World()
    world.other_key = Credential(1, Secret(b"sk-before"))

    async def respond(request: httpx.Request) -> UpstreamAnswer:
        good = request.headers["authorization"] == "Bearer sk-before"
        return upstream_answer(200 if good else 403, FakeStream(b"{}"), "application/json")

    world.respond = respond
    await run(world)
    assert world.outdone_keys == world.refused_keys != []


@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_nothing_else_does(status: int) -> None:
    world = World()
    world.answers(status, FakeStream(b'{"error":{"message":"no"}}'), "application/json")
    with suppress(GatewayError):
        await run(world)
    assert len(world.requests) == 1
    assert world.refused_keys == []
