"""Static keys as text: `orgate_` + what kind + `_` + 36 random letters and digits + a checksum of six.

A secret scanner finds one by its prefix (the expression is PATTERN), and the checksum says without asking anybody
that a find is one: CRC-32 (ISO-HDLC, as in zlib) of everything before it, in base 62 with the digits 0-9A-Za-z,
filled up with zeros, as GitHub's tokens have it. 36 letters are 214 random bits, so that a plain SHA-256 of the
whole text is all that needs to be kept: there is nothing to guess.
"""

from __future__ import annotations

import re
from binascii import crc32
from collections.abc import Callable
from enum import StrEnum
from hashlib import sha256
from typing import Final

PREFIX: Final = "orgate_"
RANDOM_LETTERS: Final = 36
CHECKSUM_LETTERS: Final = 6
DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class OpaqueKind(StrEnum):
    """What a key opens is in its name."""

    PERSONAL = "pt"
    SCIM = "scim"
    CLIENT = "cs"  # the secret of a registered client: opens nothing by itself


PATTERN: Final = r"orgate_(?:pt|scim|cs)_[0-9A-Za-z]{42}"
"""What a secret scanner looks for."""

_TEXT: Final = re.compile(r"orgate_(pt|scim|cs)_[0-9A-Za-z]{42}")


def new_key(kind: OpaqueKind, random: Callable[[int], bytes]) -> str:
    """A key nobody has seen. `random` gives so many random bytes."""
    letters = ""
    while len(letters) < RANDOM_LETTERS:  # 248 is the largest multiple of 62 in a byte: no digit comes more often
        letters += "".join(DIGITS[byte % 62] for byte in random(RANDOM_LETTERS) if byte < 248)
    body = f"{PREFIX}{kind}_{letters[:RANDOM_LETTERS]}"
    return body + checksum(body)


def checksum(body: str) -> str:
    """The six letters that follow `body`."""
    number, letters = crc32(body.encode()), ""
    for _ in range(CHECKSUM_LETTERS):
        number, digit = divmod(number, 62)
        letters = DIGITS[digit] + letters
    return letters


def kind_of(text: str) -> OpaqueKind | None:
    """What kind of key `text` is; None: it is none, or was mistyped."""
    found = _TEXT.fullmatch(text)
    if found is None or checksum(text[:-CHECKSUM_LETTERS]) != text[-CHECKSUM_LETTERS:]:
        return None
    return OpaqueKind(found[1])


def digest_of(text: str) -> str:
    """What is stored of a key: its SHA-256, lower-case hexadecimal."""
    return sha256(text.encode()).hexdigest()
