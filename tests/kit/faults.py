"""A TCP proxy on loopback that does to connections what networks do: delays, resets, half-open ends, silence."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

HOST = "127.0.0.1"


class Fault(Enum):
    """What holds for bytes and for new connections from now on."""

    NONE = "none"
    RESET = "reset"
    """Connections are reset (RST), new ones as soon as they are there."""

    HALF_OPEN = "half-open"
    """What the client says arrives; nothing that is answered comes back, and nobody closes."""

    BLACKHOLE = "blackhole"
    """Nothing passes in either direction, and nobody closes. New connections are taken, and hang."""

    REFUSE = "refuse"
    """Nobody listens on the port; connections that are there go on."""


class FaultProxy:
    """Between a client and `(host, port)`. One loop's own."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._server: asyncio.Server | None = None
        self._fault = Fault.NONE
        self._passes = asyncio.Event()
        self._passes.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay_s = 0.0
        self.port = 0
        self.accepted = 0

    async def set(self, fault: Fault) -> None:
        if (fault is Fault.REFUSE) != (self._fault is Fault.REFUSE):
            if fault is Fault.REFUSE:
                self._close_listener()
            else:
                await self._listen()
        self._fault = fault
        if fault in (Fault.BLACKHOLE, Fault.HALF_OPEN):
            self._passes.clear()
        else:
            self._passes.set()
        if fault is Fault.RESET:
            for writer in list(self._writers):
                _reset(writer)

    async def __aenter__(self) -> FaultProxy:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close_listener()
        # Not cancelled: asyncio's streams complain of a handler that was. Each ends when its connections do.
        self._fault = Fault.RESET
        self._passes.set()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _close_listener(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        self._writers.add(writer)
        try:
            await self._passes.wait()
            if self._fault is Fault.RESET:
                _reset(writer)
                return
            there, back = await asyncio.open_connection(*self._to)
            self._writers.add(back)
            try:
                await asyncio.gather(self._pump(reader, back, out=True), self._pump(there, writer, out=False))
            finally:
                self._writers.discard(back)
                back.transport.abort()
        except OSError:
            pass  # either side is gone, and so is the other
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, out: bool) -> None:
        while data := await reader.read(65_536):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if not (out and self._fault is Fault.HALF_OPEN):
                await self._passes.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN (SO_LINGER with 0 seconds, socket(7))."""
    found = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def fault_proxy(host: str, port: int) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(host, port) as proxy:
        yield proxy
