"""Cancellation over HTTP/2: a stream given up is reset at once, and nothing else is touched."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.upstream.transport import SENT
from tests.integration.upstream.caller import cancelled, read, stream_of
from tests.integration.upstream.conftest import Open
from tests.kit.h2client import CANCEL
from tests.kit.signal import turns
from tests.kit.upstream import RecordingUpstream, Request


async def finish(request: Request) -> None:
    (await request.complete()).respond_json({"ok": request.number})


async def test_before_the_head(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        request = await h2.arrived(1)
        await cancelled(task)
        assert (await request.reset()).code == CANCEL
        assert (h2.resets, len(h2.connections), caller.gauges.resets_sent) == (1, 1, 1)


async def test_head_sent_then_silent(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        request = await h2.arrived(1)
        request.respond(200)
        reading = asyncio.ensure_future(read(await task))
        await turns()
        assert not reading.done()
        await cancelled(reading)
        assert (await request.reset()).code == CANCEL


async def test_after_some_chunks(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        request = await h2.arrived(1)
        request.respond(200)
        response = await task
        chunks = stream_of(response)
        for number in range(3):
            request.send(b"chunk %d" % number)
            assert await anext(chunks) == b"chunk %d" % number
        await response.aclose()
        assert (await request.reset()).code == CANCEL


async def test_closing_needs_no_event_loop_turn(h2: RecordingUpstream, open_caller: Open) -> None:
    """`cancel()` is a plain call; when it returns the reset is written, though this task never awaits again."""
    async with open_caller(h2) as caller:
        task = caller.start()
        (await h2.arrived(1)).respond(200)
        response = await task
        stream_of(response).cancel()
        assert (caller.gauges.resets_sent, caller.gauges.streams) == (1, 0)
        stream_of(response).cancel()
        await response.aclose()
        assert caller.gauges.resets_sent == 1
        assert (await (await h2.arrived(1)).reset()).code == CANCEL


async def test_cancel_wakes_a_reader_in_another_task(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        (await h2.arrived(1)).respond(200)
        response = await task
        reading = asyncio.ensure_future(anext(stream_of(response)))
        await turns()
        stream_of(response).cancel()
        with pytest.raises(httpx.ReadError):
            await reading


async def test_an_answer_that_has_ended_is_not_reset(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        request = await (await h2.arrived(1)).complete()
        request.respond_json({"unread": True})
        response = await task
        await h2.idle()
        ended = asyncio.ensure_future(caller.ask())
        await finish(await h2.arrived(2))  # its answer comes after the end of the first
        await ended
        await response.aclose()
        assert (h2.resets, h2.ended) == (0, 2)


async def test_queued_behind_a_full_connection(h2: RecordingUpstream, open_caller: Open) -> None:
    """Who waits for a slot and gives up costs the upstream nothing; who waits behind gets the slot."""
    h2.max_concurrent_streams = 2
    async with open_caller(h2) as caller:
        first, second = caller.start(), caller.start()
        await h2.arrived(2)
        queued = caller.start()
        behind = caller.start()
        await turns()
        assert caller.gauges.waiting == 2
        await cancelled(queued)
        assert (h2.opened, caller.gauges.resets_sent) == (2, 0)
        await cancelled(first)
        await finish(await h2.arrived(3))
        assert (await read(await behind)) == b'{"ok": 3}'
        await cancelled(second)
        await h2.requests[1].reset()
        assert (h2.opened, h2.resets, len(h2.connections)) == (3, 2, 1)


async def test_cancelled_at_the_instant_of_its_turn(h2: RecordingUpstream, open_caller: Open) -> None:
    """The slot comes free and its taker is cancelled before it runs: the one behind must be woken."""
    h2.max_concurrent_streams = 1
    async with open_caller(h2) as caller:
        task = caller.start()
        (await h2.arrived(1)).respond(200)
        response = await task
        taker, behind = caller.start(), caller.start()
        await turns()
        stream_of(response).cancel()  # hands the slot to `taker`, whose task has not run yet
        await cancelled(taker)
        await finish(await h2.arrived(2))
        assert await read(await behind) == b'{"ok": 2}'
        assert (h2.opened, h2.resets) == (2, 1)


async def test_during_the_dial(h2: RecordingUpstream, open_caller: Open) -> None:
    """The dial is the pool's: it survives the request that began it, and serves those who wait for it."""
    async with open_caller(h2) as caller:
        begun, waiting = caller.start(), caller.start()
        await turns(1)
        await cancelled(begun)
        await finish(await h2.arrived(1))
        assert await read(await waiting) == b'{"ok": 1}'
        assert (len(h2.connections), h2.opened, h2.resets) == (1, 1, 0)


async def test_nothing_counts_as_sent_before_it_is(h2: RecordingUpstream, open_caller: Open) -> None:
    h2.max_concurrent_streams = 1
    sent: list[str] = []
    async with open_caller(h2) as caller:

        def start(name: str) -> asyncio.Task[httpx.Response]:
            request = caller.request(extensions={SENT: lambda: sent.append(name)})
            return asyncio.ensure_future(caller.transport.handle_async_request(request))

        first, queued = start("first"), start("queued")
        await h2.arrived(1)
        assert sent == ["first"]
        await cancelled(queued)
        await cancelled(first)
        assert sent == ["first"]


async def test_upload_blocked_on_its_window(h2: RecordingUpstream, open_caller: Open) -> None:
    h2.hold_window = True
    async with open_caller(h2) as caller:
        blocked = caller.start(b"x" * 200_000)
        request = await h2.arrived(1)
        await request.body_received(65_535)
        await cancelled(blocked)
        assert (await request.reset()).code == CANCEL
        assert len(request.body) == 65_535
        h2.release_window()
        answer = asyncio.ensure_future(caller.ask(b"y" * 200_000))
        second = await (await h2.arrived(2)).complete()
        second.respond_json({"size": len(second.body)})
        assert await answer == b'{"size": 200000}'
        assert (len(h2.connections), h2.late_data) == (1, 0)


@pytest.mark.parametrize("count", [300, 1_100])
async def test_many_cancels_beside_an_innocent_stream(
    h2: RecordingUpstream, open_caller: Open, count: int
) -> None:
    async with open_caller(h2, connection_resets=0) as caller:
        task = caller.start()
        innocent = await h2.arrived(1)
        innocent.respond(200)
        response = await task
        chunks = stream_of(response)
        for number in range(count):
            victim = caller.start()
            request = await h2.arrived(number + 2)
            if number % 3 == 1:
                request.respond(200)
            elif number % 3 == 2:
                request.respond(200)
                request.send(b"x" * 2_000)
            if number % 2:
                await turns(2)
            victim.cancel()
            await asyncio.gather(victim, return_exceptions=True)
            if not victim.cancelled():
                await victim.result().aclose()
            assert (await request.reset()).code == CANCEL
            innocent.send(b"%d" % number)
            assert await anext(chunks) == b"%d" % number
        innocent.end()
        assert [data async for data in chunks] == []
        assert (len(h2.connections), h2.resets, h2.opened) == (1, count, count + 1)
        assert (caller.gauges.resets_sent, h2.reset_frames) == (count, count)


async def test_data_that_crosses_the_reset(h2: RecordingUpstream, open_caller: Open) -> None:
    """Late frames are ignored, answered by no further reset, and their flow-control credit is given back."""
    async with open_caller(h2) as caller:
        for number in range(1, 41):
            task = caller.start()
            request = await h2.arrived(number)
            request.respond(200)
            await (await task).aclose()
            await request.reset()
            for _ in range(60):
                request.send_late(b"x" * 16_000)  # in all more than twice the connection's window
        answer = asyncio.ensure_future(caller.ask())
        await finish(await h2.arrived(41))
        assert await answer == b'{"ok": 41}'
        assert (h2.resets, h2.reset_frames, caller.gauges.resets_sent, len(h2.connections)) == (40, 40, 40, 1)


async def test_head_that_crosses_the_reset(h2: RecordingUpstream, open_caller: Open) -> None:
    """HEADERS on a stream already reset are decoded all the same: HPACK's table belongs to the connection."""
    async with open_caller(h2) as caller:
        task = caller.start()
        request = await h2.arrived(1)
        request.respond(200, [("x-new-in-the-table", "1" * 50)])  # written, not yet read by the caller
        await cancelled(task)
        await request.reset()
        again = caller.start()
        second = await h2.arrived(2)
        second.respond(200, [("x-new-in-the-table", "1" * 50)], end=True)
        response = await again
        assert response.headers["x-new-in-the-table"] == "1" * 50
        await second.complete()
        await response.aclose()
        assert (h2.resets, h2.reset_frames) == (1, 1)
