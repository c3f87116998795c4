"""SIGTERM: `/readyz` says no first, nothing new comes in, streams may end, and nobody can hold it up."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import pytest

from tests.integration.drain.bed import Stopping
from tests.integration.drain.conftest import Start
from tests.integration.gateway.bed import prepare
from tests.integration.gateway.test_ended_by_the_gateway import error_event
from tests.kit.wait import until


async def test_readyz_says_no_while_everything_is_still_served(start: Start) -> None:
    """The delay is long: the test ends when it has seen what it came for, and the fixture stops the rest."""
    async with start(workers=2, drain_delay_s=3, drain_s=4) as stopping, await stopping.connect() as client:
        stream = await stopping.open(client)
        stopping.signal(signal.SIGTERM)
        await asyncio.to_thread(until, lambda: stopping.readyz().status_code == 503, "readyz to say no")
        answer = await asyncio.to_thread(stopping.readyz)
        assert answer.json() == {"status": "unready", "reasons": ["the gateway is stopping"]}
        async with await stopping.connect() as newcomer:  # a load balancer that has not looked yet
            assert await stopping.answered(newcomer) == 200
        assert await stopping.answered(client) == 200
        await client.went_away()
        await stream.say("after")
        await stream.finish()
        await stopping.stopped()
        assert [entry["outcome"] for entry in stopping.entries(stream.asked)] == ["served"]


async def test_nothing_new_comes_in_while_a_stream_ends(start: Start) -> None:
    async with start(drain_s=30) as stopping, await stopping.connect() as client:
        stream = await stopping.open(client)
        stopping.signal(signal.SIGTERM)
        await client.went_away()

        def refused() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", stopping.gateway.public_port)) != 0

        await asyncio.to_thread(until, refused, "new connections to be refused")
        await stream.say("after")
        await stream.finish()
        await stopping.stopped()


async def test_streams_past_the_limit_get_a_last_event_and_are_settled(start: Start) -> None:
    async with start(drain_s=4) as stopping, await stopping.connect() as client:
        begun = await stopping.open(client)
        silent, headers, body = prepare(stopping.owner, stopping.model)
        silent.stream = client.request("POST", "/v1/completions", headers, body)
        await (await stopping.upstream.arrived(2)).complete()
        stopping.signal(signal.SIGTERM)
        await begun.asked.stream.complete()
        await silent.stream.complete()
        assert begun.asked.stream.body.startswith(begun.said)
        assert error_event(begun.asked.stream.body)["code"] == "unavailable"
        assert silent.stream.status == 503
        assert silent.stream.headers["retry-after"] == "1"
        assert silent.stream.json()["error"]["code"] == "unavailable"
        await stopping.stopped()
        assert stopping.upstream.resets == 2
        for asked in (begun.asked, silent):
            (entry,) = stopping.entries(asked)
            assert (entry["outcome"], entry["status"], entry["sent"]) == ("failed", 503, True)


async def unread(stopping: Stopping, peers: AsyncExitStack) -> None:
    """A stream whose client reads nothing any more."""
    client = await peers.enter_async_context(await stopping.connect())
    stream = await stopping.open(client)
    client.stop_reading()
    stream.request.send(b"data: " + b"x" * 1_000_000 + b"\n\n")
    await stream.asked.stream.received(60_000)


async def dripping_body(stopping: Stopping, peers: AsyncExitStack) -> None:
    """A body that never ends, far from its deadline."""
    client = await peers.enter_async_context(await stopping.connect())
    client.open("POST", "/v1/completions", list(stopping.owner.bearer.items())).send(b"{")


async def deaf(stopping: Stopping, peers: AsyncExitStack) -> None:
    """A client that stops listening altogether: GOAWAY and PING reach nobody."""
    client = await peers.enter_async_context(await stopping.connect())
    await stopping.open(client)
    client.transport.pause_reading()


async def bare_tcp(stopping: Stopping, peers: AsyncExitStack, *, tls: bool = False) -> asyncio.StreamWriter:
    context = ssl.create_default_context(cafile=str(stopping.gateway.ca)) if tls else None
    _, writer = await asyncio.open_connection("127.0.0.1", stopping.gateway.public_port, ssl=context)

    async def close() -> None:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    peers.push_async_callback(close)
    return writer


async def half_a_handshake(stopping: Stopping, peers: AsyncExitStack) -> None:
    writer = await bare_tcp(stopping, peers)
    writer.write(b"\x16\x03\x01\x02\x00\x01")  # the first bytes of a ClientHello that says it is 512 long
    await writer.drain()


async def tls_and_silence(stopping: Stopping, peers: AsyncExitStack) -> None:
    await bare_tcp(stopping, peers, tls=True)


Hostile = Callable[[Stopping, AsyncExitStack], Awaitable[object]]
HOSTILE: list[Hostile] = [unread, dripping_body, deaf, bare_tcp, half_a_handshake, tls_and_silence]


@pytest.mark.parametrize("workers", [1, 2])
async def test_hostile_peers_hold_nothing_past_the_limit(start: Start, workers: int) -> None:
    """All of them at once. `stopped` asserts that no worker had to be killed: they ended what held them."""
    async with start(workers=workers, drain_s=4, body_timeout_s=500) as stopping, AsyncExitStack() as peers:
        for hostile in HOSTILE:
            await hostile(stopping, peers)
        stopping.signal(signal.SIGTERM)
        await stopping.stopped()
        await stopping.upstream.idle()


async def test_a_gateway_with_idle_connections_alone_stops_at_once(start: Start) -> None:
    """Far below the limit, which is ten minutes here."""
    async with start(drain_s=600) as stopping, await stopping.connect() as client, AsyncExitStack() as peers:
        for idle in (bare_tcp, half_a_handshake, tls_and_silence):
            await idle(stopping, peers)
        assert await stopping.answered(client) == 200
        stopping.signal(signal.SIGTERM)
        await stopping.stopped()
