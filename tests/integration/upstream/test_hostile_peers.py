"""Peers that speak HTTP/2 by hand, over sockets: what they do to their own connection, and to nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network

import httpx
import pytest

from gateway.upstream import frames, h2connection
from gateway.upstream.frames import END_HEADERS, END_STREAM, Setting, frame
from gateway.upstream.transport import TransportPool, UpstreamTransport
from tenants.ids import OrgId
from tenants.models import Upstream, WireProtocol
from tests.kit.wait import eventually

OK = b"\x88"
WIDE = frames.settings(
    {Setting.INITIAL_WINDOW_SIZE: 2**31 - 1, Setting.MAX_CONCURRENT_STREAMS: 1_000}
) + frames.window_update(0, 2**31 - 1 - 65_535)


class Peer:
    """Says `WIDE`, then reads nothing unless the test does. `connections`: (reader, writer) of each."""

    def __init__(self) -> None:
        self.connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append((reader, writer))
        writer.write(WIDE)

    def says(self, data: bytes, number: int = 1) -> None:
        self.connections[number - 1][1].write(data)


@asynccontextmanager
async def met(timeout_ms: int = 60_000) -> AsyncIterator[tuple[Peer, UpstreamTransport]]:
    peer = Peer()
    server = await asyncio.start_server(peer, "127.0.0.1", 0, limit=1_024)
    pool = TransportPool(allowed=(ip_network("127.0.0.0/8"),))
    port = server.sockets[0].getsockname()[1]
    bound = Upstream(
        OrgId("acme"),
        "main",
        f"http://127.0.0.1:{port}",
        protocol=WireProtocol.H2C,
        connections=1,
        first_byte_timeout_ms=timeout_ms,
    )
    try:
        yield peer, pool.for_upstream(bound)
    finally:
        await pool.aclose()
        for _, writer in peer.connections:
            writer.transport.abort()
        server.close()


def ask(transport: UpstreamTransport, body: bytes = b"{}") -> asyncio.Task[object]:
    return asyncio.ensure_future(transport.open(transport.outgoing(b"POST", b"/", (), body)))


async def fill(transport: UpstreamTransport) -> list[asyncio.Task[object]]:
    """As many requests as it takes until the peer's socket takes no more."""
    tasks: list[asyncio.Task[object]] = []
    connection: h2connection.H2Connection | None = None
    while connection is None or not connection._paused:
        assert len(tasks) < 900, "the socket takes everything"
        tasks.append(ask(transport, b"x" * 16_000))
        await eventually(lambda: transport.gauges.streams == len(tasks), "the stream to open")
        (connection,) = transport._pool._usable  # type: ignore[assignment]
    return tasks


async def test_a_fault_of_a_peer_that_does_not_read_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2connection, "LINGER_S", 0.05)
    async with met() as (peer, transport):
        tasks = await fill(transport)
        peer.says(b"\xff" * 9)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(error) for error in found} == {httpx.RemoteProtocolError}
        await eventually(lambda: transport.gauges.connections == 0, "the socket to be closed")
        assert transport.gauges.streams == 0


async def test_bodies_for_a_full_socket_are_not_queued_in_it() -> None:
    async with met() as (_, transport):
        tasks = await fill(transport)
        (connection,) = transport._pool._usable
        assert isinstance(connection, h2connection.H2Connection)
        before = connection._transport.get_write_buffer_size()
        more = [ask(transport, b"y" * 16_000) for _ in range(50)]
        await eventually(lambda: transport.gauges.streams == len(tasks) + 50, "them to open")
        assert connection._transport.get_write_buffer_size() - before < 50 * 200
        for task in tasks + more:
            task.cancel()
            task.cancel()
        await asyncio.gather(*tasks, *more, return_exceptions=True)
        assert all(task.cancelled() for task in tasks + more)
        assert (transport.gauges.streams, connection.open, connection._engine.uploads) == (0, 0, {})


async def test_a_peer_that_pings_and_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2connection, "BACKLOG_LIMIT", 2_000)
    async with met() as (peer, transport):
        tasks = await fill(transport)
        peer.says(frames.ping(bytes(8)) * 500)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {str(error) for error in found} == {"the upstream does not read what it is sent"}
        await eventually(lambda: transport.gauges.connections == 0, "the socket to be closed")


BREACHES = {
    "a head that breaks off": frame(frames.HEADERS, END_HEADERS, 1, b"\x00\x06secret"),
    "a number without end": frame(frames.HEADERS, END_HEADERS, 1, b"\x00\x7f" + b"\xff" * 16_000),
    "fields without end": frame(frames.HEADERS, END_HEADERS, 1, OK + b"\x40\x01x\x00" + b"\xbe" * 16_000),
    "heads after a GOAWAY that disowns them": frames.goaway(0, 0)
    + frame(frames.HEADERS, END_HEADERS, 1, OK)
    + frame(frames.DATA, END_STREAM, 1, b"secret"),
    "credit that overflows a window": frames.window_update(1, 3),
    "noise": bytes(range(256)) * 8,
}


@pytest.mark.parametrize("breach", BREACHES)
async def test_a_breach_costs_its_connection_and_says_nothing_of_what_came(
    breach: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with met() as (peer, transport):
        task = ask(transport)
        await eventually(lambda: transport.gauges.streams == 1, "the stream to open")
        peer.says(BREACHES[breach])
        # A stream that was disowned is sent again, and answered on the next connection.
        await eventually(lambda: task.done() or len(peer.connections) == 2, "the end or another attempt")
        if len(peer.connections) == 2:
            await eventually(lambda: transport.gauges.streams == 1, "the stream to open again")
            peer.says(frame(frames.HEADERS, END_HEADERS | END_STREAM, 1, OK), 2)
            answer = await task
            assert answer.status == 200  # type: ignore[attr-defined]
        else:
            with pytest.raises(httpx.RemoteProtocolError) as caught:
                await task
            assert "secret" not in str(caught.value)
        await eventually(lambda: transport.gauges.streams == 0, "the stream to end")
    assert caplog.records == []
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
