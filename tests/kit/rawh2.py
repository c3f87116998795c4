"""HTTP/2 by hand: any frame in any order, which no library lets one send. Reads and counts what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from hpack import Decoder, Encoder

from tests.kit.signal import Signal

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
ENHANCE_YOUR_CALM, PROTOCOL_ERROR = 0xB, 0x1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame (RFC 9113 section 4.1)."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def reset(stream: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack("!I", code))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", increment))


class RawH2:
    """One connection. `goaway`: the code the peer ended it with; `closed`: nothing more can be sent.

    `statuses` and `resets` are by stream.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> None:
        self._reader = reader
        self._writer = writer
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._reading = asyncio.create_task(self._read())
        self._next = 1
        self.authority = authority
        self.signal = Signal()
        self.frames: Counter[int] = Counter()
        self.resets: dict[int, int] = {}
        self.statuses: dict[int, int] = {}
        self.goaway: int | None = None
        self.closed = False

    @classmethod
    async def connect(cls, host: str, port: int, context: ssl.SSLContext, source: str = "127.0.0.1") -> Self:
        """Connect and shake hands: preface, SETTINGS, and the acknowledgement of the peer's."""
        reader, writer = await asyncio.open_connection(host, port, ssl=context, local_addr=(source, 0))
        raw = cls(reader, writer, f"{host}:{port}")
        await raw.send(PREFACE + frame(SETTINGS, 0, 0))
        await raw.signal.until(lambda: raw.frames[SETTINGS] or raw.closed, "the peer's SETTINGS")
        await raw.send(frame(SETTINGS, ACK, 0))
        return raw

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.transport.abort()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        await self._reading

    def stream(self) -> int:
        number, self._next = self._next, self._next + 2
        return number

    def head(
        self,
        stream: int,
        method: str,
        path: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        end: bool = False,
    ) -> bytes:
        """HEADERS, whole. The encoder's table follows what was made: send everything that is made, in order."""
        pseudo = [(":method", method), (":scheme", "https"), (":authority", self.authority), (":path", path)]
        block = self._encoder.encode([*pseudo, *headers])
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)

    async def send(self, data: bytes) -> bool:
        """Write and wait until the kernel has it. False once the peer is gone."""
        if self.closed:
            return False
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (OSError, RuntimeError):
            self.closed = True
        return not self.closed

    def over(self, stream: int) -> bool:
        """`stream` was answered or reset, or the connection has ended."""
        return self.closed or stream in self.statuses or stream in self.resets

    async def ended(self) -> int | None:
        """Wait until the peer has closed; returns its GOAWAY code."""
        await self.signal.until(lambda: self.closed, "the peer to close")
        return self.goaway

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                size, kind, stream = int.from_bytes(head[:3]), head[3], int.from_bytes(head[5:]) & 0x7FFFFFFF
                payload = await self._reader.readexactly(size)
                self.frames[kind] += 1
                if kind == RST_STREAM:
                    self.resets[stream] = int.from_bytes(payload)
                elif kind == HEADERS:
                    self.statuses[stream] = int(dict(self._decoder.decode(payload, raw=True))[b":status"])
                elif kind == GOAWAY:
                    self.goaway = int.from_bytes(payload[4:8])
                self.signal.notify()
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        self.closed = True
        self.signal.notify()
