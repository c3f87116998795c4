"""Any order of what a caller, a peer and a socket may do: nothing raises, nothing is lost, no frame breaks a rule.

The rules are kept by `Book`, which reads what was written as a peer would: by the settings that are acknowledged.
"""

from __future__ import annotations

import asyncio
from struct import unpack
from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.upstream import frames
from gateway.upstream.fields import encode
from gateway.upstream.frames import END_HEADERS, END_STREAM, PADDED, Setting, frame
from gateway.upstream.gauges import Gauges
from gateway.upstream.h2connection import H2Connection
from gateway.upstream.stream import Outgoing, Stream
from tests.kit.signal import turns

OK = encode([(b":status", b"200")])
FIRST = {Setting.MAX_CONCURRENT_STREAMS: 100, Setting.INITIAL_WINDOW_SIZE: 1_000}


class Book(asyncio.Transport):
    """The socket, and what a strict peer knows of the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.offered: list[dict[Setting, int]] = []
        self.initial = frames.DEFAULT_WINDOW
        self.frame_limit = frames.FRAME_LIMIT
        self.window = frames.DEFAULT_WINDOW
        self.windows: dict[int, int] = {}
        self.closed_by_us: set[int] = set()
        self.resets: list[int] = []
        self.last = -1
        self.down = False

    def offer(self, values: dict[Setting, int]) -> bytes:
        self.offered.append(values)
        return frames.settings(values)

    def credit(self, stream_id: int, size: int) -> bytes:
        if not stream_id:
            self.window += size
        elif stream_id in self.windows:
            self.windows[stream_id] += size
        return frames.window_update(stream_id, size)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.down
        rest = bytes(data).removeprefix(frames.PREFACE)
        while rest:
            high, low, kind, flags, stream_id = frames.unpack_head(rest)
            size = high << 8 | low
            payload, rest = rest[9 : 9 + size], rest[9 + size :]
            self.heard(kind, flags, stream_id, payload)

    def heard(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        assert len(payload) <= self.frame_limit
        if kind == frames.SETTINGS and flags & frames.ACK:
            values = self.offered.pop(0)
            self.frame_limit = values.get(Setting.MAX_FRAME_SIZE, self.frame_limit)
            delta = values.get(Setting.INITIAL_WINDOW_SIZE, self.initial) - self.initial
            self.initial += delta
            self.windows = {number: window + delta for number, window in self.windows.items()}
        elif kind == frames.HEADERS:
            assert stream_id == self.last + 2
            self.last = stream_id
            self.windows[stream_id] = self.initial
            if flags & END_STREAM:
                self.closed_by_us.add(stream_id)
        elif kind == frames.DATA:
            assert stream_id not in self.closed_by_us
            self.window -= len(payload)
            self.windows[stream_id] -= len(payload)
            assert not payload or min(self.window, self.windows[stream_id]) >= 0
            if flags & END_STREAM:
                self.closed_by_us.add(stream_id)
        elif kind == frames.RST_STREAM:
            assert stream_id not in self.resets
            self.resets.append(stream_id)
            self.closed_by_us.add(stream_id)
        elif kind == frames.WINDOW_UPDATE:
            assert stream_id not in self.resets
            assert unpack(">L", payload)[0] > 0

    def close(self) -> None:
        self.down = True

    abort = close


numbers = st.integers(0, 5)
windows = st.sampled_from([0, 1, 999, 20_000, 200_000])
steps = st.one_of(
    st.tuples(st.just("start"), st.sampled_from([0, 1, 900, 40_000, 100_000])),
    st.tuples(st.sampled_from(["cancel", "head", "end", "read", "trailers", "refuse", "reset"]), numbers),
    st.tuples(st.sampled_from(["data", "padding"]), numbers, st.integers(1, 5_000)),
    st.tuples(st.just("settings"), windows, st.sampled_from([16_384, 30_000]), st.sampled_from([0, 4_096, 9_999])),
    st.tuples(st.just("credit"), st.integers(-1, 5), st.sampled_from([1, 500, 100_000])),
    st.tuples(st.just("goaway"), st.sampled_from([0, 1, 3, 7, 2**31 - 1])),
    st.tuples(st.sampled_from(["ping", "pause", "resume", "turn", "drain", "breach", "lost", "close"])),
)
usual = st.tuples(st.just("start"), st.sampled_from([1_500, 100_000]))


@settings(max_examples=1_000, deadline=None)
@given(st.lists(st.one_of(usual, steps, steps, steps), max_size=40), st.booleans())
def test_any_order_of_events(script: list[tuple[Any, ...]], joined: bool) -> None:
    asyncio.run(play(script, joined))


async def play(script: list[tuple[Any, ...]], joined: bool) -> None:
    """`joined`: what the peer says arrives with what it says next, in one read."""
    book, gauges = Book(), Gauges()
    connection = H2Connection(b"https", b"model.test", gauges, lambda: None)
    connection.connection_made(book)
    connection.data_received(book.offer(FIRST))
    streams: list[Stream] = []
    said = b""
    for name, *values in script:
        wire = peer(book, name, values)
        said += wire
        if not (joined and wire) and said:
            connection.data_received(said)
            said = b""
        ours(connection, streams, name, values)
        if name in ("read", "turn"):
            await turns(1)
        check(connection, streams, gauges)
        if connection.closed:
            break
    if said:
        connection.data_received(said)
    if not connection.closed:
        connection.resume_writing()
        await turns()
        check(connection, streams, gauges)
        assert not book.offered  # every SETTINGS was acknowledged
        connection.close()
    connection.connection_lost(None)
    await turns()
    check(connection, streams, gauges)
    assert (gauges.streams, gauges.connections, connection._engine.uploads) == (0, 0, {})
    for stream in streams:
        assert stream.over
        assert stream.head.done()
        try:
            while await stream.read():
                pass
        except httpx.TransportError:
            pass


def peer(book: Book, name: str, values: list[Any]) -> bytes:
    """What the step has the peer say, of one of the streams that were opened."""
    opened = (book.last + 1) // 2
    if name in ("head", "end", "trailers", "refuse", "reset", "data", "padding") and not opened:
        return b""
    stream_id = values[0] % max(opened, 1) * 2 + 1 if values else 0
    match name:
        case "head":
            return frame(frames.HEADERS, END_HEADERS, stream_id, OK)
        case "end":
            return frame(frames.HEADERS, END_HEADERS, stream_id, OK) + frame(frames.DATA, END_STREAM, stream_id)
        case "trailers":
            return frame(frames.HEADERS, END_HEADERS | END_STREAM, stream_id, encode([(b"x-t", b"1")]))
        case "refuse" | "reset":
            return frames.rst_stream(stream_id, 7 if name == "refuse" else 0)
        case "data":
            return frame(frames.DATA, 0, stream_id, b"d" * values[1])
        case "padding":
            return frame(frames.DATA, PADDED, stream_id, b"\x07" + bytes(7))
        case "settings":
            size, limit, table = values
            changes = {Setting.INITIAL_WINDOW_SIZE: size, Setting.MAX_FRAME_SIZE: limit}
            return book.offer(changes | {Setting.HEADER_TABLE_SIZE: table})
        case "credit":
            return book.credit(stream_id if values[0] >= 0 and opened else 0, values[1])
        case "goaway":
            return frames.goaway(values[0], 0)
        case "ping":
            return frames.ping(bytes(8))
        case "breach":
            return b"\xff" * 9
    return b""


def ours(connection: H2Connection, streams: list[Stream], name: str, values: list[Any]) -> None:
    if name == "start" and connection.usable:
        later = connection.made_at + 1_000
        streams.append(connection.start(Outgoing(b"POST", b"/", (), b"b" * values[0], later, 60.0)))
    elif name == "cancel" and values[0] < len(streams):
        streams[values[0]].cancel()
        streams[values[0]].cancel()
    elif name == "read" and values[0] < len(streams) and streams[values[0]].unread:
        stream = streams[values[0]]
        asyncio.ensure_future(stream.read()).add_done_callback(lambda task: task.exception())
    elif name == "pause":
        connection.pause_writing()
    elif name == "resume":
        connection.resume_writing()
    elif name == "drain":
        connection.drain()
    elif name == "close":
        connection.close()
    elif name == "lost":
        connection.connection_lost(OSError("gone"))
        connection._gauges.connections += 1  # the end of `play` says it again


def check(connection: H2Connection, streams: list[Stream], gauges: Gauges) -> None:
    """The count of open streams, the engine's and the callers' are one and the same."""
    here = {stream.id for stream in streams if not stream.over}
    assert here == set(connection._streams)
    assert gauges.streams == len(here)
    assert set(connection._engine.uploads) <= here
    if connection.closed:
        assert not here
        assert connection._deadlines._timer is None
