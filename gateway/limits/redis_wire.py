"""One connection to one Redis (RESP, https://redis.io/docs/latest/develop/reference/protocol-spec/).

Commands are written as they come and answered in their order, so that one connection carries any number of them.
A caller that goes away takes nothing along: its answer is read and dropped. An answer that is late ends the
connection, for nobody can tell what else is.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from typing import Any, Final, cast

import hiredis
from msgspec import Struct

from gateway.secret import Secret

Address = tuple[str, int]
Argument = bytes | str | int

CLIENT_NAME: Final = "orgate"

KEEPALIVE_S: Final = 10
"""A connection that was silent for as long is tried by TCP; after three tries without an answer it is lost."""


class ReplyError(Exception):
    """Redis answered with an error. `code` is its first word (`MOVED`, `NOPERM`, `ERR`…)."""

    @property
    def code(self) -> str:
        return str(self).split(" ", 1)[0]


class WireError(Exception):
    """No answer: no connection, it was lost, or it was too late. The message says which, for the log."""


class Login(Struct, frozen=True):
    """`username` may be '' (the default user), `password` None (none is asked for). `tls` None: in clear text."""

    username: str = ""
    password: Secret | None = None
    tls: ssl.SSLContext | None = None


class Wire(asyncio.Protocol):
    """A connection that is made by `connect` and never comes back once it is `closed`."""

    def __init__(self, name: str, timeout_s: float) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self.timeout_s = timeout_s
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(protocolError=WireError, replyError=ReplyError)
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False

    def call(self, *arguments: Argument) -> asyncio.Future[Any]:
        """Send one command. Its future ends in time: with the answer, `ReplyError` or `WireError`."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._transport is None or self.closed:
            future.set_exception(WireError(f"{self._name}: the connection is closed"))
            return future
        self._waiting.append((future, self._loop.time() + self.timeout_s))
        if self._timer is None:
            self._timer = self._loop.call_later(self.timeout_s, self._look)
        self._transport.write(hiredis.pack_command(arguments))  # type: ignore[arg-type]  # said to take one word
        return future

    def close(self, why: str = "the connection is closed") -> None:
        """At once: those who wait for an answer get a `WireError`."""
        if self._transport is not None:
            self._transport.abort()
        self._end(why)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        # A peer that is gone without a word is found out while nobody asks, not by the first who does.
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                if not self._waiting:
                    return self.close("it said what nobody had asked for")
                future, _ = self._waiting.popleft()
                if future.done():
                    continue
                if isinstance(reply, ReplyError):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except WireError as error:
            self.close(f"it does not speak RESP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("the connection was lost")

    def _look(self) -> None:
        """Whether the first in line, who has waited longest, has waited too long."""
        self._timer = None
        if not self._waiting:
            return
        _, by = self._waiting[0]
        if (left := by - self._loop.time()) > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.close(f"no answer within {self.timeout_s * 1_000:.0f} ms")

    def _end(self, why: str) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(WireError(f"{self._name}: {why}"))
                # Whoever waited may be gone; then nobody will ever look at it, and asyncio must not complain.
                future.exception()


async def connect(
    address: Address, login: Login, *, timeout_s: float, connect_timeout_s: float
) -> tuple[Wire, dict[str, Any]]:
    """A connection that is signed in, and what the server said of itself (HELLO: `version`, `mode`, `role`).

    Raises `WireError`, or `ReplyError` when it does not let us in.
    """
    loop = asyncio.get_running_loop()
    host, port = address
    name = shown_address(address)
    try:
        async with asyncio.timeout(connect_timeout_s):
            _, wire = await loop.create_connection(
                lambda: Wire(name, timeout_s),
                host,
                port,
                ssl=login.tls,
                server_hostname=host if login.tls is not None else None,
            )
    except TimeoutError:
        raise WireError(f"{name}: no connection within {connect_timeout_s * 1_000:.0f} ms") from None
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason or str(error)
        raise WireError(f"{name}: TLS fails: {why}") from None
    except OSError as error:
        named = error.errno and not isinstance(error, socket.gaierror)  # asyncio puts words of its own into it
        why = os.strerror(error.errno or 0) if named else error.strerror or type(error).__name__
        raise WireError(f"{name}: no connection: {why}") from None
    try:
        hello = await _greet(wire, login)
    except BaseException:
        wire.close()
        raise
    return wire, hello


async def _greet(wire: Wire, login: Login) -> dict[str, Any]:
    words: list[Argument] = ["HELLO", 2]
    if login.password is not None:
        words += ["AUTH", login.username or "default", login.password.reveal()]
    said = await wire.call(*words, "SETNAME", CLIENT_NAME)
    return {_text(key): _text(value) for key, value in zip(said[::2], said[1::2], strict=True)}


def shown_address(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shown(error: ReplyError) -> str:
    """What Redis said, for a log: bounded. It never repeats a password."""
    return str(error)[:200]


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
