"""Header fields on the wire: HPACK out (RFC 7541), the rules of RFC 9113 section 8 for what comes in. Pure.

Outgoing blocks use the static table and literals alone. So a block depends on nothing that went before it: the
constant part of a request's head is coded once and then copied, no coder's state has to be kept in step, and a
key is never put into a table that another request could probe (RFC 7541 section 7.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import httpx
from jh2.hpack.table import HeaderTable

Header = tuple[bytes, bytes]

EMPTY_TABLE = b"\x20"
"""A dynamic table size update to 0 (RFC 7541 section 6.3)."""

_SENSITIVE = frozenset(
    (b"authorization", b"proxy-authorization", b"cookie", b"x-api-key", b"api-key", b"x-amz-security-token")
)
_EXACT: dict[Header, int] = {}
_NAMES: dict[bytes, int] = {}
for _index, _entry in enumerate(HeaderTable.STATIC_TABLE, 1):
    _EXACT.setdefault((bytes(_entry[0]), bytes(_entry[1])), _index)
    _NAMES.setdefault(bytes(_entry[0]), _index)

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_BAD_VALUE = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z").search
_CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_known_names: set[bytes] = set()
_KNOWN_NAMES_LIMIT = 512
_KNOWN_NAME_SIZE = 100
"""Longer ones are checked each time: peers choose them, and what is known is kept for all connections."""

FIELD_LIMIT = 2_048
"""Fields of a header block. Each counts as 32 bytes and what it holds (RFC 9113 section 6.5.2), so no block within
the `HEADER_LIST_LIMIT` that we announce has more. One byte of the wire may be a field."""
_INTEGER_SIZE = 4
"""Bytes of an integer after its first: what the decoder takes, and far above any length there may be."""


class MalformedError(Exception):
    """A message that RFC 9113 section 8.1.1 calls malformed: a stream error of type PROTOCOL_ERROR."""


class OversizedError(Exception):
    """A header block of more fields than we take."""


class Head(NamedTuple):
    """Of an answer. Names are lower-case."""

    status: int
    headers: list[Header]


def encode(headers: Iterable[Header]) -> bytes:
    """A header block, or a part of one. Credentials are marked never to be indexed, by anybody on the way.

    Raises `httpx.LocalProtocolError` for what no header may hold.
    """
    return b"".join([_field(name, value) for name, value in headers])


def _field(name: bytes, value: bytes) -> bytes:
    exact = _EXACT.get((name, value))
    if exact is not None and name not in _SENSITIVE:
        return _integer(exact, 7, 0x80)
    if _BAD_VALUE(value) or not _TOKEN(name.removeprefix(b":")):
        raise httpx.LocalProtocolError(f"the header {name.decode('latin-1')!r} cannot be sent")
    pattern = 0x10 if name in _SENSITIVE else 0x00
    index = _NAMES.get(name)
    said = _integer(0, 4, pattern) + _text(name) if index is None else _integer(index, 4, pattern)
    return said + _text(value)


def encode_number(prefix: bytes, number: int) -> bytes:
    """A field whose value is `number`; `prefix` from `prefix_of` its name."""
    digits = b"%d" % number
    return prefix + bytes((len(digits),)) + digits


def prefix_of(name: bytes) -> bytes:
    """What a field of that name begins with, short of its value."""
    index = _NAMES.get(name)
    return _integer(0, 4, 0x00) + _text(name) if index is None else _integer(index, 4, 0x00)


def _text(text: bytes) -> bytes:
    return _integer(len(text), 7, 0x00) + text


def _integer(number: int, bits: int, pattern: int) -> bytes:
    """RFC 7541 section 5.1."""
    most = (1 << bits) - 1
    if number < most:
        return bytes((pattern | number,))
    out = [pattern | most]
    number -= most
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def is_whole(block: bytes) -> bool:
    """Whether a header block ends where its last field does, and changes the table's size only at its beginning
    (RFC 7541 sections 4.2 and 6). To be asked before it is decoded: the decoder panics at a block that breaks off,
    and its time grows with the square of the number of fields. Raises `OversizedError` for too many.
    """
    at, size, begun = 0, len(block), False
    try:
        for _ in range(FIELD_LIMIT + 1):
            if at >= size:
                return at == size
            byte = block[at]
            at += 1
            if byte >= 0x80:  # an indexed field
                if byte == 0xFF:
                    at = _after_integer(block, at)
            elif byte & 0xE0 == 0x20:  # a change of the table's size
                if begun:
                    return False
                if byte == 0x3F:
                    at = _after_integer(block, at)
                continue
            else:
                most = 0x3F if byte & 0x40 else 0x0F
                index = byte & most
                if index == most:
                    at = _after_integer(block, at)
                elif not index:
                    at = _after_text(block, at)
                length = block[at] & 0x7F
                at = at + 1 + length if length < 0x7F else _after_text(block, at)
            begun = True
    except IndexError:
        return False
    raise OversizedError


def _after_integer(block: bytes, at: int) -> int:
    """Beyond the block's end when it is longer than an integer may be."""
    for last in range(at, at + _INTEGER_SIZE):
        if block[last] < 0x80:
            return last + 1
    return len(block) + 1


def _after_text(block: bytes, at: int) -> int:
    length = block[at] & 0x7F
    at += 1
    if length == 0x7F:
        end = _after_integer(block, at)
        for shift, byte in enumerate(block[at:end]):
            length += (byte & 0x7F) << 7 * shift
        return end + length
    return at + length


def response_head(fields: Sequence[tuple[bytes, bytes, bool]]) -> tuple[Head, int]:
    """Of a decoded block, and what its `content-length` promises, -1 for nothing. Raises `MalformedError`."""
    if not fields or fields[0][0] != b":status":
        raise MalformedError("an answer without a status")
    status = fields[0][1]
    if len(status) != 3 or not status.isdigit() or status < b"100":
        raise MalformedError("a status that is no number of three digits")
    headers: list[Header] = []
    length = -1
    for name, value, _ in fields[1:]:
        if name not in _known_names:
            _check_name(name)
        if _BAD_VALUE(value):
            raise MalformedError("a header with a value that is not allowed")
        if name == b"content-length":
            length = _length(value, length)
        headers.append((name, value))
    return Head(int(status), headers), length


def check_trailers(fields: Sequence[tuple[bytes, bytes, bool]]) -> None:
    """Raises `MalformedError`; a pseudo-header is among what it refuses (section 8.1)."""
    for name, value, _ in fields:
        if name not in _known_names:
            _check_name(name)
        if _BAD_VALUE(value):
            raise MalformedError("a trailer with a value that is not allowed")


def _check_name(name: bytes) -> None:
    if not _TOKEN(name) or name in _CONNECTION_SPECIFIC:
        raise MalformedError("a header with a name that is not allowed")
    if len(name) > _KNOWN_NAME_SIZE:
        return
    if len(_known_names) >= _KNOWN_NAMES_LIMIT:
        _known_names.clear()
    _known_names.add(name)


def _length(value: bytes, before: int) -> int:
    if not value.isdigit() or len(value) > 18:
        raise MalformedError("a content-length that is no number")
    length = int(value)
    if before not in (-1, length):
        raise MalformedError("two lengths of content")
    return length
