"""Each rule that the engine holds a peer to, and each that it keeps itself (RFC 9113)."""

from __future__ import annotations

from struct import pack
from typing import Any

import pytest

from gateway.upstream import frames, letgo, noise
from gateway.upstream.channel import STREAM_WINDOW, Channel, Kind
from gateway.upstream.engine import CONNECTION_WINDOW, CONTINUATION_LIMIT, HEADER_LIST_LIMIT, Engine
from gateway.upstream.fields import EMPTY_TABLE, encode
from gateway.upstream.frames import ACK, END_HEADERS, END_STREAM, PADDED, Code, Setting, frame

HEAD = encode([(b":method", b"POST"), (b":path", b"/"), (b":scheme", b"https"), (b":authority", b"a")])
OK = encode([(b":status", b"200")])


def response(*fields: tuple[bytes, bytes], status: bytes = b"200") -> bytes:
    return encode([(b":status", status), *fields])


class Talk:
    """An engine whose peer has said hello, and what the two have said since."""

    def __init__(self, **settings: int) -> None:
        self.engine = Engine(0.0)
        self.now = 0.0
        self.hello = self.engine.take()
        first = self.hear(frames.settings({Setting[name]: value for name, value in settings.items()}))
        assert [kind for kind, _ in first] == [Kind.SETTINGS]
        assert self.said() == [(frames.SETTINGS, ACK, 0, b"")]

    def open(self, body: bytes = b"", **options: Any) -> Channel:
        channel = self.engine.start(HEAD, body, **options)
        self.said()
        return channel

    def hear(self, data: bytes) -> list[tuple[Kind, Any]]:
        """What the engine makes of it; of data, the bytes."""
        found: list[tuple[Kind, Any]] = []
        for kind, channel, value in self.engine.receive(data, self.now):
            found.append((kind, channel.take_data()[0] if kind is Kind.DATA and channel else value))
        return found

    def said(self) -> list[tuple[int, int, int, bytes]]:
        """(type, flags, stream id, payload) of all that is to be written."""
        found, data = [], self.engine.take()
        while data:
            high, low, kind, flags, stream_id = frames.unpack_head(data)
            end = 9 + (high << 8 | low)
            found.append((kind, flags, stream_id, data[9:end]))
            data = data[end:]
        return found

    def assert_fault(self, code: Code, data: bytes) -> None:
        assert self.hear(data)[-1][0] is Kind.FAULT
        assert self.engine.failed
        assert self.said()[-1] == (frames.GOAWAY, 0, 0, pack(">LL", 0, code))

    def assert_broken(self, code: Code, channel: Channel, data: bytes) -> None:
        """The stream is reset, and the connection lives."""
        assert self.hear(data)[-1][0] is Kind.BROKEN
        assert self.said() == [(frames.RST_STREAM, 0, channel.id, pack(">L", code))]
        assert channel.id not in self.engine.channels
        other = self.open()
        assert self.hear(frame(frames.HEADERS, END_HEADERS | END_STREAM, other.id, OK))[-1][0] is Kind.END


def headers(stream_id: int, block: bytes = OK, flags: int = END_HEADERS) -> bytes:
    return frame(frames.HEADERS, flags, stream_id, block)


def data(stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    return frame(frames.DATA, flags, stream_id, payload)


def test_the_preface() -> None:
    talk = Talk()
    settings = {
        Setting.ENABLE_PUSH: 0,
        Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        Setting.MAX_HEADER_LIST_SIZE: HEADER_LIST_LIMIT,
    }
    window = frames.window_update(0, CONNECTION_WINDOW - 65_535)
    assert talk.hello == frames.PREFACE + frames.settings(settings) + window


def test_an_answer_with_informational_heads_and_trailers() -> None:
    talk = Talk()
    channel = talk.open()
    found = talk.hear(
        headers(channel.id, response(status=b"103"))
        + headers(channel.id, response((b"content-length", b"5")))
        + data(channel.id, b"he")
        + data(channel.id, b"\x03llo" + bytes(3), PADDED)
        + headers(channel.id, encode([(b"x-trailer", b"1")]), END_HEADERS | END_STREAM)
    )
    assert [kind for kind, _ in found] == [Kind.HEAD, Kind.DATA, Kind.END]
    assert found[0][1].headers == [(b"content-length", b"5")]
    assert found[1][1] == b"hello"  # what came in one read comes in one piece
    assert talk.engine.channels == {}
    assert talk.said() == []


def test_a_block_in_continuations_and_priority_fields() -> None:
    talk = Talk()
    channel = talk.open()
    block = response((b"x-long", b"y" * 100))
    found = talk.hear(
        frame(frames.HEADERS, frames.PRIORITY_FIELDS, channel.id, b"\x80\x00\x00\x00\x10" + block[:3])
        + frame(frames.CONTINUATION, 0, channel.id, b"")
        + frame(frames.CONTINUATION, END_HEADERS, channel.id, block[3:])
    )
    assert found[0][1].headers == [(b"x-long", b"y" * 100)]


# What concerns one stream ends one stream.


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (lambda i: data(i, b"early"), Code.PROTOCOL_ERROR),
        (lambda i: headers(i, encode([(b"x", b"1")])), Code.PROTOCOL_ERROR),
        (lambda i: headers(i, response(status=b"20")), Code.PROTOCOL_ERROR),
        (lambda i: headers(i, response(status=b"abc")), Code.PROTOCOL_ERROR),
        (lambda i: headers(i, response(status=b"101")), Code.PROTOCOL_ERROR),
        (lambda i: headers(i, response(status=b"100"), END_HEADERS | END_STREAM), Code.PROTOCOL_ERROR),
        (lambda i: headers(i, response((b":status", b"200"))), Code.PROTOCOL_ERROR),
        (lambda i: headers(i, OK + b"\x00\x01X\x01a"), Code.PROTOCOL_ERROR),
        (lambda i: headers(i, OK + b"\x00\x01x\x02a\n"), Code.PROTOCOL_ERROR),
        (lambda i: headers(i, OK + b"\x00\x01x\x02 a"), Code.PROTOCOL_ERROR),
        (lambda i: headers(i, response((b"connection", b"close"))), Code.PROTOCOL_ERROR),
        (lambda i: headers(i, response((b"transfer-encoding", b"chunked"))), Code.PROTOCOL_ERROR),
        (lambda i: headers(i, response((b"content-length", b"-1"))), Code.PROTOCOL_ERROR),
        (
            lambda i: headers(i, response((b"content-length", b"1"), (b"content-length", b"2"))),
            Code.PROTOCOL_ERROR,
        ),
        (
            lambda i: headers(i, response((b"content-length", b"4"))) + data(i, b"123", END_STREAM),
            Code.PROTOCOL_ERROR,
        ),
        (
            lambda i: headers(i, response((b"content-length", b"4")), END_HEADERS | END_STREAM),
            Code.PROTOCOL_ERROR,
        ),
        (lambda i: headers(i) + headers(i, encode([(b"x", b"1")])), Code.PROTOCOL_ERROR),
        (
            lambda i: headers(i) + headers(i, encode([(b":status", b"200")]), END_HEADERS | END_STREAM),
            Code.PROTOCOL_ERROR,
        ),
        (lambda i: headers(i) + data(i, b"x" * 16_384) * 9, Code.FLOW_CONTROL_ERROR),
        (lambda i: frames.window_update(i, 0), Code.PROTOCOL_ERROR),
        (lambda i: frames.window_update(i, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    ],
)
def test_breach_of_a_stream(wire: Any, code: Code) -> None:
    talk = Talk()
    channel = talk.open()
    talk.assert_broken(code, channel, wire(channel.id))


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_answers_without_content_may_promise_a_length(status: bytes) -> None:
    talk = Talk()
    channel = talk.open()
    block = response((b"content-length", b"5"), status=status)
    assert talk.hear(headers(channel.id, block, END_HEADERS | END_STREAM))[-1][0] is Kind.END


def test_so_may_an_answer_to_head() -> None:
    talk = Talk()
    channel = talk.open(bodiless=True)
    block = response((b"content-length", b"5"))
    assert talk.hear(headers(channel.id, block, END_HEADERS | END_STREAM))[-1][0] is Kind.END


# What concerns the connection ends it.


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\xff\xff\xff" + bytes(6), Code.FRAME_SIZE_ERROR),
        (b"HTTP/1.1 400 Bad Request\r\n", Code.FRAME_SIZE_ERROR),
        (headers(2), Code.PROTOCOL_ERROR),
        (headers(3), Code.PROTOCOL_ERROR),
        (headers(0), Code.PROTOCOL_ERROR),
        (headers(1, b"\x80"), Code.COMPRESSION_ERROR),
        (headers(1, b"\xff\xff\xff\xff\xff\xff\xff"), Code.COMPRESSION_ERROR),
        (headers(1, OK + b"\x00\x01x"), Code.COMPRESSION_ERROR),
        (headers(1, OK + b"\x20"), Code.COMPRESSION_ERROR),
        (headers(1, b"\x3f\xff\xff\x03" + OK), Code.COMPRESSION_ERROR),
        (frame(frames.HEADERS, PADDED | END_HEADERS, 1, b"\x09a"), Code.PROTOCOL_ERROR),
        (headers(1, OK, 0) + data(1, b"x"), Code.PROTOCOL_ERROR),
        (headers(1, OK, 0) + frames.ping(bytes(8)), Code.PROTOCOL_ERROR),
        (headers(1, OK, 0) + frame(frames.CONTINUATION, END_HEADERS, 3, b""), Code.PROTOCOL_ERROR),
        (frame(frames.CONTINUATION, END_HEADERS, 1, OK), Code.PROTOCOL_ERROR),
        (headers(1, b"", 0) + frame(frames.CONTINUATION, 0, 1, b"") * CONTINUATION_LIMIT, Code.ENHANCE_YOUR_CALM),
        (headers(1, b"", 0) + frame(frames.CONTINUATION, 0, 1, b"x" * 16_384) * 5, Code.ENHANCE_YOUR_CALM),
        (data(0, b"x"), Code.PROTOCOL_ERROR),
        (data(2, b"x"), Code.PROTOCOL_ERROR),
        (data(3, b"x"), Code.PROTOCOL_ERROR),
        (headers(1) + frame(frames.DATA, PADDED, 1, b""), Code.FRAME_SIZE_ERROR),
        (headers(1) + frame(frames.DATA, PADDED, 1, b"\x02a"), Code.PROTOCOL_ERROR),
        (headers(1, OK, END_HEADERS | END_STREAM) + data(1, b"more"), Code.STREAM_CLOSED),
        (headers(1, OK, END_HEADERS | END_STREAM) + headers(1), Code.STREAM_CLOSED),
        (frames.rst_stream(1, 8) + data(1, b"more"), Code.STREAM_CLOSED),
        (frame(frames.RST_STREAM, 0, 1, b"123"), Code.FRAME_SIZE_ERROR),
        (frames.rst_stream(0, 8), Code.PROTOCOL_ERROR),
        (frames.rst_stream(3, 8), Code.PROTOCOL_ERROR),
        (frame(frames.SETTINGS, 0, 1, b""), Code.PROTOCOL_ERROR),
        (frame(frames.SETTINGS, 0, 0, b"1"), Code.FRAME_SIZE_ERROR),
        (frame(frames.SETTINGS, ACK, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
        (frames.SETTINGS_ACK * 2, Code.PROTOCOL_ERROR),
        (frames.settings({Setting.ENABLE_PUSH: 1}), Code.PROTOCOL_ERROR),
        (frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31}), Code.FLOW_CONTROL_ERROR),
        (
            frames.window_update(1, 100) + frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1}),
            Code.FLOW_CONTROL_ERROR,
        ),
        (frame(frames.PUSH_PROMISE, END_HEADERS, 1, b"\x00\x00\x00\x02" + HEAD), Code.PROTOCOL_ERROR),
        (frame(frames.PING, 0, 0, b"1234567"), Code.FRAME_SIZE_ERROR),
        (frame(frames.PING, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
        (frame(frames.GOAWAY, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
        (frame(frames.GOAWAY, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
        (frame(frames.WINDOW_UPDATE, 0, 0, b"123"), Code.FRAME_SIZE_ERROR),
        (frames.window_update(0, 0), Code.PROTOCOL_ERROR),
        (frames.window_update(0, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
        (frames.window_update(3, 1), Code.PROTOCOL_ERROR),
        (frame(frames.PRIORITY, 0, 0, bytes(5)), Code.PROTOCOL_ERROR),
        (frame(frames.PRIORITY, 0, 1, bytes(4)), Code.FRAME_SIZE_ERROR),
    ],
)
def test_breach_of_the_connection(wire: bytes, code: Code) -> None:
    talk = Talk()
    assert talk.open().id == 1
    talk.assert_fault(code, wire)


@pytest.mark.parametrize(
    "wire", [frames.SETTINGS_ACK, frames.ping(bytes(8)), headers(1), b"\x00\x00\x00\x63" + bytes(5)]
)
def test_a_connection_begins_with_settings(wire: bytes) -> None:
    engine = Engine(0.0)
    engine.start(HEAD, b"")
    (event,) = engine.receive(wire, 0.0)
    assert event[0] is Kind.FAULT


def test_what_came_before_a_fault_is_told() -> None:
    talk = Talk()
    channel = talk.open()
    found = talk.hear(headers(channel.id, OK, END_HEADERS | END_STREAM) + b"\xff" * 9)
    assert [kind for kind, _ in found] == [Kind.HEAD, Kind.END, Kind.FAULT]


def test_data_beyond_the_connections_window() -> None:
    """Credit goes back as data arrives, so this takes a peer that sends more than all of it in one read."""
    talk = Talk()
    channel = talk.open()
    talk.hear(headers(channel.id))
    talk.engine._credit = CONNECTION_WINDOW // 2
    for _ in range(2):
        talk.engine.reset(channel, Code.CANCEL)
    talk.said()
    talk.hear(data(channel.id, b"x"))
    assert talk.said() == [(frames.WINDOW_UPDATE, 0, 0, pack(">L", CONNECTION_WINDOW // 2 + 1))]
    talk.engine._credit = 5
    talk.assert_fault(Code.FLOW_CONTROL_ERROR, data(channel.id, b"123456"))


def test_a_header_bomb() -> None:
    """A few bytes that stand for many: 4,000 bytes in the table, named 100 times (RFC 7541 section 7.3)."""
    talk = Talk()
    channel = talk.open()
    entry = b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4_000
    talk.assert_fault(Code.ENHANCE_YOUR_CALM, headers(channel.id, OK + entry + b"\xbe" * 100))


# After our reset.


def test_late_frames_are_ignored_and_keep_hpack_in_step() -> None:
    talk = Talk()
    channel = talk.open()
    talk.engine.reset(channel, Code.CANCEL)
    talk.said()
    indexed = b"\x88\x40\x03new\x011"  # puts 'new: 1' into the table
    assert talk.hear(headers(channel.id, indexed) + data(channel.id, b"late", END_STREAM)) == []
    assert talk.hear(frames.window_update(channel.id, 5) + frames.rst_stream(channel.id, 0)) == []
    assert talk.said() == []
    again = talk.open()
    found = talk.hear(headers(again.id, b"\x88\xbe", END_HEADERS | END_STREAM))
    assert found[0][1].headers == [(b"new", b"1")]


def test_a_reset_long_ago_gets_the_benefit_of_doubt() -> None:
    talk = Talk()
    first = talk.open()
    for channel in [first, *(talk.open() for _ in range(letgo.KEPT + 5))]:
        talk.engine.reset(channel, Code.CANCEL)
    assert len(talk.engine._let_go) == letgo.KEPT
    assert talk.hear(data(first.id, b"very late")) == []


def test_streams_a_goaway_disowned_are_as_good_as_reset() -> None:
    talk = Talk()
    kept, refused = talk.open(), talk.open()
    assert talk.hear(frames.goaway(kept.id, 0)) == [(Kind.GOAWAY, [refused])]
    assert talk.said() == []
    assert talk.hear(headers(refused.id) + headers(kept.id, OK, END_HEADERS | END_STREAM))[-1] == (Kind.END, None)


def test_a_reset_stream_is_over() -> None:
    talk = Talk()
    channel = talk.open()
    assert talk.hear(frames.rst_stream(channel.id, 11)) == [(Kind.RESET, 11)]
    talk.engine.reset(channel, Code.CANCEL)
    talk.engine.give_credit(channel, 10)
    assert talk.said() == []


# Uploads.


def test_a_small_body_goes_with_its_head() -> None:
    talk = Talk()
    channel = talk.engine.start(HEAD, b"body")
    assert [said[:2] for said in talk.said()] == [(frames.HEADERS, END_HEADERS), (frames.DATA, END_STREAM)]
    assert channel.id not in talk.engine.uploads


def test_uploads_follow_both_windows_and_take_turns() -> None:
    talk = Talk(INITIAL_WINDOW_SIZE=100, MAX_FRAME_SIZE=16_384)
    small, large = talk.open(b"s" * 150), talk.open(b"l" * 400)
    assert talk.engine.pump()
    assert [(i, len(p)) for _, _, i, p in talk.said()] == [(small.id, 100), (large.id, 100)]
    assert not talk.engine.pump()
    talk.hear(frames.window_update(small.id, 500))
    assert talk.engine.pump()
    assert talk.said() == [(frames.DATA, END_STREAM, small.id, b"s" * 50)]
    talk.hear(frames.settings({Setting.INITIAL_WINDOW_SIZE: 10}))
    assert large.window == -90
    talk.hear(frames.window_update(large.id, 90))
    assert not talk.engine.pump()
    talk.hear(frames.settings({Setting.INITIAL_WINDOW_SIZE: 1_000}))
    assert talk.engine.pump()
    assert talk.said()[-1] == (frames.DATA, END_STREAM, large.id, b"l" * 300)


def test_the_connections_window_bounds_all_uploads() -> None:
    talk = Talk(INITIAL_WINDOW_SIZE=1_000_000)
    channel = talk.open(b"x" * 100_000)
    while talk.engine.pump():
        pass
    assert sum(len(payload) for _, _, _, payload in talk.said()) == 65_535
    talk.hear(frames.window_update(0, 10))
    assert talk.engine.pump()
    assert len(channel.upload) == 100_000 - 65_545


def test_an_answer_before_the_upload_is_done_ends_it() -> None:
    talk = Talk(INITIAL_WINDOW_SIZE=0)
    channel = talk.open(b"never sent")
    assert talk.hear(headers(channel.id, OK, END_HEADERS | END_STREAM))[-1][0] is Kind.END
    assert talk.said() == [(frames.RST_STREAM, 0, channel.id, pack(">L", Code.NO_ERROR))]
    assert not talk.engine.uploads


def test_a_smaller_table_is_said_once() -> None:
    talk = Talk()
    for size in (100, 0):
        talk.hear(frames.settings({Setting.HEADER_TABLE_SIZE: size}))
    talk.said()
    blocks = []
    for _ in range(2):
        talk.engine.start(HEAD, b"")
        blocks.append(talk.said()[0][3])
    assert blocks == [EMPTY_TABLE + HEAD, HEAD]


def test_read_credit_goes_back() -> None:
    talk = Talk()
    channel = talk.open()
    talk.hear(headers(channel.id) + data(channel.id, b"x" * 16_384) * 8)
    assert channel.credit == 0
    talk.engine.give_credit(channel, STREAM_WINDOW)
    assert talk.said() == [(frames.WINDOW_UPDATE, 0, channel.id, pack(">L", STREAM_WINDOW))]
    assert talk.hear(data(channel.id, b"more")) == [(Kind.DATA, b"more")]


# Floods.

FLOODS = {
    "PING": frames.ping(bytes(8)),
    "SETTINGS": frames.settings({}),
    "PRIORITY": frame(frames.PRIORITY, 0, 1, bytes(5)),
    "an unknown type": frame(0x63, 0, 1, b"x"),
    "empty DATA": data(1, b""),
    "GOAWAY": frames.goaway(2**31 - 1, 0),
    "WINDOW_UPDATE": frames.window_update(1, 1),
    "interim heads": headers(1, response(status=b"103")),
    "RST_STREAM of a stream that is over": frames.rst_stream(3, 0),
    "heads of a stream that we reset": headers(5),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_ends_the_connection(kind: str) -> None:
    talk = Talk()
    asked, ended, given_up = talk.open(), talk.open(), talk.open()
    talk.hear((headers(asked.id) if kind == "empty DATA" else b"") + frames.rst_stream(ended.id, 0))
    talk.engine.reset(given_up, Code.CANCEL)
    talk.assert_fault(Code.ENHANCE_YOUR_CALM, FLOODS[kind] * 2_000)


def test_the_same_frames_in_their_time_are_no_flood() -> None:
    talk = Talk()
    for second in range(100):
        talk.now = float(second)
        assert talk.hear(frames.ping(bytes(8)) * int(noise.PER_S)) == []
        assert len(talk.said()) == noise.PER_S


def test_window_updates_for_what_was_sent_are_no_flood() -> None:
    talk = Talk()
    for _ in range(3_000):
        channel = talk.open(b"x")
        talk.hear(frames.window_update(0, 1) + headers(channel.id) + frames.window_update(channel.id, 1))
        talk.hear(data(channel.id, b"", END_STREAM) + frames.rst_stream(channel.id, 0))
    assert not talk.engine.failed
