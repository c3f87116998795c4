"""Innocents beside an attack: a stream that beats and requests that are asked, all the while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from tests.integration.gateway.bed import Bed, lay
from tests.integration.gateway.test_slow_reader import memory
from tests.integration.gateway.world import World, family

MIB = 1024 * 1024
GROWTH = 48 * MIB
"""What all processes together may grow by in an attack: buffers of a few hundred connections. A leak of what the
attacks send, or of a kilobyte for each of their frames, is far more."""


@asynccontextmanager
async def unharmed(world: World) -> AsyncIterator[Bed]:
    """A bed with its canary. In the end: the same processes, bounded memory, no stream left at the model."""
    async with lay(world, slots=100) as bed:
        processes, before = family(world.gateway), memory(world.gateway)
        yield bed
        assert family(world.gateway) == processes
        assert memory(world.gateway) - before < GROWTH
        await bed.canary.finish()
        assert bed.canary.request.was_reset is None
        await bed.upstream.idle()
        assert not bed.upstream.faults, bed.upstream.faults


async def beside(bed: Bed, attack: Awaitable[object]) -> int:
    """Run `attack`; returns how many innocent requests were served meanwhile. Each was, and each beat came."""
    attacking = asyncio.ensure_future(attack)
    served = 0
    try:
        while True:
            done = attacking.done()
            await bed.canary.beat()
            stream = bed.client.request("GET", "/v1/models", list(bed.world.ben.session.bearer.items()))
            assert (await stream.complete()).status == 200
            served += 1
            if done:  # once more after its end
                return served
    finally:
        attacking.cancel()
        results = await asyncio.gather(attacking, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]
