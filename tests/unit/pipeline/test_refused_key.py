"""A model that does not take the key: the lease is told which version it was, and nothing else is."""

from __future__ import annotations

from contextlib import suppress

import pytest

from gateway.errors import GatewayError, KeyRefusedError
from tests.unit.pipeline.world import ACME, FakeStream, World, run


async def test_a_401_tells_the_leases_which_version_was_refused() -> None:
    world = World()
    world.answers(401, FakeStream(b"{}"))
    with pytest.raises(KeyRefusedError):
        await run(world)
    ((org, upstream, version),) = world.refused_keys
    assert org == ACME
    assert version > 0
    assert upstream


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
async def test_nothing_else_does(status: int) -> None:
    world = World()
    world.answers(status, FakeStream(b'{"error":{"message":"no"}}'), "application/json")
    with suppress(GatewayError):
        await run(world)
    assert len(world.requests) == 1
    assert world.refused_keys == []
