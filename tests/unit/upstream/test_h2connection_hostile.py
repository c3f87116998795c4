"""A peer that does not read, or says what makes no sense: what it may cost, and whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from gateway.upstream import frames, h2connection
from gateway.upstream.errors import RefusedError
from gateway.upstream.frames import END_HEADERS, END_STREAM, PADDED, Setting, frame
from gateway.upstream.h2connection import H2Connection
from tests.kit.signal import turns
from tests.unit.upstream.test_h2connection import OK, FakeTransport, connected, request


def written(transport: FakeTransport) -> list[int]:
    return [kind for write in transport.writes for kind in write]


def wide_open(connection: H2Connection) -> None:
    connection.data_received(
        frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1, Setting.MAX_CONCURRENT_STREAMS: 1_000})
        + frames.window_update(0, 2**31 - 1 - 65_535)
    )


async def test_frames_on_a_stream_that_goaway_disowned_in_the_same_read() -> None:
    connection, transport = connected()
    kept, refused = connection.start(request()), connection.start(request())
    connection.data_received(
        frames.goaway(kept.id, 0)
        + frame(frames.HEADERS, END_HEADERS, refused.id, OK)
        + frame(frames.DATA, 0, refused.id, b"nobody's")
        + frame(frames.DATA, END_STREAM, refused.id, b"")
        + frame(frames.HEADERS, END_HEADERS | END_STREAM, kept.id, OK)
    )
    with pytest.raises(RefusedError):
        await refused.head
    assert (await kept.head).status == 200
    assert (connection.open, transport.closed) == (0, True)


async def test_bodies_wait_here_and_not_in_the_socket_while_it_is_full() -> None:
    connection, transport = connected()
    wide_open(connection)
    connection.pause_writing()
    transport.writes.clear()
    streams = [connection.start(request(b"b" * 16_000)) for _ in range(5)]
    await turns()
    assert written(transport) == [frames.HEADERS] * 5
    streams[1].cancel()
    streams[1].cancel()
    connection.resume_writing()
    await turns()
    assert written(transport) == [frames.HEADERS] * 5 + [frames.RST_STREAM] + [frames.DATA] * 4
    connection.close()


async def test_a_peer_that_asks_and_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is queued for a full socket is bounded: a second of patience for each PING would be for ever."""
    monkeypatch.setattr(h2connection, "BACKLOG_LIMIT", 1_000)
    connection, transport = connected()
    stream = connection.start(request())
    connection.pause_writing()
    for _ in range(60):
        if connection.closed:
            break
        connection.data_received(frames.ping(bytes(8)))
    assert (connection.closed, transport.closed, connection.open) == (True, True, 0)
    assert written(transport).count(frames.PING) <= 59
    with pytest.raises(httpx.RemoteProtocolError, match="does not read"):
        await stream.head
    await turns()


async def test_what_is_read_in_between_counts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2connection, "BACKLOG_LIMIT", 1_000)
    connection, _ = connected()
    for _ in range(10):
        connection.pause_writing()
        connection.data_received(frames.ping(bytes(8)) * 50)
        connection.resume_writing()
    assert connection.usable
    connection.close()


@pytest.mark.parametrize("step", ["reset", "close", "drain", "fault", "start"])
async def test_it_may_be_left_at_any_step(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    connection, transport = connected()
    streams = [connection.start(request(b"x")) for _ in range(3)]
    await turns()
    connection.pause_writing()
    monkeypatch.setattr(h2connection, "BACKLOG_LIMIT", 1)
    if step == "reset":
        streams[0].cancel()
    elif step == "close":
        connection.close()
    elif step == "drain":
        connection.drain()
        for stream in streams:
            stream.cancel()
    elif step == "fault":
        connection.data_received(b"\xff" * 9)
    else:
        streams.append(connection.start(request(b"y")))
    for stream in streams:
        assert stream.over
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await stream.head
    await turns()
    assert (connection.closed, transport.closed, connection.open) == (True, True, 0)
    assert (connection._gauges.streams, connection._deadlines._timer) == (0, None)


async def test_a_peer_that_does_not_read_the_farewell_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport that closes writes what is left first, and in clear text has all the time of the world."""
    monkeypatch.setattr(h2connection, "LINGER_S", 0.0)
    connection, transport = connected()
    cut = asyncio.Event()
    monkeypatch.setattr(transport, "abort", cut.set)
    connection.close()
    async with asyncio.timeout(60):
        await cut.wait()
    connection.connection_lost(None)


async def test_nothing_lingers_when_it_is_read() -> None:
    connection, _ = connected()
    connection.close()
    assert connection._linger is not None
    connection.connection_lost(None)
    assert connection._linger is None


async def test_padding_alone_gives_its_credit_back() -> None:
    """A peer may pad a stream that has nothing to say: it must not run out of window by that."""
    connection, transport = connected()
    stream = connection.start(request())
    connection.data_received(frame(frames.HEADERS, END_HEADERS, stream.id, OK))
    reading = asyncio.ensure_future(stream.read())
    await turns()
    transport.writes.clear()
    for _ in range(20):
        connection.data_received(frame(frames.DATA, PADDED, stream.id, b"\xff" + bytes(255)) * 50)
        await turns()
    assert frames.WINDOW_UPDATE in written(transport)
    connection.data_received(frame(frames.DATA, END_STREAM, stream.id, b"after all"))
    assert await reading == b"after all"
    assert await stream.read() == b""
    connection.close()


async def test_a_timer_that_was_stopped_is_not_armed_again() -> None:
    connection, _ = connected()
    streams = [connection.start(request()) for _ in range(2)]
    connection.drain()
    end = END_HEADERS | END_STREAM
    connection.data_received(
        frame(frames.HEADERS, end, streams[0].id, OK) + frame(frames.HEADERS, end, streams[1].id, OK)
    )
    assert connection.closed
    assert [(await stream.head).status for stream in streams] == [200, 200]
    assert connection._deadlines._timer is None


@pytest.mark.parametrize("before", range(6))
async def test_cancel_twice_at_any_step(before: int) -> None:
    """Exactly one reset if the stream was open, none if it was over; never one for another stream."""
    connection, transport = connected()
    connection.data_received(frames.settings({Setting.INITIAL_WINDOW_SIZE: 10}))
    beside = connection.start(request())
    stream = connection.start(request(b"more than the window takes"))
    steps: list[Callable[[], None]] = [
        lambda: None,
        connection.pause_writing,
        lambda: connection.data_received(frame(frames.HEADERS, END_HEADERS, stream.id, OK)),
        lambda: connection.data_received(frame(frames.DATA, 0, stream.id, b"a piece")),
        connection.drain,
        lambda: connection.data_received(frames.goaway(2**31 - 1, 0)),
    ]
    for step in steps[: before + 1]:
        step()
    waiting = asyncio.ensure_future(stream.read())
    await turns(before % 2)
    waiting.cancel()
    stream.cancel()
    stream.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    stream.cancel()
    connection.resume_writing()
    await turns()
    assert written(transport).count(frames.RST_STREAM) == 1
    assert connection.open == 1
    connection.data_received(frame(frames.HEADERS, END_HEADERS | END_STREAM, beside.id, OK))
    assert (await beside.head).status == 200
    assert connection.open == 0
    connection.close()


async def test_no_error_says_what_the_peer_sent() -> None:
    connection, _ = connected()
    stream = connection.start(request())
    connection.data_received(frame(frames.HEADERS, END_HEADERS, stream.id, b"\x00\x06secret"))
    with pytest.raises(httpx.RemoteProtocolError) as caught:
        await stream.head
    assert "secret" not in str(caught.value)
    assert connection.closed
