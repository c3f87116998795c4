"""What upstreams do wrong, or do rightly when they have had enough."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx
import pytest

from gateway.upstream.errors import AddressRefusedError, RefusedError
from gateway.upstream.transport import ATTEMPTS, TransportPool
from tenants.models import WireProtocol
from tests.integration.upstream.caller import LOOPBACK, Caller, binding, read, stream_of
from tests.integration.upstream.conftest import Open
from tests.integration.upstream.test_cancel import finish
from tests.kit.certs import Pki, make_pki
from tests.kit.signal import turns
from tests.kit.upstream import RecordingUpstream


async def test_refused_stream_is_sent_again(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        answer = asyncio.ensure_future(caller.ask(b'{"a": 1}'))
        (await h2.arrived(1)).refuse()
        second = await (await h2.arrived(2)).complete()
        assert bytes(second.body) == b'{"a": 1}'
        await finish(second)
        assert await answer == b'{"ok": 2}'
        assert (len(h2.connections), caller.gauges.refused) == (1, 1)


async def test_refused_each_time(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        for number in range(1, ATTEMPTS + 1):
            (await h2.arrived(number)).refuse()
        with pytest.raises(RefusedError):
            await task
        assert h2.opened == ATTEMPTS


async def test_goaway_lets_streams_in_flight_finish(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        first = await h2.arrived(1)
        first.respond(200)
        response = await task
        first.connection.goaway()
        first.send(b"on it")
        chunks = stream_of(response)
        assert await anext(chunks) == b"on it"
        next_one = asyncio.ensure_future(caller.ask())
        second = await h2.arrived(2)
        assert second.connection.number == 2  # nothing new goes to a connection that is going away
        await finish(second)
        await next_one
        first.send(b"done", end=True)
        assert [data async for data in chunks] == [b"done"]
        await h2.until(lambda: first.connection.closed, "the drained connection to be closed")
        assert h2.resets == 0


async def test_cancel_on_a_connection_that_is_going_away(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        request = await h2.arrived(1)
        request.respond(200)
        response = await task
        request.connection.goaway()
        request.send(b"x")
        await anext(stream_of(response))
        await response.aclose()
        assert (await request.reset()).code == 8


async def test_goaway_refusing_is_sent_again_elsewhere(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task, refused = caller.start(), caller.start(b'{"b": 2}')
        first = await h2.arrived(1)
        await h2.arrived(2)
        first.connection.goaway(last_stream_id=first.stream_id)
        third = await (await h2.arrived(3)).complete()
        assert third.connection.number == 2
        assert bytes(third.body) in (b"{}", b'{"b": 2}')
        await finish(third)
        await finish(first)
        assert {await read(await task), await read(await refused)} == {b'{"ok": 1}', b'{"ok": 3}'}
        h2.connections[0].abort()  # the refused stream is open in this fake's books alone


async def test_connection_lost_in_mid_body(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        request = await h2.arrived(1)
        request.respond(200)
        request.send(b"part")
        chunks = stream_of(await task)
        assert await anext(chunks) == b"part"
        request.connection.abort()
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(chunks)
        again = asyncio.ensure_future(caller.ask())
        await finish(await h2.arrived(2))
        await again
        assert len(h2.connections) == 2


async def test_reset_in_mid_body_gives_what_came_before_it(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        request = await h2.arrived(1)
        request.respond(200)
        request.send(b"part")
        request.send_reset(2)
        chunks = stream_of(await task)
        assert await anext(chunks) == b"part"
        with pytest.raises(httpx.RemoteProtocolError, match="error code 2"):
            await anext(chunks)
        assert (caller.gauges.resets_received, caller.gauges.resets_sent) == (1, 0)


async def test_connection_lost_before_the_head_is_not_sent_again(h2: RecordingUpstream, open_caller: Open) -> None:
    """It may have been processed, and a completion is not idempotent."""
    async with open_caller(h2) as caller:
        task = caller.start()
        (await h2.arrived(1)).connection.abort()
        with pytest.raises(httpx.RemoteProtocolError):
            await task
        assert h2.opened == 1


async def test_peer_that_breaks_http2(h2: RecordingUpstream, open_caller: Open) -> None:
    """A breach that concerns one stream ends that stream, one of the connection ends all."""
    async with open_caller(h2) as caller:
        task = caller.start()
        request = await h2.arrived(1)
        request.send_late(b"DATA before HEADERS")
        with pytest.raises(httpx.RemoteProtocolError, match="broke HTTP/2"):
            await task
        assert (await request.reset()).code == 1
        again = caller.start()
        second = await h2.arrived(2)
        assert second.connection is request.connection
        second.connection.write_raw(b"\xff" * 20)
        with pytest.raises(httpx.RemoteProtocolError, match="broke HTTP/2"):
            await again
        await h2.until(lambda: second.connection.closed, "the connection to close")


async def test_first_byte_timeout_resets(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2, first_byte_timeout_ms=400) as caller:  # the dial is within it: not too short
        task = caller.start()
        with pytest.raises(httpx.ReadTimeout):
            await task
        assert (await (await h2.arrived(1)).reset()).code == 8
        assert caller.gauges.timeouts == 1


async def test_first_byte_timeout_while_queued(h2: RecordingUpstream, open_caller: Open) -> None:
    """Nothing was sent: the error says that it was the wait for a stream."""
    h2.max_concurrent_streams = 0
    async with open_caller(h2, first_byte_timeout_ms=50) as caller:
        with pytest.raises(httpx.PoolTimeout):
            await caller.start()
        assert h2.opened == 0


async def test_idle_timeout_resets(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2, idle_timeout_ms=50) as caller:
        task = caller.start()
        request = await h2.arrived(1)
        request.respond(200)
        with pytest.raises(httpx.ReadTimeout, match="silent"):
            await read(await task)
        assert (await request.reset()).code == 8


async def test_slow_reader_is_not_the_upstreams_silence(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2, idle_timeout_ms=20) as caller:
        task = caller.start()
        request = await (await h2.arrived(1)).complete()
        request.respond(200)
        request.send(b"waits to be read")
        response = await task
        await asyncio.sleep(0.1)  # five times the limit passes on the reader's side; time itself is the subject
        assert await anext(stream_of(response)) == b"waits to be read"
        assert request.was_reset is None
        await response.aclose()


async def test_connect_timeout() -> None:
    """A listener that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        upstream = RecordingUpstream()
        upstream.port = silent.getsockname()[1]
        pool = TransportPool(allowed=LOOPBACK)
        transport = pool.for_upstream(binding(upstream, connect_timeout_ms=50))
        with pytest.raises(httpx.ConnectTimeout):
            await transport.handle_async_request(Caller(transport, upstream.url).request())
        assert (transport.gauges.dial_failures, transport.gauges.waiting) == (1, 0)
        await pool.aclose()


async def test_connection_refused(pki: Pki) -> None:
    async with RecordingUpstream(tls=pki.server_context()) as gone:
        pass
    pool = TransportPool(allowed=LOOPBACK)
    caller = Caller(pool.for_upstream(binding(gone, pki)), gone.url)
    failures = await asyncio.gather(*(caller.start() for _ in range(5)), return_exceptions=True)
    assert [type(failure) for failure in failures] == [httpx.ConnectError] * 5
    await pool.aclose()


async def test_certificate_of_an_unknown_ca(recording_upstream: RecordingUpstream, tmp_path: Path) -> None:
    stranger = make_pki(tmp_path / "tls")
    pool = TransportPool(allowed=LOOPBACK)
    for ca_pem, says in ((stranger.ca_pem, "certificate was refused"), ("nonsense", "ca_pem is not")):
        transport = pool.for_upstream(binding(recording_upstream, name=says.split()[0], ca_pem=ca_pem))
        with pytest.raises(httpx.ConnectError, match=says):
            await transport.handle_async_request(Caller(transport, recording_upstream.url).request())
    assert recording_upstream.opened == 0
    await pool.aclose()


async def test_certificate_of_another_host(tmp_path: Path) -> None:
    other = make_pki(tmp_path / "tls", hosts=["other.example"])
    async with RecordingUpstream(tls=other.server_context()) as upstream:
        pool = TransportPool(allowed=LOOPBACK)
        transport = pool.for_upstream(binding(upstream, other))
        with pytest.raises(httpx.ConnectError, match="certificate was refused"):
            await transport.handle_async_request(Caller(transport, upstream.url).request())
        await pool.aclose()


async def test_name_is_verified_and_the_checked_address_dialled(tmp_path: Path) -> None:
    """The name is in the URL, in SNI and in the certificate; what is dialled is what the resolver said once."""
    asked: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["10.0.0.7", "127.0.0.1"]  # the first is not allowed, and not tried

    named = make_pki(tmp_path / "tls", hosts=["model.example"])
    async with RecordingUpstream(tls=named.server_context()) as upstream:
        pool = TransportPool(allowed=LOOPBACK, resolver=resolver)
        url = f"https://model.example:{upstream.port}"
        caller = Caller(pool.for_upstream(binding(upstream, named, base_url=url)), url)
        answer = asyncio.ensure_future(caller.ask())
        request = await upstream.arrived(1)
        await finish(request)
        await answer
        assert (asked, request.headers[":authority"]) == (["model.example"], f"model.example:{upstream.port}")
        await pool.aclose()


async def test_address_that_is_not_allowed(h2: RecordingUpstream, pki: Pki) -> None:
    pool = TransportPool()
    transport = pool.for_upstream(binding(h2, pki))
    with pytest.raises(AddressRefusedError, match="loopback"):
        await transport.handle_async_request(Caller(transport, h2.url).request())
    assert not h2.connections
    await pool.aclose()


async def test_upstream_that_does_not_speak_the_protocol_it_is_bound_to(pki: Pki) -> None:
    async with RecordingUpstream(tls=pki.server_context(["http/1.1"])) as upstream:
        pool = TransportPool(allowed=LOOPBACK)
        transport = pool.for_upstream(binding(upstream, pki, protocol=WireProtocol.H2))
        with pytest.raises(httpx.ConnectError):
            await transport.handle_async_request(Caller(transport, upstream.url).request())
        await pool.aclose()


async def test_request_for_another_origin_goes_nowhere(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        stray = httpx.Request("POST", "https://elsewhere.example/v1/completions", content=b"{}")
        with pytest.raises(httpx.UnsupportedProtocol):
            await caller.transport.handle_async_request(stray)
        await turns()
        assert not h2.connections
