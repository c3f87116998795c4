"""Frames as bytes, against hyperframe, which was written by others."""

from __future__ import annotations

from typing import Any

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream import frames
from gateway.upstream.frames import Code, Http2Error, Setting

stream_ids = st.integers(1, 2**31 - 1)


def parse(data: bytes) -> list[Any]:
    found: list[Any] = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        found.append(frame)
        data = data[9 + length :]
    return found


@given(stream_ids, st.binary(max_size=200), st.booleans())
def test_data(stream_id: int, payload: bytes, end: bool) -> None:
    (frame,) = parse(frames.data(stream_id, payload, end))
    assert isinstance(frame, DataFrame)
    assert (frame.stream_id, frame.data, "END_STREAM" in frame.flags) == (stream_id, payload, end)


@given(st.binary(min_size=1, max_size=100), st.integers(1, 40), st.booleans())
def test_headers_longer_than_a_frame_go_on_in_continuations(block: bytes, limit: int, end: bool) -> None:
    first, *rest = parse(frames.headers(5, block, end, limit))
    assert isinstance(first, HeadersFrame)
    assert all(isinstance(frame, ContinuationFrame) and frame.stream_id == 5 for frame in rest)
    assert b"".join(frame.data for frame in [first, *rest]) == block
    assert all(len(frame.data) <= limit for frame in [first, *rest])
    assert ["END_HEADERS" in frame.flags for frame in [first, *rest]] == [False] * len(rest) + [True]
    assert ("END_STREAM" in first.flags) is end


def test_the_others() -> None:
    reset, settings, ping, pong, goaway, update, ack = parse(
        frames.rst_stream(3, Code.CANCEL)
        + frames.settings({Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: 70_000})
        + frames.ping(b"12345678")
        + frames.ping(b"12345678", ack=True)
        + frames.goaway(7, Code.ENHANCE_YOUR_CALM)
        + frames.window_update(9, 5)
        + frames.SETTINGS_ACK
    )
    assert isinstance(reset, RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (3, 8)
    assert isinstance(settings, SettingsFrame)
    assert settings.settings == {2: 0, 4: 70_000}
    assert isinstance(ping, PingFrame)
    assert (ping.opaque_data, "ACK" in ping.flags, "ACK" in pong.flags) == (b"12345678", False, True)
    assert isinstance(goaway, GoAwayFrame)
    assert (goaway.last_stream_id, goaway.error_code) == (7, 11)
    assert isinstance(update, WindowUpdateFrame)
    assert (update.stream_id, update.window_increment) == (9, 5)
    assert "ACK" in ack.flags


@given(st.binary(max_size=50), st.integers(0, 255))
def test_padding(data: bytes, padding: int) -> None:
    payload = bytes((padding,)) + data + bytes(padding)
    assert frames.without_padding(payload, frames.PADDED) == data
    with_priority = bytes((padding,)) + b"\x00\x00\x00\x01\x05" + data + bytes(padding)
    assert frames.without_padding(with_priority, frames.PADDED | frames.PRIORITY_FIELDS) == data


@pytest.mark.parametrize(
    ("payload", "flags"),
    [
        (b"", frames.PADDED),
        (b"\x01", frames.PADDED),
        (b"\x05abcd", frames.PADDED),
        (b"\x00\x00\x00", frames.PRIORITY_FIELDS),
        (b"\x01\x00\x00\x00\x00\x00", frames.PADDED | frames.PRIORITY_FIELDS),
    ],
)
def test_padding_that_does_not_fit(payload: bytes, flags: int) -> None:
    with pytest.raises(Http2Error):
        frames.without_padding(payload, flags)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"12345", Code.FRAME_SIZE_ERROR),
        (b"\x00\x02\x00\x00\x00\x01", Code.PROTOCOL_ERROR),
        (b"\x00\x04\x80\x00\x00\x00", Code.FLOW_CONTROL_ERROR),
        (b"\x00\x05\x00\x00\x3f\xff", Code.PROTOCOL_ERROR),
        (b"\x00\x05\x01\x00\x00\x00", Code.PROTOCOL_ERROR),
    ],
)
def test_settings_that_are_not_allowed(payload: bytes, code: Code) -> None:
    with pytest.raises(Http2Error) as caught:
        frames.parse_settings(payload)
    assert caught.value.code is code


def test_the_last_of_a_setting_counts() -> None:
    assert frames.parse_settings(b"\x00\x03\x00\x00\x00\x05\xff\x00\x00\x00\x00\x07\x00\x03\x00\x00\x00\x09") == {
        3: 9,
        0xFF00: 7,
    }


@pytest.mark.parametrize("parse_one", [frames.parse_long, frames.parse_goaway])
def test_frames_of_a_broken_size(parse_one: object) -> None:
    with pytest.raises(Http2Error) as caught:
        parse_one(b"123")  # type: ignore[operator]  # either of two functions
    assert caught.value.code is Code.FRAME_SIZE_ERROR
