"""Codes and tokens as they are stored: one way. Random values need no salt; short ones get a server key."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from gateway.secret import Secret

KEY_BYTES: Final = 32


def sha256(text: str) -> str:
    """For values of 125 random bits and more. Hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


class ServerKey:
    """HMAC-SHA256 under the server's own key, a label apart for each use so that no result serves as another."""

    def __init__(self, key: Secret) -> None:
        if len(key.reveal()) != KEY_BYTES:
            raise ValueError(f"the server's HMAC key is {KEY_BYTES} bytes")
        self._key = key

    def mac(self, label: bytes, data: bytes) -> bytes:
        return hmac.digest(self._key.reveal(), label + b"\0" + data, "sha256")
