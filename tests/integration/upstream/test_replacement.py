"""Connections replaced over real sockets, beside innocent streams that must not notice."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.upstream.h2connection import H2Connection
from gateway.upstream.transport import TransportPool
from tenants.ids import OrgId
from tenants.models import Upstream, WireProtocol
from tests.integration.upstream.caller import LOOPBACK, Caller, cancelled, read, stream_of
from tests.integration.upstream.conftest import Open
from tests.integration.upstream.test_cancel import finish
from tests.kit.certs import Pki
from tests.kit.ports import free_port
from tests.kit.signal import turns
from tests.kit.upstream import RecordingUpstream, Request
from tests.kit.wait import eventually, until

NGHTTP2 = 1_000
"""Resets that a server built on nghttp2 takes in a burst (`nghttp2_option_set_stream_reset_rate_limit`)."""


@pytest.mark.slow
@pytest.mark.parametrize("connections", [1, 4])
async def test_three_thousand_cancels_cost_no_innocent_a_byte(
    pki: Pki, open_caller: Open, connections: int
) -> None:
    """The peer ends a connection at its limit, with everything on it. It never comes to that."""
    async with (
        RecordingUpstream(tls=pki.server_context(), reset_limit=NGHTTP2) as upstream,
        open_caller(upstream, connections=connections, connection_resets=900) as caller,
    ):
        innocents: list[tuple[Request, asyncio.Task[httpx.Response]]] = []

        async def begin() -> None:
            number = len(upstream.requests)
            task = caller.start()
            request = await upstream.arrived(number + 1)
            request.respond(200)
            innocents.append((request, task))

        for number in range(3_000):
            if number % 500 == 0:
                await begin()  # one on each connection that there will have been, and more
            before = len(upstream.requests)
            victim = caller.start()
            request = await upstream.arrived(before + 1)
            await cancelled(victim)
            await request.reset()
            if number % 100 == 0:
                for canary, task in innocents:
                    canary.send(b"%d " % number)
                    assert await anext(stream_of(await task)) == b"%d " % number
        for canary, task in innocents:
            canary.send(b"", end=True)
            await read(await task)
        assert upstream.resets == 3_000
        assert caller.gauges.resets_received == caller.gauges.refused == 0
        # 3,000 / 720, less what those there are have left: how many fell to each is not for this test.
        assert max(4 - connections, 1) <= caller.gauges.replaced <= 4
        assert len(upstream.connections) == connections + caller.gauges.replaced
        await upstream.until(
            lambda: sum(not connection.closed for connection in upstream.connections) == connections,
            "the replaced connections to close",
        )


async def test_old_connection_ends_with_its_last_stream(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2, connection_resets=5) as caller:
        innocent = caller.start()
        (await h2.arrived(1)).respond(200)
        for number in range(4):
            victim = caller.start()
            await h2.arrived(number + 2)
            await cancelled(victim)
        await h2.connected(2)
        while not caller.gauges.replaced:
            await turns()
        task = caller.start()
        request = await h2.arrived(6)
        assert request.connection.number == 2
        await finish(request)
        assert await read(await task) == b'{"ok": 6}'
        assert not h2.connections[0].closed
        h2.requests[0].send(b"whole", end=True)
        assert await read(await innocent) == b"whole"
        await h2.until(lambda: h2.connections[0].closed, "the old connection to close")


async def test_connection_is_replaced_at_its_age(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2, connection_age_s=1) as caller:
        innocent = caller.start()
        (await h2.arrived(1)).respond(200)
        await h2.connected(2)
        while not caller.gauges.replaced:
            await turns()
        task = caller.start()
        request = await h2.arrived(2)
        await finish(request)
        await read(await task)
        assert request.connection.number == 2
        h2.requests[0].send(b"whole", end=True)
        assert await read(await innocent) == b"whole"


# The real thing, where it is installed (`tests/kit/debian-packages.sh nghttp2-server`).


@pytest.fixture
def nghttpd(pki: Pki, tmp_path: Path) -> Iterator[int]:
    """nghttp2's own server: every file it serves is the same few bytes. Gives its port."""
    program = shutil.which("nghttpd")
    if program is None:
        pytest.skip("nghttpd is not installed: tests/kit/debian-packages.sh nghttp2-server")
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "completions").write_bytes(b"x" * 200_000)
    port = free_port()
    files = pki.files
    process = subprocess.Popen(
        [program, "-d", str(tmp_path), str(port), str(files.key), str(files.certificate)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: process.poll() is not None or _accepts(port), "nghttpd to accept connections")
        assert process.poll() is None, "nghttpd did not start"
        yield port
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
async def test_three_thousand_cancels_at_nghttpd(pki: Pki, nghttpd: int) -> None:
    url = f"https://127.0.0.1:{nghttpd}"
    upstream = Upstream(
        org=OrgId("acme"), name="main", base_url=url, protocol=WireProtocol.H2, ca_pem=pki.ca_pem, connections=1
    )
    pool = TransportPool(allowed=LOOPBACK)
    caller = Caller(pool.for_upstream(upstream), url)
    innocent = stream_of(await caller.start())  # its windows are full: it stays open until it is read
    for _ in range(3_000):
        victim = await caller.start()
        stream_of(victim).cancel()
    size = 0
    async for data in innocent:
        size += len(data)
    assert size == 200_000
    assert len(await caller.ask()) == 200_000
    assert (caller.gauges.resets_received, caller.gauges.refused) == (0, 0)
    assert caller.gauges.replaced >= 3
    await pool.aclose()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


async def test_a_connection_that_was_replaced_leaves_nothing_to_the_collector(pki: Pki, open_caller: Open) -> None:
    """Its TLS buffers are 256 KiB; cycles that hold them would pile up between two of the collector's rounds."""
    async with (
        RecordingUpstream(tls=pki.server_context()) as upstream,
        open_caller(upstream, connections=1, connection_resets=2) as caller,
    ):
        gc.collect()
        gc.disable()
        try:
            for _ in range(12):
                before = len(upstream.requests)
                victim = caller.start()
                await upstream.arrived(before + 1)
                await cancelled(victim)
            assert caller.gauges.handshakes > 3

            def kept() -> int:
                return sum(isinstance(each, H2Connection) for each in gc.get_objects())

            await eventually(lambda: kept() == 1, "the replaced connections to be freed")
        finally:
            gc.enable()
