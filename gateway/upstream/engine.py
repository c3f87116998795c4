"""The client's side of one HTTP/2 connection (RFC 9113), without I/O: bytes in → events out, calls → bytes out.

A peer's breach that concerns one stream ends that stream (section 5.4.2); any other ends the connection
(section 5.4.1). What bounds a hostile peer: the frame size, `HEADER_LIST_LIMIT` for a header block both coded
and decoded, the two receive windows, and `Noise` for frames that cost us and carry nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jh2._hazmat import Decoder, HPACKError, OversizedHeaderListError

from gateway.upstream import fields, frames
from gateway.upstream.channel import STREAM_WINDOW, Channel, Event, Kind
from gateway.upstream.fields import Head, MalformedError, OversizedError
from gateway.upstream.frames import (
    DEFAULT_WINDOW,
    FRAME_LIMIT,
    HEAD_SIZE,
    WINDOW_LIMIT,
    Code,
    Http2Error,
    Setting,
    unpack_head,
)
from gateway.upstream.letgo import LetGo
from gateway.upstream.noise import Noise

CONNECTION_WINDOW = 16 * 1024 * 1024
"""Credit of a whole connection. It is given back as data arrives, not as it is read, so that callers who do
not read hold up nobody else: what bounds memory is `STREAM_WINDOW` × open streams."""

HEADER_LIST_LIMIT = 64 * 1024
CONTINUATION_LIMIT = 32
"""Frames of one header block: four of full size would do."""
LAST_STREAM_ID = 2**31 - 1
FRAME_SIZE = 65_536
"""The longest DATA frame sent, whatever the peer takes: uploads of one connection take turns by frames."""

CREDIT_PIECE = 1_024
"""Window updates below this count as noise in full, like any frame that says nothing."""

_SAY_HEAD, _SAY_DATA, _SAY_END, _SAY_RESET, _SAY_BROKEN, _SAY_SETTINGS, _SAY_GOAWAY, _SAY_FAULT = Kind
_DATA = frames.DATA
_END_STREAM = frames.END_STREAM
_PADDED = frames.PADDED


class Engine:
    """State changes and the bytes that tell the peer of them are one step; the caller writes `take()` in order.

    `channels`: open streams. `uploads`: those whose request has not been sent whole. `out`: what `take` gives.
    `peer_streams`: the peer's SETTINGS_MAX_CONCURRENT_STREAMS (section 5.1.2), which the caller keeps to.
    """

    def __init__(self, now: float) -> None:
        self.channels: dict[int, Channel] = {}
        self.uploads: dict[int, Channel] = {}
        self.peer_streams = WINDOW_LIMIT
        self.failed = False
        self.out: list[bytes] = [
            frames.PREFACE,
            frames.settings(
                {
                    Setting.ENABLE_PUSH: 0,
                    Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                    Setting.MAX_HEADER_LIST_SIZE: HEADER_LIST_LIMIT,
                }
            ),
            frames.window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW),
        ]
        self._next_id = 1
        self._window = DEFAULT_WINDOW  # what we may send on the connection
        self._credit = CONNECTION_WINDOW  # what the peer may
        self._initial_window = DEFAULT_WINDOW
        self._frame_limit = FRAME_LIMIT
        self._settled = False  # the peer's preface, a SETTINGS frame, is here
        self._unacknowledged = 1  # SETTINGS of ours
        self._shrink = False  # the next header block must empty the table
        self._shrunk = False
        self._decoder: Any = Decoder(HEADER_LIST_LIMIT)
        self._rest = b""
        self._block: list[bytes] = []
        self._block_of: tuple[int, int] | None = None  # (stream id, flags) of a block that is not complete
        self._block_size = 0
        self._let_go = LetGo()
        self.resets = 0
        """RST_STREAM frames sent: peers bound them for each connection."""
        self._noise = Noise(now)
        self._now = now

    # The caller's side.

    def take(self) -> bytes:
        """The bytes to write now, in this order and before anything that is taken later."""
        out = self.out
        if not out:
            return b""
        self.out = []
        return out[0] if len(out) == 1 else b"".join(out)

    @property
    def exhausted(self) -> bool:
        """No stream id is left (section 5.1.1)."""
        return self._next_id > LAST_STREAM_ID - 2

    def start(self, block: bytes, body: bytes, bodiless: bool = False, held: bool = False) -> Channel:
        """Open a stream with the header block `block`. A body is sent at once when the windows take it in one
        frame and it is not `held`, else by `pump`."""
        stream_id = self._next_id
        self._next_id = stream_id + 2
        channel = self.channels[stream_id] = Channel(stream_id, self._initial_window, bodiless)
        if self._shrink:
            self._shrink = False
            block = fields.EMPTY_TABLE + block
        size = len(body)
        at_once = not held and 0 < size <= self._window and size <= channel.window
        if at_once and size <= FRAME_LIMIT and len(block) <= FRAME_LIMIT:
            self._window -= size
            channel.window -= size
            self.out.append(frames.request(stream_id, block, body))
        else:
            self.out.append(frames.headers(stream_id, block, not size, self._frame_limit))
            if size:
                channel.upload = memoryview(body)
                self.uploads[stream_id] = channel
        if self._noise.level:
            self._noise.quiet(8.0)
        return channel

    def pump(self) -> bool:
        """Queue one DATA frame of each upload whose window is open. False: none is."""
        progress = False
        for stream_id, channel in list(self.uploads.items()):
            size = min(self._window, channel.window, self._frame_limit, FRAME_SIZE, len(channel.upload))
            if size <= 0:
                continue
            progress = True
            part, channel.upload = channel.upload[:size], channel.upload[size:]
            self._window -= size
            channel.window -= size
            done = not channel.upload
            self.out.append(frames.data(stream_id, bytes(part), done))
            self._noise.quiet(10.0 + size / CREDIT_PIECE)
            if done:
                del self.uploads[stream_id]
        return progress

    def reset(self, channel: Channel, code: int) -> None:
        """RST_STREAM. Does nothing when the stream is over."""
        if self.channels.pop(channel.id, None) is None:
            return
        self.uploads.pop(channel.id, None)
        self.out.append(frames.rst_stream(channel.id, code))
        self.resets += 1
        self._let_go.add(channel.id)

    def forget(self, channel: Channel) -> None:
        """Let go of a stream without a word: the peer has said that it will not process it, or is gone."""
        self.channels.pop(channel.id, None)
        self.uploads.pop(channel.id, None)
        self._let_go.add(channel.id)

    def give_credit(self, channel: Channel, size: int) -> None:
        """The peer may send `size` bytes more on this stream."""
        if channel.id in self.channels:
            channel.credit += size
            self.out.append(frames.window_update(channel.id, size))

    def ping(self, payload: bytes) -> None:
        self.out.append(frames.ping(payload))

    def goaway(self, code: int) -> None:
        self.out.append(frames.goaway(0, code))

    # The peer's side.

    def receive(self, received: bytes, now: float) -> list[Event]:
        """Take what has arrived, in pieces of any size. A `FAULT` is the last event there will ever be."""
        if self._rest:
            received = self._rest + received
        self._now = now
        events: list[Event] = []
        size, at = len(received), 0
        channels, block_of = self.channels, self._block_of
        try:
            while size - at >= HEAD_SIZE:
                high, low, kind, flags, stream_id = unpack_head(received, at)
                length = high << 8 | low
                if length > FRAME_LIMIT:
                    # Said at its head: nobody waits for sixteen megabytes from a peer that speaks no HTTP/2.
                    raise Http2Error(Code.FRAME_SIZE_ERROR, "a frame longer than we take")
                end = at + HEAD_SIZE + length
                if end > size:
                    break
                stream_id &= LAST_STREAM_ID
                if kind == _DATA and not flags and length and block_of is None:
                    # The usual frame of a stream of tokens; `_on_data` says what all this is for.
                    channel = channels.get(stream_id)
                    if channel is not None and channel.head and channel.credit >= length:
                        credit = self._credit = self._credit - length
                        if credit < CONNECTION_WINDOW // 2:
                            self._restore_credit()
                        channel.credit -= length
                        channel.received += length
                        if not channel.size:
                            events.append((_SAY_DATA, channel, None))
                        channel.size += length
                        channel.parts.append(received[at + HEAD_SIZE : end])
                        at = end
                        continue
                if block_of is not None and kind != frames.CONTINUATION:
                    raise Http2Error(Code.PROTOCOL_ERROR, "a header block interrupted by another frame")
                payload = received[at + HEAD_SIZE : end]
                if kind == _DATA:
                    self._on_data(stream_id, flags, payload, length, events)
                else:
                    self._on_frame(kind, stream_id, flags, payload, events)
                    block_of = self._block_of
                at = end
        except Http2Error as fault:
            self.failed = True
            self._rest = b""
            self.goaway(fault.code)
            events.append((_SAY_FAULT, None, fault.reason))
            return events
        self._rest = received[at:] if at < size else b""
        return events

    def _on_frame(self, kind: int, stream_id: int, flags: int, payload: bytes, events: list[Event]) -> None:
        if not self._settled and (kind != frames.SETTINGS or flags & frames.ACK):
            raise Http2Error(Code.PROTOCOL_ERROR, "a connection that does not begin with SETTINGS")
        handle = _HANDLERS.get(kind)
        if handle is None:
            self._noise.add(1.0, self._now)  # an extension's frame (section 5.5)
        else:
            handle(self, stream_id, flags, payload, events)

    def _on_data(self, stream_id: int, flags: int, payload: bytes, length: int, events: list[Event]) -> None:
        self._credit -= length
        if self._credit < CONNECTION_WINDOW // 2:
            self._restore_credit()
        channel = self.channels.get(stream_id)
        if channel is None:
            self._late(stream_id)
            if not length:
                self._noise.add(1.0, self._now)
            return
        if flags & _PADDED:
            payload = frames.without_padding(payload, flags & _PADDED)
        if not channel.head:
            self._break(channel, Code.PROTOCOL_ERROR, "data before the head", events)
            return
        if length:
            channel.credit -= length
            if channel.credit < 0:
                self._break(channel, Code.FLOW_CONTROL_ERROR, "more data than the stream's window", events)
                return
            channel.received += len(payload)
            if not channel.size:
                events.append((_SAY_DATA, channel, None))
            channel.parts.append(payload)
            channel.size += length
        if not payload and not flags & _END_STREAM:
            self._noise.add(1.0, self._now)  # padding alone is nothing either
        if flags & _END_STREAM:
            self._on_end(channel, events)

    def _restore_credit(self) -> None:
        if self._credit < 0:
            raise Http2Error(Code.FLOW_CONTROL_ERROR, "more data than the connection's window")
        self.out.append(frames.window_update(0, CONNECTION_WINDOW - self._credit))
        self._credit = CONNECTION_WINDOW

    def _on_end(self, channel: Channel, events: list[Event]) -> None:
        if channel.length not in (-1, channel.received) and not channel.bodiless:
            self._break(channel, Code.PROTOCOL_ERROR, "content of another length than promised", events)
            return
        if channel.id in self.uploads:
            # Answered before the whole request was sent: it need not be (section 8.1), but the stream must end on
            # this side too, or the peer counts it as open for ever.
            self.reset(channel, Code.NO_ERROR)
        else:
            del self.channels[channel.id]
        events.append((_SAY_END, channel, None))

    def _on_headers(self, stream_id: int, flags: int, payload: bytes, events: list[Event]) -> None:
        if not stream_id & 1 or stream_id >= self._next_id:
            raise Http2Error(Code.PROTOCOL_ERROR, "a head on a stream that we have not opened")
        if flags & (_PADDED | frames.PRIORITY_FIELDS):
            payload = frames.without_padding(payload, flags)
        if flags & frames.END_HEADERS:
            self._on_block(stream_id, flags, payload, events)
        else:
            self._block_of = (stream_id, flags)
            self._block, self._block_size = [payload], len(payload)

    def _on_continuation(self, stream_id: int, flags: int, payload: bytes, events: list[Event]) -> None:
        if self._block_of is None or self._block_of[0] != stream_id:
            raise Http2Error(Code.PROTOCOL_ERROR, "a continuation of nothing")
        self._block.append(payload)
        self._block_size += len(payload)
        if self._block_size > HEADER_LIST_LIMIT or len(self._block) > CONTINUATION_LIMIT:
            raise Http2Error(Code.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & frames.END_HEADERS:
            of, self._block_of = self._block_of, None
            block, self._block = self._block, []
            self._on_block(of[0], of[1], b"".join(block), events)

    def _on_block(self, stream_id: int, flags: int, block: bytes, events: list[Event]) -> None:
        try:
            if not fields.is_whole(block):
                raise Http2Error(Code.COMPRESSION_ERROR, "a header block that breaks off")
            # Whosever it is: the table belongs to the connection (RFC 7541 section 2.2).
            found = self._decoder.decode(block, True)
        except (OversizedError, OversizedHeaderListError):
            raise Http2Error(Code.ENHANCE_YOUR_CALM, "a head longer than we take") from None
        except HPACKError:
            raise Http2Error(Code.COMPRESSION_ERROR, "a header block that cannot be decoded") from None
        channel = self.channels.get(stream_id)
        if channel is None:
            self._late(stream_id, heads=1)
            return
        try:
            if channel.head:
                fields.check_trailers(found)
                if not flags & _END_STREAM:
                    raise MalformedError("trailers that do not end the stream")
            else:
                head, length = fields.response_head(found)
                if head.status < 200:
                    self._on_informational(head, flags)
                    return
                channel.head = True
                # No content, by definition (RFC 9110 section 6.4.1).
                channel.bodiless = channel.bodiless or head.status in (204, 304)
                channel.length = length
                events.append((_SAY_HEAD, channel, head))
        except MalformedError as error:
            self._break(channel, Code.PROTOCOL_ERROR, str(error), events)
            return
        if flags & _END_STREAM:
            self._on_end(channel, events)

    def _on_informational(self, head: Head, flags: int) -> None:
        """100 Continue, 103 Early Hints: nobody here waits for them."""
        if flags & _END_STREAM or head.status == 101:
            raise MalformedError("an interim head that ends the stream or upgrades it")
        self._noise.add(10.0, self._now)

    def _on_rst_stream(self, stream_id: int, flags: int, payload: bytes, events: list[Event]) -> None:
        code = frames.parse_long(payload)
        channel = self.channels.pop(stream_id, None)
        if channel is None:
            self._opened(stream_id)
            self._noise.add(1.0, self._now)
            return
        self.uploads.pop(stream_id, None)
        events.append((_SAY_RESET, channel, code))

    def _on_settings(self, stream_id: int, flags: int, payload: bytes, events: list[Event]) -> None:
        if stream_id:
            raise Http2Error(Code.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise Http2Error(Code.FRAME_SIZE_ERROR, "an acknowledgement with content")
            self._unacknowledged -= 1
            if self._unacknowledged < 0:
                raise Http2Error(Code.PROTOCOL_ERROR, "an acknowledgement of nothing")
            return
        values = frames.parse_settings(payload)
        if self._settled:
            self._noise.add(10.0, self._now)
        self._settled = True
        self.peer_streams = values.get(Setting.MAX_CONCURRENT_STREAMS, self.peer_streams)
        self._frame_limit = values.get(Setting.MAX_FRAME_SIZE, self._frame_limit)
        if values.get(Setting.HEADER_TABLE_SIZE, 4_096) < 4_096 and not self._shrunk:
            # Our table is empty and stays so; what was lowered must be said all the same (RFC 7541 section 4.2).
            self._shrink = self._shrunk = True
        window = values.get(Setting.INITIAL_WINDOW_SIZE, self._initial_window)
        if window != self._initial_window:
            # Open streams too, and perhaps to less than nothing (section 6.9.2).
            delta, self._initial_window = window - self._initial_window, window
            for channel in self.channels.values():
                channel.window += delta
                if channel.window > WINDOW_LIMIT:
                    raise Http2Error(Code.FLOW_CONTROL_ERROR, "a window above 2^31-1")
        self.out.append(frames.SETTINGS_ACK)
        events.append((_SAY_SETTINGS, None, None))

    def _on_push_promise(self, stream_id: int, flags: int, payload: bytes, events: list[Event]) -> None:
        raise Http2Error(Code.PROTOCOL_ERROR, "a push, which we have disabled")

    def _on_ping(self, stream_id: int, flags: int, payload: bytes, events: list[Event]) -> None:
        if stream_id:
            raise Http2Error(Code.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise Http2Error(Code.FRAME_SIZE_ERROR, "PING of a broken size")
        self._noise.add(1.0, self._now)
        if not flags & frames.ACK:
            self.out.append(frames.ping(payload, ack=True))

    def _on_goaway(self, stream_id: int, flags: int, payload: bytes, events: list[Event]) -> None:
        if stream_id:
            raise Http2Error(Code.PROTOCOL_ERROR, "GOAWAY on a stream")
        last, _ = frames.parse_goaway(payload)
        self._noise.add(1.0, self._now)
        refused = [channel for channel in self.channels.values() if channel.id > last]
        for channel in refused:
            self.forget(channel)
        events.append((_SAY_GOAWAY, None, refused))

    def _on_window_update(self, stream_id: int, flags: int, payload: bytes, events: list[Event]) -> None:
        increment = frames.parse_long(payload) & WINDOW_LIMIT
        # Larger ones are bounded by what the windows hold; servers give credit by the 4 KB, twice (Go's net/http).
        self._noise.add(1.0 if increment < CREDIT_PIECE else 0.1, self._now)
        if not stream_id:
            if not increment:
                raise Http2Error(Code.PROTOCOL_ERROR, "a window update of nothing")
            self._window += increment
            if self._window > WINDOW_LIMIT:
                raise Http2Error(Code.FLOW_CONTROL_ERROR, "a window above 2^31-1")
            return
        channel = self.channels.get(stream_id)
        if channel is None:
            self._opened(stream_id)
            return
        if not increment:
            self._break(channel, Code.PROTOCOL_ERROR, "a window update of nothing", events)
            return
        channel.window += increment
        if channel.window > WINDOW_LIMIT:
            self._break(channel, Code.FLOW_CONTROL_ERROR, "a window above 2^31-1", events)

    def _on_priority(self, stream_id: int, flags: int, payload: bytes, events: list[Event]) -> None:
        """Deprecated, and meant for servers: read past (section 5.3.2)."""
        if not stream_id:
            raise Http2Error(Code.PROTOCOL_ERROR, "PRIORITY without a stream")
        if len(payload) != 5:
            raise Http2Error(Code.FRAME_SIZE_ERROR, "PRIORITY of a broken size")
        self._noise.add(1.0, self._now)

    def _late(self, stream_id: int, *, heads: int = 0) -> None:
        """DATA or a head on a stream that is over. After our reset it is only late, and ignored (section 5.1)."""
        self._opened(stream_id)
        if noise := self._let_go.late(stream_id, heads):
            self._noise.add(noise, self._now)

    def _opened(self, stream_id: int) -> None:
        if not stream_id & 1 or stream_id >= self._next_id:
            raise Http2Error(Code.PROTOCOL_ERROR, "a frame on a stream that we have not opened")

    def _break(self, channel: Channel, code: Code, reason: str, events: list[Event]) -> None:
        self.reset(channel, code)
        events.append((_SAY_BROKEN, channel, reason))


_HANDLERS: dict[int, Callable[[Engine, int, int, bytes, list[Event]], None]] = {
    frames.HEADERS: Engine._on_headers,
    frames.PRIORITY: Engine._on_priority,
    frames.RST_STREAM: Engine._on_rst_stream,
    frames.SETTINGS: Engine._on_settings,
    frames.PUSH_PROMISE: Engine._on_push_promise,
    frames.PING: Engine._on_ping,
    frames.GOAWAY: Engine._on_goaway,
    frames.WINDOW_UPDATE: Engine._on_window_update,
    frames.CONTINUATION: Engine._on_continuation,
}
