"""Joins DATA frames before the state machine sees them (RFC 9113 section 6.1). Pure.

A model sends a frame for every token; what has piled up in one read is dozens of them, and the state machine
costs the same for each, however small. DATA frames of one stream that stand between the same two other frames
mean the same as one frame with their payloads: their order among streams means nothing, flow control counts
bytes. Everything else passes as it is, in its place.
"""

from __future__ import annotations

HEAD = 9
FRAME_LIMIT = 16_384
"""The SETTINGS_MAX_FRAME_SIZE we never raise (section 4.2)."""

_DATA = 0x0
_END_STREAM = 0x1
_PADDED = 0x8


class FrameTooLongError(Exception):
    """A frame announces more than our SETTINGS_MAX_FRAME_SIZE: a connection error (section 4.2). Said at its
    head, so that nobody waits for sixteen megabytes from a peer that does not speak HTTP/2."""


def join(received: bytes) -> tuple[bytes, bytes]:
    """(whole frames, DATA joined; the beginning of a frame that has not come whole)."""
    size = len(received)
    if size >= HEAD and size == HEAD + int.from_bytes(received[:3], "big") <= HEAD + FRAME_LIMIT:
        return received, b""  # one frame: the usual case of a model that is slower than we are
    out: list[bytes] = []
    pending: dict[bytes, list[bytes]] = {}
    lengths: dict[bytes, int] = {}
    at = 0
    while size - at >= HEAD:
        length = int.from_bytes(received[at : at + 3], "big")
        if length > FRAME_LIMIT:
            raise FrameTooLongError
        end = at + HEAD + length
        if end > size:
            break
        stream, flags = received[at + 5 : at + HEAD], received[at + 4]
        if received[at + 3] != _DATA or flags & _PADDED:
            _emit(out, pending, lengths)
            out.append(received[at:end])
        else:
            held = lengths.get(stream)
            if held is None:
                pending[stream] = []
                held = 0
            elif held + length > FRAME_LIMIT:
                _emit(out, pending, lengths)
                pending[stream] = []
                held = 0
            pending[stream].append(received[at + HEAD : end])
            lengths[stream] = held + length
            if flags & _END_STREAM:
                # What a peer sends on the stream after this is its fault, and must be seen as such.
                out.append(_frame(stream, _END_STREAM, pending.pop(stream), lengths.pop(stream)))
        at = end
    _emit(out, pending, lengths)
    return b"".join(out), received[at:]


def _emit(out: list[bytes], pending: dict[bytes, list[bytes]], lengths: dict[bytes, int]) -> None:
    for stream, parts in pending.items():
        out.append(_frame(stream, 0, parts, lengths[stream]))
    pending.clear()
    lengths.clear()


def _frame(stream: bytes, flags: int, parts: list[bytes], length: int) -> bytes:
    return b"".join((length.to_bytes(3, "big"), bytes((_DATA, flags)), stream, *parts))
