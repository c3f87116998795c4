"""HTTP/2 frames as bytes (RFC 9113 sections 4 and 6). Pure: nothing here knows a connection's state."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_SIZE = 9
FRAME_LIMIT = 16_384
"""The SETTINGS_MAX_FRAME_SIZE we never raise, and every peer's until it says otherwise (section 4.2)."""
WINDOW_LIMIT = 2**31 - 1
DEFAULT_WINDOW = 65_535

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FIELDS = 0x20

_head = Struct(">HBBBL")
_setting = Struct(">HL")
_long = Struct(">L")
_goaway = Struct(">LL")
unpack_head = _head.unpack_from
"""(length >> 8, length & 255, type, flags, stream id with its reserved bit)"""


class Code(IntEnum):
    """Error codes (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    """Settings (section 6.5.2)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class Http2Error(Exception):
    """The peer broke a rule of the whole connection: a connection error of `code` (section 5.4.1)."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return _head.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def headers(stream_id: int, block: bytes, end: bool, limit: int) -> bytes:
    """HEADERS, and CONTINUATION for what exceeds the peer's frame size `limit`."""
    flags = END_STREAM if end else 0
    if len(block) <= limit:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [frame(HEADERS, flags, stream_id, block[:limit])]
    last = (len(block) - 1) // limit * limit
    parts += [
        frame(CONTINUATION, END_HEADERS if at == last else 0, stream_id, block[at : at + limit])
        for at in range(limit, len(block), limit)
    ]
    return b"".join(parts)


def request(stream_id: int, block: bytes, body: bytes) -> bytes:
    """HEADERS and the one DATA frame of a request; neither may be longer than `FRAME_LIMIT`."""
    first, second = len(block), len(body)
    return b"".join(
        (
            _head.pack(first >> 8, first & 0xFF, HEADERS, END_HEADERS, stream_id),
            block,
            _head.pack(second >> 8, second & 0xFF, DATA, END_STREAM, stream_id),
            body,
        )
    )


def data(stream_id: int, payload: bytes, end: bool) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream_id, payload)


def rst_stream(stream_id: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream_id, _long.pack(code))


def settings(values: Mapping[Setting, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(name, value) for name, value in values.items()))


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last_stream_id: int, code: int) -> bytes:
    return frame(GOAWAY, 0, 0, _goaway.pack(last_stream_id, code))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, _long.pack(increment))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def without_padding(payload: bytes, flags: int) -> bytes:
    """What is left of a DATA or HEADERS payload without padding and priority fields (sections 6.1 and 6.2)."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise Http2Error(Code.FRAME_SIZE_ERROR, "a padded frame without its length of padding")
        start, end = 1, end - payload[0]
    if flags & PRIORITY_FIELDS:
        start += 5
    if start > end:
        raise Http2Error(Code.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[start:end]


def parse_settings(payload: bytes) -> dict[int, int]:
    """Each setting's last value; unknown ones included. Raises `Http2Error` for values section 6.5.2 forbids."""
    if len(payload) % 6:
        raise Http2Error(Code.FRAME_SIZE_ERROR, "SETTINGS of a broken size")
    values: dict[int, int] = dict(_setting.iter_unpack(payload))
    if values.get(Setting.ENABLE_PUSH, 0) != 0:
        raise Http2Error(Code.PROTOCOL_ERROR, "a server must not enable push")
    if values.get(Setting.INITIAL_WINDOW_SIZE, 0) > WINDOW_LIMIT:
        raise Http2Error(Code.FLOW_CONTROL_ERROR, "an initial window above 2^31-1")
    if not FRAME_LIMIT <= values.get(Setting.MAX_FRAME_SIZE, FRAME_LIMIT) < 2**24:
        raise Http2Error(Code.PROTOCOL_ERROR, "a frame size out of range")
    return values


def parse_long(payload: bytes) -> int:
    """The one 32-bit number of RST_STREAM and WINDOW_UPDATE."""
    if len(payload) != 4:
        raise Http2Error(Code.FRAME_SIZE_ERROR, "a frame of a broken size")
    number: int = _long.unpack(payload)[0]
    return number


def parse_goaway(payload: bytes) -> tuple[int, int]:
    """(last stream id, error code)"""
    if len(payload) < 8:
        raise Http2Error(Code.FRAME_SIZE_ERROR, "GOAWAY of a broken size")
    last, code = _goaway.unpack_from(payload)
    return last & WINDOW_LIMIT, code
