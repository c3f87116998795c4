"""One record of a spool: how a receipt or an intent lies on disk. Length, CRC-32 (both big-endian), MessagePack.

A segment is zeros after its last record, so a length of 0 ends it; a record whose CRC is wrong was torn by a
crash, was never acknowledged and ends it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct as Packer
from typing import TypeVar
from zlib import crc32

import msgspec

from gateway.exchange import Intent, Receipt, SpooledReceipt

RECORD_MAX = 2_048
"""Bytes of the largest record: what `admit` sets aside for each request."""
INTENT_MAX = 512
"""Bytes of the largest record of an intent: a sector, so that a power cut leaves it old or new."""
CUT_TEXT = 96
"""Bytes that a text keeps in a receipt that would be too large otherwise; half of it if that does not do."""
WHOSE_TEXT = 48
"""Bytes that an organization's or a member's id may have (`tenants.ids`)."""

_WHOSE = frozenset({"org", "member"})
_HEAD = Packer(">II")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SpooledReceipt)
_intent_decoder = msgspec.msgpack.Decoder(tuple[int, Intent])

T = TypeVar("T", Receipt, Intent)


def encode(spooled: SpooledReceipt) -> bytes:
    """The record, at most RECORD_MAX bytes whatever the receipt holds: settling cannot fail on a long text."""
    return fitted(spooled)[1]


def fitted(spooled: SpooledReceipt) -> tuple[SpooledReceipt, bytes]:
    """The record, and what will be read back from it: the same receipt, or one whose texts were cut."""
    try:
        payload = _encoder.encode(spooled)
    except UnicodeEncodeError:
        spooled = _cut_receipt(spooled, CUT_TEXT)
        payload = _encoder.encode(spooled)
    keep = CUT_TEXT
    while len(payload) > RECORD_MAX - _HEAD.size:
        spooled = _cut_receipt(spooled, keep)
        payload = _encoder.encode(spooled)
        keep //= 2
    return spooled, _framed(payload)


def decode(data: bytes, offset: int = 0) -> Iterator[tuple[SpooledReceipt, int]]:
    """Whole records from `offset` on, each with the offset behind it; stops at the first that is not whole."""
    while payload := _payload(data, offset):
        offset += _HEAD.size + len(payload)
        yield _decoder.decode(payload), offset


def encode_intent(number: int, intent: Intent) -> bytes:
    """The record of an intent and its number, at most INTENT_MAX bytes whatever it holds."""
    try:
        payload = _encoder.encode((number, intent))
    except UnicodeEncodeError:
        intent = _cut(intent, CUT_TEXT)
        payload = _encoder.encode((number, intent))
    keep = CUT_TEXT
    while len(payload) > INTENT_MAX - _HEAD.size:
        intent = _cut(intent, keep)
        payload = _encoder.encode((number, intent))
        keep //= 2
    return _framed(payload)


def decode_intent(data: bytes, offset: int) -> tuple[int, Intent] | None:
    """The record at `offset`; None when it is not whole."""
    payload = _payload(data, offset)
    return _intent_decoder.decode(payload) if payload else None


def _framed(payload: bytes) -> bytes:
    return _HEAD.pack(len(payload), crc32(payload)) + payload


def _payload(data: bytes, offset: int) -> bytes:
    if len(data) - offset <= _HEAD.size:
        return b""
    length, crc = _HEAD.unpack_from(data, offset)
    payload = data[offset + _HEAD.size : offset + _HEAD.size + length] if length <= RECORD_MAX else b""
    return payload if len(payload) == length and crc32(payload) == crc else b""


def _cut_receipt(spooled: SpooledReceipt, keep: int) -> SpooledReceipt:
    return SpooledReceipt(spooled.seq, _cut(spooled.receipt, keep), spooled.intent)


def _cut(whole: T, keep: int) -> T:
    """Its texts with `keep` bytes each. Whose request it was stays whole as long as it may be."""
    texts = {
        name: _first(value, max(keep, WHOSE_TEXT) if name in _WHOSE else keep)
        for name in whole.__struct_fields__
        if type(value := getattr(whole, name)) is str
    }
    limits = tuple([_first(limit, keep) for limit in whole.limits[: keep // 12]])
    return msgspec.structs.replace(whole, **texts, limits=limits)


def _first(text: str, size: int) -> str:
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")
