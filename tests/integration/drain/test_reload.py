"""SIGHUP: successors take over, and no request fails; a reload that cannot work changes nothing."""

from __future__ import annotations

import asyncio
import signal
import ssl
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from gateway.pki import write_development_tls
from tests.integration.drain.bed import AWAY_S, Open, Stopping, far_from
from tests.integration.drain.conftest import Start
from tests.integration.gateway.world import family
from tests.kit.h2client import H2Client
from tests.kit.wait import until


def workers(stopping: Stopping) -> set[int]:
    """The processes of the tree that have no descendants: its workers, and the control process."""
    return {pid for pid in family(stopping.gateway) if not _children(pid)}


def _children(pid: int) -> str:
    try:
        return "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:
        return ""


async def swapped(stopping: Stopping, before: set[int], count: int) -> None:
    """Wait until `count` of the processes that were there are gone and as many others are there."""

    def others() -> bool:
        now = workers(stopping)
        return len(before - now) == count and len(now) == len(before)

    await asyncio.to_thread(until, others, "the workers to be swapped", 60)


def leaving(client: H2Client) -> bool:
    return client.closed or client.goaway_last_stream_id is not None


async def ask_on(stopping: Stopping, begun: asyncio.Event, stop: asyncio.Event) -> tuple[int, int]:
    """A well-behaved HTTP/2 client: one request after the other, a new connection after GOAWAY.

    A request the server never took (above GOAWAY's last stream id) is sent again, as RFC 9113 section 6.8 has it.
    Returns how many were served, and how many connections it took.
    """
    served = connections = 0
    while not stop.is_set():
        async with await stopping.connect() as client:
            connections += 1
            while not stop.is_set() and not leaving(client):
                stream = client.request("GET", "/v1/models", list(stopping.owner.bearer.items()))
                await stream.finished()
                last = client.goaway_last_stream_id
                if not stream.ended and last is not None and stream.id > last:
                    break
                assert stream.ended, (stream.id, last, stream.reset_code, stream.lost)
                assert stream.status == 200, stream.body
                served += 1
                begun.set()
    return served, connections


async def connect_on(stopping: Stopping, stop: asyncio.Event) -> int:
    """A client that makes a connection for each request. Returns how many were served: all of them."""
    served = 0
    while not stop.is_set():
        async with await stopping.connect() as client:
            assert await stopping.answered(client) == 200
        served += 1
    return served


async def newcomer(stopping: Stopping, kept: AsyncExitStack) -> tuple[Open, asyncio.Task[int]]:
    """A stream on a connection of its own, and what ends when that connection's worker retires."""
    client = await kept.enter_async_context(await stopping.connect())
    return await stopping.open(client), asyncio.create_task(client.went_away())


@pytest.mark.parametrize("count", [1, 2])
async def test_no_request_fails_while_workers_are_swapped(start: Start, count: int) -> None:
    async with start(workers=count, drain_s=20) as stopping, await stopping.connect() as client:
        stream = await stopping.open(client)
        before = workers(stopping)
        stop = asyncio.Event()
        begun = [asyncio.Event() for _ in range(4)]
        clients = [asyncio.create_task(ask_on(stopping, each, stop)) for each in begun]
        newcomers = [asyncio.create_task(connect_on(stopping, stop)) for _ in range(2)]
        for each in begun:  # who came later would never have met an old worker
            await each.wait()
        stopping.signal(signal.SIGHUP)
        await client.went_away()  # the old worker retires: it has said so on our connection
        await stream.say("on the old worker")
        async with AsyncExitStack() as kept:
            fresh, away = await newcomer(stopping, kept)
            await stream.say("still there")
            await stream.finish()
            swap = asyncio.create_task(swapped(stopping, before, count))
            while not swap.done():
                await asyncio.wait({swap, away}, return_when=asyncio.FIRST_COMPLETED)
                if not swap.done():  # it had met another old worker, whose turn has come
                    await fresh.finish()
                    fresh, away = await newcomer(stopping, kept)
            await swap
            away.cancel()
            await fresh.say("on the new one")
            stop.set()
            for served, connections in await asyncio.gather(*clients):
                assert served > 0
                assert connections >= 2
            assert all(await asyncio.gather(*newcomers))
            await fresh.finish()
        assert (await asyncio.to_thread(stopping.readyz)).status_code == 200
        stopping.signal(signal.SIGTERM)
        await stopping.stopped()
        for asked in (stream.asked, fresh.asked):
            assert [entry["outcome"] for entry in stopping.entries(asked)] == ["served"]


async def arrive(stopping: Stopping, port: int, context: ssl.SSLContext) -> int:
    async with await H2Client.connect("127.0.0.1", port, context) as client:
        return await stopping.answered(client)


async def test_no_handshake_that_takes_its_time_is_dropped(start: Start) -> None:
    """Clients over a far network, one coming after the other, so that each moment finds one in its handshake."""
    async with start(drain_s=20) as stopping, far_from(stopping.gateway.public_port) as port:
        context = ssl.create_default_context(cafile=str(stopping.gateway.ca))
        context.set_alpn_protocols(["h2"])
        before = workers(stopping)
        stopping.signal(signal.SIGHUP)
        swap = asyncio.create_task(swapped(stopping, before, 1))
        arrivals = []
        while not swap.done():
            arrivals.append(asyncio.create_task(arrive(stopping, port, context)))
            await asyncio.wait({swap}, timeout=2 * AWAY_S)
        await swap
        assert set(await asyncio.gather(*arrivals)) == {200}


async def test_a_stream_past_the_limit_is_ended_on_the_old_worker_alone(start: Start) -> None:
    async with start(drain_s=4) as stopping, await stopping.connect() as client:
        stream = await stopping.open(client)
        before = workers(stopping)
        stopping.signal(signal.SIGHUP)
        await client.went_away()
        async with await stopping.connect() as newcomer:
            fresh = await stopping.open(newcomer)
            await stream.asked.stream.complete()
            assert b'"code":"unavailable"' in stream.asked.stream.body
            await swapped(stopping, before, 1)
            await fresh.say("untouched")
            await fresh.finish()


def serves(port: int, certificate: str) -> bool:
    return ssl.get_server_certificate(("127.0.0.1", port)) == certificate


async def test_both_listeners_take_a_new_certificate(start: Start) -> None:
    async with start() as stopping:
        gateway = stopping.gateway
        ports = (gateway.public_port, gateway.admin_port)
        folder = gateway.installed.certificate.parent
        old = folder.joinpath("server.pem").read_text()
        await asyncio.to_thread(write_development_tls, folder, ["localhost", "127.0.0.1"], renew=True)
        new = folder.joinpath("server.pem").read_text()
        for port in ports:
            assert await asyncio.to_thread(serves, port, old)
        stopping.signal(signal.SIGHUP)
        for port in ports:
            await asyncio.to_thread(until, partial(serves, port, new), f"the new certificate on {port}")
        answer = await asyncio.to_thread(stopping.owner.admin, "GET", "/admin/v1/me")
        assert answer.status_code == 200


async def test_a_certificate_that_cannot_be_used_changes_nothing(start: Start) -> None:
    async with start() as stopping, await stopping.connect() as client:
        stream = await stopping.open(client)
        before = workers(stopping)
        stopping.gateway.installed.key.write_text("not a key")
        stopping.signal(signal.SIGHUP)
        await asyncio.to_thread(until, lambda: "not reloaded" in stopping.log(), "the refusal")
        assert "server.key cannot be used" in stopping.log()
        await stream.say("as before")
        await stream.finish()
        assert await stopping.answered(client) == 200
        assert workers(stopping) == before


async def test_a_successor_that_cannot_start_costs_nothing(start: Start) -> None:
    """The bus is gone for the successor alone: its socket's name leads nowhere for a while."""
    async with start() as stopping, await stopping.connect() as client:
        stream = await stopping.open(client)
        bus = stopping.gateway.home / "run/bus.sock"
        aside = bus.with_name("aside.sock")
        database = stopping.gateway.home / "control.db"
        bus.rename(aside)
        database.rename(database.with_name("aside.db"))
        try:
            stopping.signal(signal.SIGHUP)
            await asyncio.to_thread(until, lambda: "successor did not start" in stopping.log(), "it to fail", 60)
        finally:
            aside.rename(bus)
            database.with_name("aside.db").rename(database)
        await stream.say("as before")
        await stream.finish()
        assert await stopping.answered(client) == 200


async def test_a_stop_during_a_reload(start: Start) -> None:
    async with start(drain_s=20) as stopping, await stopping.connect() as client:
        stream = await stopping.open(client)
        stopping.signal(signal.SIGHUP)
        await client.went_away()
        stopping.signal(signal.SIGTERM)
        await stream.say("on the old worker")
        await stream.finish()
        await stopping.stopped()
        assert [entry["outcome"] for entry in stopping.entries(stream.asked)] == ["served"]
