"""A door before a server: it accepts TCP and holds every byte until it is opened.

What is behind it sees nothing of a connection that is held, so a caller's TLS handshake stalls exactly as it
does before a server that has run out of processes:

    async with Gate(upstream.port) as gate:
        gate.shut()
        ...
        await gate.accepted(1)
        gate.open()
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from tests.kit.signal import Signal

PIECE = 64 * 1024


class Gate:
    """Relays `port` of this machine to `target`. Open at first; `shut` holds the connections accepted after it."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.count = 0
        self._target = target
        self._signal = Signal()
        self._opened = asyncio.Event()
        self._opened.set()
        self._relays: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """For an upstream that speaks TLS, whose certificate names this address too."""
        return f"https://127.0.0.1:{self.port}"

    def shut(self) -> None:
        self._opened.clear()

    def open(self) -> None:
        """Let everything through that was held, and whatever comes."""
        self._opened.set()

    async def accepted(self, number: int) -> None:
        """Wait until `number` connections in all have been accepted here."""
        await self._signal.until(lambda: self.count >= number, f"connection {number} at the gate")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._enter, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        self.count += 1
        self._signal.notify()
        try:
            await self._opened.wait()
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))
            finally:
                inner_writer.transport.abort()
        except asyncio.CancelledError:
            pass  # the test is over; asyncio's own callback would report it as a fault
        finally:
            writer.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except ConnectionError:
        writer.transport.abort()  # cut on one side: cut on the other
