"""Stops and reloads behind the front: its health check takes the gateway out before it stops, no request fails."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from tests.integration.front.bed import Through, lay
from tests.integration.gateway.world import DONE, World, populate, sse
from tests.kit.certs import Pki
from tests.kit.front import Front
from tests.kit.gateway import RunningGateway
from tests.kit.wait import until


async def ask_on(through: Through, stop: Callable[[], bool]) -> int:
    """One request after the other through the front, on a connection of its own; returns how many were served.

    Ends, too, when the front says in its own words that no gateway is left: that is not a request that failed.
    """
    served = 0
    async with await through.front.connect() as client:
        while not stop():
            stream = client.request("GET", "/v1/models", list(through.world.ada.session.bearer.items()))
            await stream.complete()
            if stream.status == 503 and stream.json()["error"]["message"] == "no gateway is ready":
                break
            assert stream.status == 200, (served, stream.status, stream.body)
            served += 1
    return served


def build(tmp_path: Path, pki: Pki, **server: str) -> World:
    settings = {f"ORGATE_SERVER__{name.upper()}": value for name, value in server.items()}
    gateway = RunningGateway(tmp_path / "home", settings=settings)
    gateway.start()
    return populate(gateway, pki)


async def test_readyz_takes_the_gateway_out_without_a_failed_request(tmp_path: Path, pki: Pki) -> None:
    """The front asks once a second, and twice before it believes: the delay is longer than that."""
    world = await asyncio.to_thread(build, tmp_path, pki, drain_delay_s="6", drain_s="10")
    front = Front(world.gateway, tmp_path)
    await asyncio.to_thread(front.__enter__)
    try:
        async with lay(world, front) as through, await front.connect() as client:
            stream, request = await through.begun(client)
            out = asyncio.Event()
            asking = [asyncio.create_task(ask_on(through, out.is_set)) for _ in range(3)]
            assert world.gateway.process is not None
            world.gateway.process.send_signal(signal.SIGTERM)
            down = "Server orgate/gateway is DOWN"
            await asyncio.to_thread(until, lambda: down in front.log.read_text(), "the front to notice")
            out.set()
            assert all(await asyncio.gather(*asking))
            request.send(sse("second"))
            await stream.stream.received(len(sse("first") + sse("second")))
            request.send(DONE, end=True)
            await stream.stream.complete()
            refused = client.request("GET", "/v1/models", list(world.ada.session.bearer.items()))
            assert (await refused.complete()).status == 503
            assert refused.headers["retry-after"] == "1"
            assert await asyncio.to_thread(world.gateway.process.wait, 40) == 0
    finally:
        await asyncio.to_thread(front.__exit__)
        await asyncio.to_thread(world.gateway.stop)
        world.gateway.http.close()


async def test_a_reload_costs_the_front_nothing(tmp_path: Path, pki: Pki) -> None:
    world = await asyncio.to_thread(build, tmp_path, pki)
    front = Front(world.gateway, tmp_path)
    await asyncio.to_thread(front.__enter__)
    try:
        async with lay(world, front) as through, await front.connect() as client:
            stream, request = await through.begun(client)
            done = asyncio.Event()
            asking = [asyncio.create_task(ask_on(through, done.is_set)) for _ in range(3)]
            assert world.gateway.process is not None
            world.gateway.process.send_signal(signal.SIGHUP)
            log = world.gateway.log
            await asyncio.to_thread(until, lambda: log.read_text().count("Stopping worker-1") > 0, "the old to go")
            request.send(sse("second"))
            await stream.stream.received(len(sse("first") + sse("second")))
            request.send(DONE, end=True)
            await stream.stream.complete()
            fresh, request = await through.begun(client)  # on the same connection of the client's
            request.send(DONE, end=True)
            await fresh.stream.complete()
            done.set()
            assert all(await asyncio.gather(*asking))
            assert "DOWN" not in front.log.read_text()
    finally:
        await asyncio.to_thread(front.__exit__)
        await asyncio.to_thread(world.gateway.stop)
        world.gateway.http.close()
