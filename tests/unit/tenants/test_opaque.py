"""Static keys as text: what a scanner finds, and what a typing mistake is told apart by."""

from __future__ import annotations

import os
import re
from hashlib import sha256

import pytest

from tenants.opaque import PATTERN, OpaqueKind, checksum, digest_of, kind_of, new_key


@pytest.mark.parametrize("kind", list(OpaqueKind))
def test_a_new_key_is_what_the_expression_finds(kind: OpaqueKind) -> None:
    key = new_key(kind, os.urandom)
    assert re.fullmatch(PATTERN, key)
    assert key.startswith(f"orgate_{kind}_")
    assert kind_of(key) is kind
    assert re.findall(PATTERN, f'api_key = "{key}"\n') == [key]
    assert new_key(kind, os.urandom) != key


def test_the_checksum_is_crc_32_in_base_62() -> None:
    assert checksum("123456789") == "3jZRME"  # 0xCBF43926, the check value of CRC-32/ISO-HDLC
    assert len(checksum("orgate_pt_" + "0" * 36)) == 6


def test_one_wrong_letter_is_noticed() -> None:
    key = new_key(OpaqueKind.PERSONAL, os.urandom)
    for place in range(len(key)):
        other = "x" if key[place] != "x" else "y"
        assert kind_of(key[:place] + other + key[place + 1 :]) is None, place


@pytest.mark.parametrize(
    "text", ["", "orgate_", "orgate_pt_", "orgate_xx_" + "0" * 42, "ghp_" + "0" * 42, "orgate_pt_é"]
)
def test_what_is_no_key(text: str) -> None:
    assert kind_of(text) is None


def test_bytes_that_would_make_some_letters_commoner_are_thrown_away() -> None:
    pieces = iter([b"\xff" * 36, bytes(range(36))])
    assert new_key(OpaqueKind.PERSONAL, lambda _: next(pieces))[10:46] == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_what_is_stored_is_a_digest_of_the_whole_text() -> None:
    key = new_key(OpaqueKind.SCIM, os.urandom)
    assert digest_of(key) == sha256(key.encode()).hexdigest()
