"""Reads token usage out of an answer as it passes, without holding the answer back.

OpenAI's streams report usage in a last event with empty `choices`, only when asked (`stream_options.
include_usage`); some servers also put `"usage":null` into every event. The gateway always asks; what the
caller did not ask for is taken out again. Source: OpenAI API reference, "Chat completion chunk object".
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from gateway.exchange import Usage
from gateway.texts import octets

CARRY_LIMIT = 1024 * 1024
"""Bytes of an unfinished event kept at most; a longer one is passed on in pieces, its usage unseen."""

READ_LIMIT = 256 * 1024
"""Bytes of an answer without usage that are looked at for its text."""

MAX_TOKENS = 2**31 - 1
"""An upstream is not trusted with arithmetic: a figure beyond this, or below 0, counts as not reported. A negative
one would fill the caller's buckets, one of more than 64 bits could not be written down."""

_MARK = b'"usage"'
_NULLS = (b',"usage":null', b', "usage": null')
_LF = b"\n\n"
_CRLF = b"\r\n\r\n"


class _Tokens(Struct):
    prompt_tokens: int = -1
    completion_tokens: int = 0
    total_tokens: int = 0


class _Answer(Struct):
    usage: _Tokens | None = None


class _Choices(Struct):
    choices: Raw


class _Chunk(Struct):
    usage: _Tokens | None = None
    choices: list[Raw] | None = None


_answer = msgspec.json.Decoder(_Answer)
_choices = msgspec.json.Decoder(_Choices)
_chunk = msgspec.json.Decoder(_Chunk)
_object = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode


def usage_of_answer(body: bytes) -> Usage | None:
    """Usage of a whole JSON answer, None when it reports none. Raises `msgspec.DecodeError` on garbage."""
    tokens = _answer.decode(body).usage
    return None if tokens is None else _believable(tokens)


def text_of_answer(body: bytes) -> int:
    """Bytes of text in the choices of a whole JSON answer; of all of it when it has none that can be read, or is
    so long that what is read of it could take many times its memory."""
    if len(body) > READ_LIMIT:
        return len(body)
    try:
        return octets(_choices.decode(body).choices)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return len(body)


def around_text(piece: bytes) -> tuple[int, int]:
    """Bytes in the events of a stream's `piece` that are no text, and how many events they are. Those that cannot
    be read are passed over: `[DONE]`, and what is cut off."""
    separator = _CRLF if _CRLF in piece else _LF
    around = seen = 0
    for event in piece.split(separator):
        if event.startswith(b"data:"):
            try:
                text = octets(_choices.decode(event[5:]).choices)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            around += len(event) + len(separator) - text
            seen += 1
    return around, seen


class UsageTap:
    """Sits in one event stream (WHATWG HTML section 9.2). `feed` what arrives, send on what it returns.

    Most chunks hold whole events without usage and come back as the object that went in.
    """

    __slots__ = ("_carry", "_keep", "events", "usage")

    def __init__(self, *, keep: bool) -> None:
        """`keep`: the caller asked for usage itself, so nothing is taken out."""
        self._keep = keep
        self._carry = bytearray()
        self.events = 0
        self.usage: Usage | None = None

    def feed(self, data: bytes) -> bytes:
        carry = self._carry
        if not carry and data.endswith(_LF):
            return self._whole(data)
        # Nothing is looked at twice: a long event in small pieces would cost the square of its size.
        seen = max(len(carry) - len(_CRLF) + 1, 0)
        carry += data
        end = max(_after(carry, _LF, seen), _after(carry, _CRLF, seen))
        if end:
            self._carry = carry[end:]
            return self._whole(bytes(carry[:end]))
        if len(carry) > CARRY_LIMIT:
            self._carry = bytearray()
            return bytes(carry)
        return b""

    def end(self) -> bytes:
        """What is left of an event that the server never finished."""
        rest, self._carry = self._carry, bytearray()
        return self._whole(bytes(rest))

    def _whole(self, events: bytes) -> bytes:
        """Each pass over `events` is paid for by every chunk: one to find the mark, one to count."""
        separator = _CRLF if events.endswith(_CRLF) else _LF
        mark = events.find(_MARK)
        if mark < 0:
            self.events += events.count(separator)
            return events
        kept = []
        at = 0
        while mark >= 0:
            before = events.rfind(separator, at, mark)
            start = at if before < 0 else before + len(separator)
            after = events.find(separator, mark)
            end = len(events) if after < 0 else after
            self.events += events.count(separator, at, start) + 1
            kept.append(events[at:start])
            passed = self._event(events[start:end])
            if passed:
                kept += (passed, separator)
            at = end + len(separator)
            mark = events.find(_MARK, at)
        self.events += events.count(separator, at)
        kept.append(events[at:])
        return b"".join(kept)

    def _event(self, event: bytes) -> bytes:
        if not self._keep:
            for null in _NULLS:
                event = event.replace(null, b"")
            if _MARK not in event:
                return event
        if not event.startswith(b"data:"):
            return event
        payload = event[5:]
        try:
            chunk = _chunk.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return event
        if chunk.usage is None:
            return event
        self.usage = _believable(chunk.usage) or self.usage
        if self._keep:
            return event
        if not chunk.choices:
            return b""
        fields = _object.decode(payload)
        fields.pop("usage", None)
        return b"data: " + _encode(fields)


def _believable(tokens: _Tokens) -> Usage | None:
    """None for an object without `prompt_tokens`, too: all report it, and what has other names was not free."""
    if not (0 <= tokens.prompt_tokens <= MAX_TOKENS and 0 <= tokens.completion_tokens <= MAX_TOKENS):
        return None
    return Usage(tokens.prompt_tokens, tokens.completion_tokens, counted=False)


def _after(buffer: bytearray, separator: bytes, start: int) -> int:
    place = buffer.rfind(separator, start)
    return 0 if place < 0 else place + len(separator)
