"""When the connection writes: at once when it is asked first, once for all that follows in the same turn."""

from __future__ import annotations

import asyncio
import gc
import math

import httpx
import pytest

from gateway.upstream import frames
from gateway.upstream.errors import RefusedError
from gateway.upstream.fields import encode
from gateway.upstream.frames import END_HEADERS, END_STREAM, Setting, frame
from gateway.upstream.gauges import Gauges
from gateway.upstream.h2connection import H2Connection
from gateway.upstream.stream import Outgoing
from tests.kit.signal import turns

SETTINGS = frames.settings({Setting.MAX_CONCURRENT_STREAMS: 10})
OK = encode([(b":status", b"200")])


class FakeTransport(asyncio.Transport):
    """Notes each write by the types of the frames in it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[list[int]] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        kinds, rest = [], bytes(data).removeprefix(frames.PREFACE)
        while rest:
            kinds.append(rest[3])
            rest = rest[9 + int.from_bytes(rest[:3], "big") :]
        self.writes.append(kinds)

    def close(self) -> None:
        self.closed = True

    abort = close


def connected() -> tuple[H2Connection, FakeTransport]:
    connection, transport = H2Connection(b"https", b"model.test", Gauges(), lambda: None), FakeTransport()
    connection.connection_made(transport)
    connection.data_received(SETTINGS)
    assert connection.limit == 10
    assert transport.writes == [[frames.SETTINGS, frames.WINDOW_UPDATE], [frames.SETTINGS]]
    transport.writes.clear()
    return connection, transport


def request(body: bytes = b"") -> Outgoing:
    return Outgoing(b"POST", b"/", (), body, math.inf, 60.0)


async def test_a_lone_request_waits_for_nothing() -> None:
    connection, transport = connected()
    connection.start(request(b"{}"))
    assert transport.writes == [[frames.HEADERS, frames.DATA]]
    await turns()
    assert len(transport.writes) == 1
    connection.start(request())
    assert len(transport.writes) == 2
    connection.close()


async def test_what_follows_in_the_same_turn_leaves_in_one_write() -> None:
    connection, transport = connected()
    for _ in range(4):
        connection.start(request())
    assert transport.writes == [[frames.HEADERS]]
    await turns()
    assert transport.writes == [[frames.HEADERS], [frames.HEADERS] * 3]
    connection.close()


async def test_a_reset_waits_for_nothing_and_overtakes_nothing() -> None:
    connection, transport = connected()
    connection.start(request())
    given_up = connection.start(request())
    assert len(transport.writes) == 1
    given_up.cancel()
    assert transport.writes[1:] == [[frames.HEADERS, frames.RST_STREAM]]
    await turns()
    assert len(transport.writes) == 2
    connection.close()


async def test_nothing_is_written_to_a_connection_that_ended_in_the_same_turn() -> None:
    connection, transport = connected()
    connection.start(request())
    waiting = connection.start(request())
    connection.connection_lost(None)
    transport.closed = True  # would raise
    await turns()
    with pytest.raises(httpx.RemoteProtocolError):
        await waiting.head
    with pytest.raises(RefusedError):
        connection.start(request())


async def test_what_came_before_a_breach_is_delivered() -> None:
    connection, transport = connected()
    whole, other = connection.start(request()), connection.start(request())
    head = frame(frames.HEADERS, END_HEADERS, whole.id, OK)
    connection.data_received(head + frame(frames.DATA, END_STREAM, whole.id, b"all of it") + b"\xff" * 9)
    assert (await whole.head).status == 200
    assert await whole.read() == b"all of it"
    assert await whole.read() == b""
    with pytest.raises(httpx.RemoteProtocolError, match="broke HTTP/2"):
        await other.head
    assert transport.closed
    assert transport.writes[-1][-1] == frames.GOAWAY
    assert connection.open == 0


async def test_data_of_one_read_come_in_one_piece_and_early_data_are_kept() -> None:
    connection, _ = connected()
    stream = connection.start(request())
    pieces = b"".join(frame(frames.DATA, 0, stream.id, b"%d," % number) for number in range(5))
    connection.data_received(frame(frames.HEADERS, END_HEADERS, stream.id, OK) + pieces)
    connection.data_received(pieces)
    assert await stream.read() == b"0,1,2,3,4," * 2
    reading = asyncio.ensure_future(stream.read())
    await turns()
    connection.data_received(frame(frames.DATA, 0, stream.id, b"more"))
    assert await reading == b"more"
    connection.close()
    with pytest.raises(httpx.RemoteProtocolError):
        await stream.read()


async def test_a_stream_that_is_over_leaves_no_cycle() -> None:
    """Reference counts free it: at thousands a second the collector of cycles would be felt."""
    connection, _ = connected()
    gc.collect()
    gc.disable()
    try:
        for number in range(1, 20, 2):
            stream = connection.start(request())
            connection.data_received(frame(frames.HEADERS, END_HEADERS | END_STREAM, number, OK))
            assert (await stream.head).status == 200
            del stream
        assert gc.collect() == 0
    finally:
        gc.enable()
    connection.close()
