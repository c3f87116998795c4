"""Windows in both directions: memory is bounded, and one stalled stream holds up no other."""

from __future__ import annotations

import asyncio

import httpx

from gateway.upstream.channel import STREAM_WINDOW
from gateway.upstream.engine import CONNECTION_WINDOW
from tests.integration.upstream.caller import read, stream_of
from tests.integration.upstream.conftest import Open
from tests.integration.upstream.test_cancel import finish
from tests.kit.upstream import RecordingUpstream


async def test_reader_that_does_not_read_closes_its_window(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        request = await (await h2.arrived(1)).complete()
        request.respond(200)
        request.send(b"x" * (STREAM_WINDOW * 5), end=True)
        response = await task
        await caller_has(response, STREAM_WINDOW)
        assert request.unsent == STREAM_WINDOW * 4
        assert len(await read(response)) == STREAM_WINDOW * 5
        await request.flushed()


async def caller_has(response: httpx.Response, size: int) -> None:
    """Wait until the unread part of the answer is `size` bytes; more would break the window."""
    stream = stream_of(response)._stream
    while stream.unread < size:
        await asyncio.sleep(0)
    assert stream.unread == size


async def test_unread_streams_do_not_drain_the_connection(h2: RecordingUpstream, open_caller: Open) -> None:
    """More unread streams than fit the connection's window, and one beside them still gets all it asks for."""
    count = CONNECTION_WINDOW // STREAM_WINDOW + 10
    h2.max_concurrent_streams = 2 * count
    async with open_caller(h2) as caller:
        responses = []
        for number in range(1, count + 1):
            task = caller.start()
            request = await h2.arrived(number)
            request.respond(200)
            request.send(b"x" * STREAM_WINDOW)
            responses.append(await task)
        for response in responses:
            await caller_has(response, STREAM_WINDOW)
        lively = caller.start()
        request = await (await h2.arrived(count + 1)).complete()
        request.respond(200)
        request.send(b"y" * CONNECTION_WINDOW, end=True)
        assert len(await read(await lively)) == CONNECTION_WINDOW
        for response in responses:
            await response.aclose()
        await h2.idle()
        assert (h2.resets, len(h2.connections)) == (count, 1)


async def test_chunks_that_piled_up_come_in_one_piece(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        request = await (await h2.arrived(1)).complete()
        request.respond(200)
        for number in range(20):
            request.send(b"%02d" % number)
        response = await task
        await caller_has(response, 40)
        assert await anext(stream_of(response)) == b"".join(b"%02d" % number for number in range(20))
        request.end()
        assert await read(response) == b""


async def test_uploads_take_turns_and_follow_the_windows(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        bodies = [bytes([65 + number]) * 300_000 for number in range(4)]
        asks = [asyncio.ensure_future(caller.ask(body)) for body in bodies]
        for number in range(1, 5):
            request = await (await h2.arrived(number)).complete()
            assert bytes(request.body) in bodies
            request.respond_json({"size": len(request.body)})
        assert await asyncio.gather(*asks) == [b'{"size": 300000}'] * 4


async def test_small_upload_passes_one_that_is_blocked(h2: RecordingUpstream, open_caller: Open) -> None:
    """The blocked one waits for its stream's window, which is smaller than the connection's."""
    h2.initial_window_size = 10_000
    h2.hold_window = True
    async with open_caller(h2) as caller:
        blocked = caller.start(b"x" * 30_000)
        await (await h2.arrived(1)).body_received(10_000)
        small = asyncio.ensure_future(caller.ask())
        await finish(await h2.arrived(2))
        assert await small == b'{"ok": 2}'
        h2.release_window()
        await finish(await h2.arrived(1))
        assert await read(await blocked) == b'{"ok": 1}'


async def test_answer_before_the_upload_is_done(h2: RecordingUpstream, open_caller: Open) -> None:
    """E.g. 413: the answer comes through at once, and the rest of the body is not sent."""
    h2.hold_window = True
    async with open_caller(h2) as caller:
        task = caller.start(b"x" * 500_000)
        request = await h2.arrived(1)
        await request.body_received(65_535)
        request.respond(413)
        request.end()
        response = await task
        assert response.status_code == 413
        assert await read(response) == b""
        assert (await request.reset()).code == 0
        h2.release_window()
        again = asyncio.ensure_future(caller.ask())
        await finish(await h2.arrived(2))
        await again


async def test_window_that_shrinks_below_zero(h2: RecordingUpstream, open_caller: Open) -> None:
    """SETTINGS may take a window back that is in use (RFC 9113 section 6.9.2)."""
    h2.hold_window = True
    h2.initial_window_size = 20_000
    async with open_caller(h2) as caller:
        task = caller.start(b"x" * 40_000)
        request = await h2.arrived(1)
        await request.body_received(20_000)
        request.connection.update_settings(initial_window_size=1_000)
        h2.release_window()
        await finish(request)
        assert await read(await task) == b'{"ok": 1}'
