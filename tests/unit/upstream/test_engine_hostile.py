"""What a peer that means harm can make the engine keep or do, and what one that is merely odd must not lose."""

from __future__ import annotations

from struct import pack

import pytest

from gateway.upstream import fields, frames
from gateway.upstream.channel import STREAM_WINDOW, Kind
from gateway.upstream.engine import HEADER_LIST_LIMIT
from gateway.upstream.fields import FIELD_LIMIT, OversizedError, encode, is_whole
from gateway.upstream.frames import END_HEADERS, END_STREAM, PADDED, Code, Setting, frame
from tests.unit.upstream.test_engine import OK, Talk, data, headers, response

ENTRY = b"\x40\x01x\x00"
"""Puts `x` with no value into the table, to be named by the one byte `NAMED`."""
NAMED = b"\xbe"


def in_pieces(stream_id: int, block: bytes) -> bytes:
    """HEADERS and as many CONTINUATION as it takes."""
    return frames.headers(stream_id, block, True, frames.FRAME_LIMIT)


# Header blocks.


def test_fields_are_counted_as_the_announced_limit_counts_them() -> None:
    """32 bytes beside name and value (RFC 9113 section 6.5.2): a byte of the wire would be an object otherwise."""
    talk = Talk()
    channel = talk.open()
    most = HEADER_LIST_LIMIT // 32
    assert talk.hear(in_pieces(channel.id, OK + ENTRY + NAMED * (most - 3)))[0][0] is Kind.HEAD
    other = talk.open()
    talk.assert_fault(Code.ENHANCE_YOUR_CALM, in_pieces(other.id, OK + NAMED * most))


@pytest.mark.parametrize("step", [NAMED, b"\x20", b"\x3f\xe1\x1f", b"\x00\x01x\x00"])
def test_a_block_is_not_walked_further_than_its_limit(step: bytes) -> None:
    assert is_whole(step * FIELD_LIMIT)
    with pytest.raises(OversizedError):
        is_whole(step * FIELD_LIMIT + NAMED + b"\x7f")  # what breaks off behind is never looked at


@pytest.mark.parametrize(
    "start", [b"\xff", b"\x3f", b"\x7f", b"\x0f", b"\x1f", b"\x00\x7f", b"\x00\x01x\x7f", b"\x01\x7f"]
)
def test_a_number_without_end_is_no_number(start: bytes) -> None:
    """RFC 7541 section 5.1. Added up, each of its bytes would cost as much as all before it."""
    assert not is_whole(start + b"\xff" * 5 + b"\x00")
    assert not is_whole(start + b"\x80" * 60_000 + b"\x00")


def test_long_names_are_not_kept() -> None:
    """Names that have been checked are remembered, for all connections of the process."""
    talk = Talk()
    for number in range(20):
        channel = talk.open()
        name = b"x" * 5_000 + b"%d" % number
        found = talk.hear(headers(channel.id, response((name, b"1")), END_HEADERS | END_STREAM))
        assert found[0][1].headers == [(name, b"1")]
    assert max(map(len, fields._known_names)) <= 100


# Data.


def test_padding_alone_is_a_frame_that_carries_nothing() -> None:
    talk = Talk()
    channel = talk.open()
    talk.hear(headers(channel.id))
    talk.assert_fault(Code.ENHANCE_YOUR_CALM, data(channel.id, b"\x00", PADDED) * 2_000)


def test_padding_alone_counts_in_both_windows() -> None:
    talk = Talk()
    channel = talk.open()
    talk.hear(headers(channel.id))
    talk.hear(data(channel.id, b"\xff" + bytes(255), PADDED) * 100)
    assert channel.credit == STREAM_WINDOW - 25_600
    assert channel.received == 0


# Windows.


@pytest.mark.parametrize("size", [16_384, 65_536])
@pytest.mark.parametrize("step", [1_024, 4_096])
def test_a_peer_that_gives_credit_by_the_small_piece_is_not_at_war(size: int, step: int) -> None:
    """As Go's server does, for the stream and for the connection: an upload of 16 MB lives."""
    talk = Talk(INITIAL_WINDOW_SIZE=1 << 20, MAX_FRAME_SIZE=size)
    talk.hear(frames.window_update(0, 1 << 20))
    channel = talk.open(b"x" * (16 << 20))
    while channel.upload:
        while talk.engine.pump():
            pass
        sent = sum(len(payload) for kind, _, _, payload in talk.said() if kind == frames.DATA)
        assert sent
        credit = frames.window_update(0, step) + frames.window_update(channel.id, step)
        assert talk.hear(credit * (sent // step)) == []
    assert talk.hear(headers(channel.id, OK, END_HEADERS | END_STREAM))[-1][0] is Kind.END


def test_settings_in_mid_stream_move_every_window_and_nothing_is_sent_beyond() -> None:
    talk = Talk(INITIAL_WINDOW_SIZE=50, MAX_FRAME_SIZE=16_777_215)
    first = talk.open(b"f" * 100)
    assert talk.engine.pump()
    talk.said()
    talk.hear(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0, Setting.MAX_FRAME_SIZE: 16_384}))
    assert first.window == -50
    second = talk.open(b"s" * 10)
    assert not talk.engine.pump()
    talk.hear(frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1}))
    assert (first.window, second.window) == (2**31 - 51, 2**31 - 1)
    talk.said()
    talk.assert_broken(Code.FLOW_CONTROL_ERROR, second, frames.window_update(second.id, 1))


def test_a_larger_initial_window_may_lift_no_stream_above_the_limit() -> None:
    talk = Talk()
    channel = talk.open(b"")
    talk.hear(frames.window_update(channel.id, 2**31 - 1 - 65_535))
    talk.assert_fault(Code.FLOW_CONTROL_ERROR, frames.settings({Setting.INITIAL_WINDOW_SIZE: 65_536}))


# Going away.


def test_a_stream_that_goaway_disowned_is_over_in_the_same_read() -> None:
    talk = Talk()
    kept, refused = talk.open(), talk.open(b"u" * 70_000)
    found = talk.engine.receive(
        frames.goaway(kept.id, 0) + headers(refused.id) + data(refused.id, b"x") + headers(kept.id), 0.0
    )
    assert [(kind, channel) for kind, channel, _ in found] == [(Kind.GOAWAY, None), (Kind.HEAD, kept)]
    assert found[0][2] == [refused]
    assert list(talk.engine.channels) == [kept.id]
    assert not talk.engine.uploads


def test_two_goaways_with_a_shrinking_last_stream() -> None:
    talk = Talk()
    channels = [talk.open() for _ in range(3)]
    assert talk.hear(frames.goaway(2**31 - 1, 0)) == [(Kind.GOAWAY, [])]
    assert talk.hear(frames.goaway(channels[1].id, 0)) == [(Kind.GOAWAY, channels[2:])]
    assert talk.hear(frames.goaway(0, 0)) == [(Kind.GOAWAY, channels[:2])]
    assert talk.hear(frames.goaway(2**31 - 1, 0)) == [(Kind.GOAWAY, [])]


# Odd and legal.


def test_after_its_last_frame_a_peer_may_still_reset() -> None:
    talk = Talk(INITIAL_WINDOW_SIZE=0)
    whole, cut = talk.open(), talk.open(b"not yet sent")
    end = END_HEADERS | END_STREAM
    talk.hear(headers(whole.id, OK, end) + frames.rst_stream(whole.id, 0))
    talk.hear(headers(cut.id, OK, end) + frames.rst_stream(cut.id, 0))
    assert talk.said() == [(frames.RST_STREAM, 0, cut.id, pack(">L", Code.NO_ERROR))]
    assert not talk.engine.failed


def test_a_head_cut_at_every_byte() -> None:
    talk = Talk()
    channel = talk.open()
    block = response((b"x-a", b"1"), (b"x-b", b"2"))
    wire = frame(frames.HEADERS, END_STREAM, channel.id, b"")
    for at in range(len(block)):
        wire += frame(
            frames.CONTINUATION, END_HEADERS if at == len(block) - 1 else 0, channel.id, block[at : at + 1]
        )
    found = []
    for at in range(len(wire)):
        found += talk.hear(wire[at : at + 1])
    assert [kind for kind, _ in found] == [Kind.HEAD, Kind.END]
    assert found[0][1].headers == [(b"x-a", b"1"), (b"x-b", b"2")]


def test_the_last_stream_id() -> None:
    talk = Talk()
    talk.engine._next_id = 2**31 - 3
    channel = talk.open()
    assert talk.engine.exhausted
    assert (
        talk.hear(headers(channel.id, encode([(b":status", b"200")]), END_HEADERS | END_STREAM))[-1][0] is Kind.END
    )
