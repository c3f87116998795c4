"""A client known to abandon at once is held a moment: what it cancels in that moment never reaches the model."""

from __future__ import annotations

import asyncio

import pytest

from gateway.counters import FAST_CANCEL_US
from tests.integration.gateway.bed import lay
from tests.integration.gateway.invariants import CLIENT, metrics
from tests.integration.gateway.typists import organize, settle_on, type_in
from tests.integration.gateway.world import World
from tests.kit.gateway import RunningGateway

HELD = "slowpoke/1.4.2"
PAIRS = 10
"""HEADERS and RST_STREAM in one packet, each in a flight of its own: the front allows 20 in one."""


@pytest.fixture(scope="module")
def holding(world: World) -> World:
    return organize(world, holds=["slowpoke/1.4.*=50"])


def fast_cancels(gateway: RunningGateway, org: str) -> dict[str, float]:
    """What the metrics show now, by client."""
    series = metrics(gateway).get("orgate_fast_cancels_total", [])
    return {labels["client"]: value for labels, value in series if labels["org"] == org}


async def until_counted(world: World, expected: dict[str, float]) -> None:
    """Workers report once a second."""
    end = asyncio.get_running_loop().time() + 60
    while True:
        found = await asyncio.to_thread(fast_cancels, world.gateway, world.owner.org)
        if {client: found.get(client, 0) for client in expected} == expected:
            return
        assert asyncio.get_running_loop().time() < end, f"{found}, not {expected}"
        await asyncio.sleep(0.05)


async def test_a_cancel_within_the_hold_never_reaches_the_model_and_costs_nothing(holding: World) -> None:
    async with lay(holding) as bed:
        for _ in range(PAIRS):
            asked = type_in(bed, {"x-orgate-client": HELD}, together=True)
            asked.outcome = CLIENT
            asked.entry = {"status": 499, "sent": False, "client_version": HELD}
            await bed.seen()
        await bed.verify(resets=0)
        assert len(bed.upstream.requests) == 2
        await until_counted(holding, {HELD: PAIRS})


async def test_what_is_not_cancelled_is_served_after_it(holding: World) -> None:
    async with lay(holding) as bed:
        asked = type_in(bed, {"editor-plugin-version": HELD, "user-agent": "node"})
        request = await (await bed.upstream.arrived(2)).complete()
        request.respond_json({"object": "text_completion", "choices": []})
        await asked.stream.complete()
        assert asked.stream.status == 200
        asked.entry = {"client_version": HELD, "sent": True}
        await bed.verify(resets=0)


async def test_a_hold_is_live_at_once_and_gone_at_once(holding: World) -> None:
    async with lay(holding) as bed:
        await asyncio.to_thread(settle_on, holding.owner, holds=["hasty/*=50"])
        asked = type_in(bed, {"user-agent": "hasty/9 (a comment)"}, together=True)
        asked.outcome, asked.entry = CLIENT, {"sent": False, "client_version": "hasty/9"}
        await bed.verify(resets=0)
        await until_counted(holding, {"hasty/9": 1})


async def test_a_slow_cancel_is_not_counted(world: World) -> None:
    """One that had been served for a while says nothing of the client's build."""
    async with lay(world) as bed:
        asked = type_in(bed, {"x-orgate-client": "patient/1"})
        request = await (await bed.upstream.arrived(2)).complete()
        now = asyncio.get_running_loop().time
        late = now() + 2 * FAST_CANCEL_US / 1_000_000
        while now() < late:
            await bed.canary.beat()
        asked.stream.reset()
        await request.reset()
        asked.outcome, asked.entry = CLIENT, {"sent": True, "client_version": "patient/1"}
        await bed.verify(resets=1)  # it waits until the metrics count what the log has
        assert "patient/1" not in await asyncio.to_thread(fast_cancels, world.gateway, world.owner.org)


async def test_what_a_client_says_of_itself_is_bounded(world: World) -> None:
    async with lay(world) as bed:
        asked = type_in(bed, {"x-orgate-client": "def secret(): pass"}, together=True)
        asked.outcome, asked.entry = CLIENT, {"client_version": "unknown"}
        entry = (await bed.log.of([asked.request_id]))[asked.request_id]
        await bed.verify(resets=int(entry["sent"]))
