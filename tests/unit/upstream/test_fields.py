"""Header blocks: what is whole and what breaks off; names and values that no message may hold."""

from __future__ import annotations

from contextlib import suppress

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jh2._hazmat import Decoder, HPACKError, OversizedHeaderListError
from jh2.hpack import Encoder

from gateway.upstream.fields import encode, encode_number, is_whole, prefix_of

names = st.from_regex(rb"[a-z][a-z0-9-]{0,150}", fullmatch=True)
values = st.one_of(st.binary(max_size=20), st.sampled_from([b"v" * 126, b"v" * 127, b"v" * 128, b"v" * 400]))
lists = st.lists(st.tuples(names, values, st.booleans()), min_size=1, max_size=6)


@settings(deadline=None)  # the machine is shared
@given(lists, st.booleans())
def test_a_block_is_whole_where_its_fields_end_and_nowhere_else(
    headers: list[tuple[bytes, bytes, bool]], huffman: bool
) -> None:
    """As coded by others, with their table growing, field by field."""
    encoder, block, ends = Encoder(), b"", {0}
    for header in headers:
        block += encoder.encode([header], huffman=huffman)
        ends.add(len(block))
    looked_at = range(len(block) + 1) if len(block) < 500 else {*ends, *(end - 1 for end in ends if end)}
    assert all(is_whole(block[:size]) is (size in ends) for size in looked_at)


BROKEN_OFF = (
    "ff",
    "ff80",
    "40",
    "00",
    "0001",
    "000178",
    "0001780261",
    "0f",
    "7fff",
    "017f",
    "017f80",
    "3f",
    "8801ff",
)


@pytest.mark.parametrize("block", BROKEN_OFF)
def test_blocks_that_break_off(block: str) -> None:
    """At most of these the decoder panics, which is no `Exception`."""
    assert not is_whole(bytes.fromhex(block))


def test_the_tables_size_changes_at_the_beginning_alone() -> None:
    assert is_whole(b"\x20\x3f\xe1\x1f\x88")
    assert not is_whole(b"\x88\x20")


octets = st.sampled_from([*range(256), *[0, 0x0F, 0x1F, 0x3F, 0x40, 0x7F, 0x80, 0x82, 0xFF] * 30])


@given(st.lists(octets, max_size=30))
def test_what_is_whole_does_not_panic(block: list[int]) -> None:
    """It is decoded, or refused with an error that the engine knows."""
    if is_whole(bytes(block)):
        with suppress(HPACKError, OversizedHeaderListError):
            Decoder(65_536).decode(bytes(block), True)


@given(st.integers(0, 10**15))
def test_numbers_are_coded_as_fields(number: int) -> None:
    for name in (b"content-length", b"x-request-timeout-ms"):
        assert encode_number(prefix_of(name), number) == encode([(name, b"%d" % number)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x", b"a\nb"),
        (b"x", b"a\r"),
        (b"x", b"\0"),
        (b"x", b" a"),
        (b"x", b"a\t"),
        (b"X", b"a"),
        (b"x y", b"a"),
        (b"", b"a"),
        (b":", b"a"),
    ],
)
def test_what_no_header_may_hold_is_not_sent(name: bytes, value: bytes) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        encode([(name, value)])
