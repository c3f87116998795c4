"""HTTP/1.1 upstreams: one request a connection at a time; giving up cuts that connection and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.upstream.channel import STREAM_WINDOW
from gateway.upstream.h1connection import REUSE_WITHIN_S
from tenants.models import WireProtocol
from tests.integration.upstream.caller import cancelled, read, stream_of
from tests.integration.upstream.conftest import Open
from tests.integration.upstream.test_cancel import finish
from tests.kit.certs import Pki
from tests.kit.signal import turns
from tests.kit.upstream import RecordingUpstream


@pytest.fixture(params=["tls", "clear"])
async def h1(request: pytest.FixtureRequest, pki: Pki) -> AsyncIterator[RecordingUpstream]:
    tls = pki.server_context(["http/1.1"]) if request.param == "tls" else None
    async with RecordingUpstream(tls=tls) as upstream:
        yield upstream
        assert not upstream.faults, upstream.faults


AUTO = {"protocol": WireProtocol.AUTO}


async def test_auto_follows_what_is_negotiated(h1: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h1, **AUTO) as caller:
        for number in (1, 2, 3):
            answer = asyncio.ensure_future(caller.ask(b'{"n": 1}'))
            request = await h1.arrived(number)
            await finish(request)
            assert await answer == b'{"ok": %d}' % number
            assert bytes(request.body) == b'{"n": 1}'
            assert request.headers["host"] == f"127.0.0.1:{h1.port}"
        assert (len(h1.connections), h1.connections[0].protocol) == (1, "http/1.1")


async def test_auto_takes_h2_where_both_are_offered(
    recording_upstream: RecordingUpstream, open_caller: Open
) -> None:
    async with open_caller(recording_upstream) as caller:
        answer = asyncio.ensure_future(caller.ask())
        await finish(await recording_upstream.arrived(1))
        await answer
        assert recording_upstream.connections[0].protocol == "h2"


async def test_http_1_1_where_the_binding_says_so(
    recording_upstream: RecordingUpstream, open_caller: Open
) -> None:
    async with open_caller(recording_upstream, protocol=WireProtocol.HTTP_1_1) as caller:
        answer = asyncio.ensure_future(caller.ask())
        await finish(await recording_upstream.arrived(1))
        await answer
        assert recording_upstream.connections[0].protocol == "http/1.1"


@pytest.mark.parametrize("moment", ["before the head", "in the body"])
async def test_cancel_cuts_that_connection_only(h1: RecordingUpstream, open_caller: Open, moment: str) -> None:
    async with open_caller(h1, **AUTO) as caller:
        tasks = [caller.start() for _ in range(3)]
        requests = [await h1.arrived(number) for number in (1, 2, 3)]
        assert len(h1.connections) == 3
        for request in requests[1:]:
            request.respond(200)
        if moment == "in the body":
            requests[0].respond(200)
        # Which task's request arrived first is not known: cancel the one whose head has not come, or any.
        responses = await collect(tasks, 3 if moment == "in the body" else 2)
        if moment == "in the body":
            victim = responses.pop()
            stream_of(victim).cancel()
        else:
            (waiting,) = [task for task in tasks if not task.done()]
            await cancelled(waiting)
        await h1.until(lambda: h1.resets == 1, "one connection to be cut")
        for request in requests:
            if not request.was_reset:
                request.send(b"innocent", end=True)
        assert [await read(response) for response in responses] == [b"innocent"] * 2
        assert sum(connection.closed for connection in h1.connections) == 1
        assert caller.gauges.resets_sent == 1


async def collect(tasks: list[asyncio.Task[httpx.Response]], count: int) -> list[httpx.Response]:
    done: set[asyncio.Task[httpx.Response]] = set()
    while len(done) < count:
        await asyncio.wait([task for task in tasks if task not in done], return_when=asyncio.FIRST_COMPLETED)
        done = {task for task in tasks if task.done()}
    return [task.result() for task in done]


async def test_a_connection_is_not_shared_while_in_use(h1: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h1, **AUTO) as caller:
        first = asyncio.ensure_future(caller.ask())
        one = await h1.arrived(1)
        second = asyncio.ensure_future(caller.ask())
        two = await h1.arrived(2)
        assert one.connection.number != two.connection.number
        await finish(two)
        await finish(one)
        assert {await first, await second} == {b'{"ok": 1}', b'{"ok": 2}'}


async def test_chunked_answer(h1: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h1, **AUTO) as caller:
        task = caller.start()
        request = await (await h1.arrived(1)).complete()
        request.respond(200, [("transfer-encoding", "chunked")])
        chunks = stream_of(await task)
        for part in (b"one", b"two"):
            request.send(part)
            assert await anext(chunks) == part
        request.end()
        assert [data async for data in chunks] == []


async def test_answer_that_ends_with_its_connection(h1: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h1, **AUTO) as caller:
        task = caller.start()
        request = await (await h1.arrived(1)).complete()
        request.connection.write_raw(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        request.connection.close()
        assert await read(await task) == b"all of it"
        again = asyncio.ensure_future(caller.ask())
        await finish(await h1.arrived(2))
        await again
        assert len(h1.connections) == 2


async def test_answer_cut_short(h1: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h1, **AUTO) as caller:
        task = caller.start()
        request = await h1.arrived(1)
        request.respond(200, [("content-length", "100")])
        request.send(b"part")
        chunks = stream_of(await task)
        assert await anext(chunks) == b"part"
        request.connection.close()
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(chunks)


async def test_first_byte_timeout_cuts(h1: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h1, **AUTO, first_byte_timeout_ms=400) as caller:
        with pytest.raises(httpx.ReadTimeout):
            await caller.start()
        await (await h1.arrived(1)).reset()


async def test_reader_that_does_not_read_stops_the_socket(h1: RecordingUpstream, open_caller: Open) -> None:
    size = 64 * 1024 * 1024
    async with open_caller(h1, **AUTO) as caller:
        task = caller.start()
        request = await (await h1.arrived(1)).complete()
        request.respond(200, [("content-length", str(size))])
        request.send(b"x" * size, end=True)
        response = await task
        stream = stream_of(response)._stream
        while stream.unread <= STREAM_WINDOW:
            await asyncio.sleep(0)
        await turns(200)
        assert stream.unread < STREAM_WINDOW + 1024 * 1024
        assert len(await read(response)) == size


async def test_stale_connection_is_not_used(h1: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h1, **AUTO) as caller:
        answer = asyncio.ensure_future(caller.ask())
        await finish(await h1.arrived(1))
        await answer
        caller.transport._pool._usable[0].idle_since -= 2 * REUSE_WITHIN_S
        answer = asyncio.ensure_future(caller.ask())
        second = await h1.arrived(2)
        await finish(second)
        await answer
        assert second.connection.number == 2
        await h1.until(lambda: h1.connections[0].closed, "the stale connection to be closed")


async def test_bytes_nobody_asked_for_end_the_connection(h1: RecordingUpstream, open_caller: Open) -> None:
    """Else they would be taken for the answer to the next request."""
    async with open_caller(h1, **AUTO) as caller:
        answer = asyncio.ensure_future(caller.ask())
        request = await h1.arrived(1)
        await finish(request)
        await answer
        request.connection.write_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        await h1.until(lambda: request.connection.closed, "the connection to be cut")
        answer = asyncio.ensure_future(caller.ask())
        await finish(await h1.arrived(2))
        assert await answer == b'{"ok": 2}'


async def test_answer_that_is_not_http(h1: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h1, **AUTO) as caller:
        task = caller.start()
        (await h1.arrived(1)).connection.write_raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        with pytest.raises(httpx.RemoteProtocolError, match="broke HTTP/1"):
            await task


async def test_header_that_would_split_the_request_is_refused(h1: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h1, **AUTO) as caller:
        url = caller.request().url
        evil = httpx.Request("POST", url, headers=[(b"x-evil", b"a\r\nx-more: b")], content=b"{}")
        with pytest.raises(httpx.LocalProtocolError):
            await caller.transport.handle_async_request(evil)
        assert h1.opened == 0
