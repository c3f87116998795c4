"""The engine against jh2 as a server: any requests and answers, cut into any pieces, arrive as they were sent.

And against noise: whatever a peer sends, the engine waits, ends a stream or ends the connection; it never raises.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jh2.config
import jh2.connection
import jh2.events
import jh2.settings
from hypothesis import given, settings
from hypothesis import strategies as st
from jh2.hpack import Decoder, Encoder

from gateway.upstream import frames
from gateway.upstream.channel import STREAM_WINDOW, Channel, Kind
from gateway.upstream.engine import Engine
from gateway.upstream.fields import encode

ORIGIN = [(b":scheme", b"https"), (b":authority", b"model.test")]

names = st.from_regex(rb"x-[a-z0-9-]{1,20}", fullmatch=True)
values = st.from_regex(rb"[!-~]([ -~]{0,60}[!-~])?", fullmatch=True)
fields = st.lists(st.tuples(names, values), max_size=6)


@dataclass
class Exchange:
    """One request, what it is answered, and how it ends: in full, by the peer's reset or by ours."""

    request: list[tuple[bytes, bytes]]
    body: bytes
    answer: list[tuple[bytes, bytes]]
    chunks: list[bytes]
    padding: int
    trailers: bool
    end: str


exchanges = st.builds(
    Exchange,
    fields,
    st.one_of(st.binary(max_size=50), st.sampled_from([b"b" * 70_000, b"b" * 200_000])),
    fields,
    st.lists(st.one_of(st.binary(max_size=40), st.just(b"c" * 20_000)), max_size=8),
    st.integers(0, 20),
    st.booleans(),
    st.sampled_from(["whole", "whole", "reset by the peer", "reset by us"]),
)
cuts = st.lists(st.integers(1, 3_000), min_size=1, max_size=20)


@dataclass
class Got:
    """What one side has seen of one exchange."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None


class Wire:
    """The two ends and the bytes between them, delivered in pieces of the sizes in `cuts`, over and over."""

    def __init__(self, cuts: list[int]) -> None:
        self.cuts = cuts
        self.turn = 0
        self.engine = Engine(0.0)
        self.server: Any = jh2.connection.H2Connection(
            jh2.config.H2Configuration(client_side=False, header_encoding=None)
        )
        self.server.local_settings = jh2.settings.Settings(
            client=False, initial_values={jh2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100}
        )
        self.server.initiate_connection()
        self.at_server: dict[int, Got] = {}
        self.at_engine: dict[int, Got] = {}

    def pieces(self, data: bytes) -> list[bytes]:
        found = []
        while data:
            size = self.cuts[self.turn % len(self.cuts)]
            self.turn += 1
            found.append(data[:size])
            data = data[size:]
        return found

    def settle(self) -> None:
        """Carry bytes both ways until there are none."""
        while True:
            while self.engine.pump():
                pass
            out, back = self.engine.take(), self.server.data_to_send()
            if not out and not back:
                return
            for piece in self.pieces(out):
                for event in self.server.receive_data(piece):
                    self.on_server(event)
            for piece in self.pieces(back):
                for kind, channel, value in self.engine.receive(piece, 0.0):
                    self.on_engine(kind, channel, value)

    def on_server(self, event: Any) -> None:
        match event:
            case jh2.events.RequestReceived():
                self.at_server[event.stream_id] = Got([(bytes(n), bytes(v)) for n, v in event.headers])
            case jh2.events.DataReceived():
                self.at_server[event.stream_id].body += event.data
                if event.flow_controlled_length:
                    self.server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case jh2.events.StreamEnded():
                self.at_server[event.stream_id].ended = True
            case jh2.events.StreamReset():
                self.at_server[event.stream_id].reset = int(event.error_code)

    def on_engine(self, kind: Kind, channel: Channel | None, value: Any) -> None:
        assert kind not in (Kind.BROKEN, Kind.FAULT), value
        if channel is None:
            return
        got = self.at_engine.setdefault(channel.id, Got())
        if kind is Kind.HEAD:
            got.headers = value.headers
        elif kind is Kind.DATA:
            payload, size = channel.take_data()
            got.body += payload
            self.engine.give_credit(channel, size)
        elif kind is Kind.END:
            got.ended = True
        elif kind is Kind.RESET:
            got.reset = value


@settings(max_examples=60, deadline=None)
@given(st.lists(exchanges, min_size=1, max_size=5), cuts)
def test_what_is_sent_arrives_however_it_is_cut(script: list[Exchange], cuts: list[int]) -> None:
    wire = Wire(cuts)
    wire.settle()
    heads = [[(b":method", b"POST"), (b":path", b"/p"), *ORIGIN, *each.request] for each in script]
    channels = [wire.engine.start(encode(head), each.body) for head, each in zip(heads, script, strict=True)]
    wire.settle()
    for channel, head, each in zip(channels, heads, script, strict=True):
        got = wire.at_server[channel.id]
        assert (got.headers, bytes(got.body), got.ended) == (head, each.body, True)
    for channel, each in zip(channels, script, strict=True):
        answer(wire, channel, each)
    for channel, each in zip(channels, script, strict=True):
        expected = Got(each.answer, bytearray(b"".join(each.chunks)))
        expected.ended = each.end == "whole"
        expected.reset = 11 if each.end == "reset by the peer" else None
        assert wire.at_engine[channel.id] == expected
        assert wire.at_server[channel.id].reset == (8 if each.end == "reset by us" else None)
    assert wire.engine.channels == {}
    assert wire.server.open_inbound_streams == 0


def answer(wire: Wire, channel: Channel, each: Exchange) -> None:
    server = wire.server
    server.send_headers(channel.id, [(b":status", b"200"), *each.answer])
    for chunk in each.chunks:
        rest = chunk
        while rest:
            room = server.local_flow_control_window(channel.id) - each.padding - 1
            size = min(room, server.max_outbound_frame_size - each.padding - 1, len(rest))
            if size <= 0:
                wire.settle()
                continue
            server.send_data(channel.id, rest[:size], pad_length=each.padding)
            rest = rest[size:]
    if each.end == "whole":
        if each.trailers:
            server.send_headers(channel.id, [(b"x-trailer", b"1")], end_stream=True)
        else:
            server.end_stream(channel.id)
    elif each.end == "reset by the peer":
        server.reset_stream(channel.id, 11)
    else:
        wire.settle()
        wire.engine.reset(channel, frames.Code.CANCEL)
    wire.settle()


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"cookie", b"accept", b"x-y"]), values), max_size=8))
def test_header_blocks_decode_to_what_was_coded(headers: list[tuple[bytes, bytes]]) -> None:
    """By hpack in pure Python, which was written by others, and leave no trace in its table."""
    decoder = Decoder()
    found = decoder.decode(encode([(b":method", b"POST"), *headers]), raw=True)
    assert [(bytes(name), bytes(value)) for name, value in found] == [(b":method", b"POST"), *headers]
    assert [not entry.indexable for entry in found[1:]] == [n in (b"authorization", b"cookie") for n, _ in headers]
    assert decoder.header_table._current_size == 0


FRAME = st.builds(
    frames.frame,
    st.one_of(st.integers(0, 10), st.integers(0, 255)),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D, 0xFF]),
    st.sampled_from([0, 1, 1, 3, 3, 5, 7, 2, 2**31 - 1]),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([bytes(8), bytes(6), b"\x00\x00\x00\x01", b"\x00\x04\x00\x00\x00\x10", b"x" * 16_384]),
        fields.map(lambda found: Encoder().encode([(b":status", b"200"), *found])),
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(FRAME, st.binary(max_size=30)), max_size=40), cuts)
def test_noise_ends_streams_or_the_connection_and_raises_nothing(noise: list[bytes], cuts: list[int]) -> None:
    whole, cut = [hear(noise, sizes) for sizes in ([1_000_000], cuts)]
    assert whole == cut


def hear(noise: list[bytes], cuts: list[int]) -> list[object]:
    """What it comes to: each stream's bytes and end, whether the connection lives, what was said."""
    wire = Wire(cuts)
    engine = wire.engine
    engine.receive(frames.settings({}), 0.0)
    engine.take()
    channels = [
        engine.start(encode([(b":method", b"GET"), *ORIGIN, (b":path", b"/")]), b"body" * 9) for _ in "123"
    ]
    engine.reset(channels[2], frames.Code.CANCEL)
    engine.take()
    streams: dict[int, list[object]] = {1: [], 3: []}
    data = {1: b"", 3: b""}
    said = b""
    for piece in wire.pieces(b"".join(noise)):
        for kind, channel, value in engine.receive(piece, 0.0):
            if kind is Kind.DATA and channel is not None:
                data[channel.id] += channel.take_data()[0]
                assert len(data[channel.id]) <= STREAM_WINDOW
            elif channel is not None:
                streams[channel.id].append((kind, value))
        said += engine.take()
        if engine.failed:
            break
    return [streams, data, engine.failed, said, sorted(engine.channels)]
