"""One record of a spool: how a receipt lies on disk. Length, CRC-32 (both big-endian), then MessagePack.

A segment is zeros after its last record, so a length of 0 ends it; a record whose CRC is wrong was torn by a
crash, was never acknowledged and ends it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct as Packer
from zlib import crc32

import msgspec

from gateway.exchange import SpooledReceipt

RECORD_MAX = 2_048
"""Bytes of the largest record: what `admit` sets aside for each request."""
CUT_TEXT = 96
"""Bytes that a text keeps in a receipt that would be too large otherwise: 13 texts of it fit for certain."""

_HEAD = Packer(">II")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SpooledReceipt)


def encode(spooled: SpooledReceipt) -> bytes:
    """The record, at most RECORD_MAX bytes whatever the receipt holds: settling cannot fail on a long text."""
    return fitted(spooled)[1]


def fitted(spooled: SpooledReceipt) -> tuple[SpooledReceipt, bytes]:
    """The record, and what will be read back from it: the same receipt, or one whose texts were cut."""
    try:
        payload = _encoder.encode(spooled)
    except UnicodeEncodeError:
        spooled = _cut(spooled)
        payload = _encoder.encode(spooled)
    if len(payload) > RECORD_MAX - _HEAD.size:
        spooled = _cut(spooled)
        payload = _encoder.encode(spooled)
    return spooled, _HEAD.pack(len(payload), crc32(payload)) + payload


def decode(data: bytes, offset: int = 0) -> Iterator[tuple[SpooledReceipt, int]]:
    """Whole records from `offset` on, each with the offset behind it; stops at the first that is not whole."""
    while len(data) - offset > _HEAD.size:
        length, crc = _HEAD.unpack_from(data, offset)
        payload = data[offset + _HEAD.size : offset + _HEAD.size + length]
        if not 0 < length <= RECORD_MAX or len(payload) != length or crc32(payload) != crc:
            return
        offset += _HEAD.size + length
        yield _decoder.decode(payload), offset


def _cut(spooled: SpooledReceipt) -> SpooledReceipt:
    receipt = spooled.receipt
    texts = {
        name: value.encode("utf-8", "replace")[:CUT_TEXT].decode("utf-8", "ignore")
        for name in receipt.__struct_fields__
        if type(value := getattr(receipt, name)) is str
    }
    return SpooledReceipt(spooled.seq, msgspec.structs.replace(receipt, **texts))
