"""One open stream as `engine` sees it, and what the engine tells of it."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

STREAM_WINDOW = 128 * 1024
"""Bytes of an answer that wait at most for a caller who does not read. Above the bandwidth-delay product of
text from a model by orders of magnitude."""


class Kind(IntEnum):
    """What an event tells. In brackets its `value`."""

    HEAD = 0
    """The answer's final head (`fields.Head`)."""
    DATA = 1
    """Data wait in the channel: `take_data`."""
    END = 2
    """The peer has ended the stream, in order. It is over on both sides."""
    RESET = 3
    """The peer has reset the stream (error code)."""
    BROKEN = 4
    """The peer broke a rule that concerns one stream, which has been reset (what it did)."""
    SETTINGS = 5
    """The peer's settings have changed."""
    GOAWAY = 6
    """The streams in `value` (`list[Channel]`) were not processed and are over; none may be opened any more."""
    FAULT = 7
    """The peer broke a rule of the connection; GOAWAY is queued, nothing more will be read (what it did)."""


class Channel:
    """One open stream as the engine sees it. `owner` is the caller's, untouched.

    `upload`: what is still to be sent of the request. `parts` and `size`: data received and not taken; `size`
    counts padding, as flow control does.
    """

    __slots__ = (
        "bodiless",
        "credit",
        "head",
        "id",
        "length",
        "owner",
        "parts",
        "received",
        "size",
        "upload",
        "window",
    )

    def __init__(self, stream_id: int, window: int, bodiless: bool) -> None:
        self.id = stream_id
        self.owner: Any = None
        self.window = window  # what we may send
        self.credit = STREAM_WINDOW  # what the peer may send
        self.upload: memoryview | bytes = b""
        self.bodiless = bodiless  # answered without content, whatever content-length says
        self.head = False
        self.length = -1  # of content, as promised
        self.received = 0  # of content
        self.parts: list[bytes] = []
        self.size = 0

    def take_data(self) -> tuple[bytes, int]:
        parts, size = self.parts, self.size
        self.parts, self.size = [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts), size


Event = tuple[Kind, Channel | None, Any]
"""(kind, the stream it concerns, value)"""
