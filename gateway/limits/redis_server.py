"""One Redis that is written to: its connection, made again when it is lost, and the library, loaded when it is
not there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from msgspec import Struct

from gateway.limits.redis_library import Library
from gateway.limits.redis_wire import (
    Address,
    Argument,
    Login,
    ReplyError,
    Wire,
    WireError,
    connect,
    shown_address,
)

PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
"""Between attempts to connect: doubled each time, with jitter, so that a Redis that comes back is not met by all
workers at once. Whoever asks meanwhile is told no without an attempt."""

READ_ONLY: Final = "it is a replica, and what is written there is lost"


class Times(Struct, frozen=True):
    """Seconds: until an answer is there, and until a connection is."""

    answer_s: float
    connect_s: float


class Server:
    """`find` says where it is, each time that a connection is made. One loop's own."""

    def __init__(
        self, find: Callable[[], Awaitable[Address]], login: Login, times: Times, library: Library
    ) -> None:
        self._find = find
        self._login = login
        self._times = times
        self._library = library
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[Wire] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._pause_s = 0.0
        self._failure: type[ReplyError] | type[WireError] = WireError
        self._why = ""
        self._functions = True
        self.hello: dict[str, Any] = {}

    @property
    def functions(self) -> bool:
        """Whether it runs the library as a function; else as a script."""
        return self._functions

    async def command(self, *arguments: Argument) -> Any:
        """One command. Raises `ReplyError`, or `WireError` within the time limit."""
        wire = self._wire
        if wire is None or wire.closed:
            wire = await self._connected()
        return await wire.call(*arguments)

    async def run(self, keys: Sequence[str], arguments: Sequence[Argument], *, asking: bool = False) -> Any:
        """Run the library, atomically, and load it first where it is not. `asking`: after an ASK redirection."""
        denied: ReplyError | None = None
        for _ in range(3):
            wire = self._wire
            if wire is None or wire.closed:
                wire = await self._connected()
            what = ("FCALL", self._library.name) if self._functions else ("EVALSHA", self._library.sha1)
            if asking:
                wire.call("ASKING").add_done_callback(_looked_at)
            try:
                return await wire.call(*what, len(keys), *keys, *arguments)
            except ReplyError as error:
                if error.code == "READONLY":
                    # It has become a replica: the next connection looks where its successor is.
                    wire.close(READ_ONLY)
                    raise
                if self._functions and _no_functions(error):
                    self._functions = False
                    denied = error
                elif error.code == "NOSCRIPT" or "Function not found" in str(error):
                    await self.load()
                else:
                    self._again(error)
                    raise (denied if denied is not None and error.code == denied.code else error) from None
        raise WireError("the library is loaded and yet not there")

    async def load(self) -> None:
        """Put the library there, once for all who wait for it."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
            self._loading.add_done_callback(self._loaded)
        await asyncio.shield(self._loading)

    def close(self) -> None:
        for task in (self._connecting, self._loading):
            if task is not None:
                task.cancel()
        if self._wire is not None:
            self._wire.close()

    async def _load(self) -> None:
        if self._functions:
            try:
                await self.command("FUNCTION", "LOAD", self._library.function)
            except ReplyError as error:
                if _no_functions(error):
                    self._functions = False
                elif "already exists" not in str(error):  # another worker was first
                    raise
        if not self._functions:
            try:
                await self.command("SCRIPT", "LOAD", self._library.script)
            except ReplyError as error:
                self._again(error)
                raise

    def _again(self, error: ReplyError) -> None:
        """An ACL that allows neither way may be mended while this runs, and then allows functions."""
        if error.code == "NOPERM":
            self._functions = True

    def _loaded(self, task: asyncio.Task[None]) -> None:
        self._loading = None
        _looked_at(task)

    async def _connected(self) -> Wire:
        """The connection, once for all who wait for it; nobody waits longer than for an answer."""
        if self._connecting is None:
            loop = asyncio.get_running_loop()
            if loop.time() < self._not_before:
                raise self._failure(self._why)
            self._connecting = loop.create_task(self._connect())
            self._connecting.add_done_callback(self._settled)
        try:
            async with asyncio.timeout(self._times.answer_s):
                return await asyncio.shield(self._connecting)
        except TimeoutError:
            raise WireError(f"no connection within {self._times.answer_s * 1_000:.0f} ms") from None

    async def _connect(self) -> Wire:
        address = await self._find()
        wire, hello = await connect(
            address,
            self._login,
            timeout_s=max(self._times.answer_s, self._times.connect_s),
            connect_timeout_s=self._times.connect_s,
        )
        if hello.get("role") != "master":
            wire.close()
            raise WireError(f"{shown_address(address)}: {READ_ONLY}")
        wire.timeout_s = self._times.answer_s
        self.hello = hello
        self._wire = wire
        self._pause_s = 0.0
        return wire

    def _settled(self, task: asyncio.Task[Wire]) -> None:
        self._connecting = None
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._failure = ReplyError if isinstance(error, ReplyError) else WireError
        self._why = str(error)
        self._pause_s = min(max(self._pause_s * 2, PAUSE_S), LONGEST_PAUSE_S)
        pause_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._not_before = asyncio.get_running_loop().time() + pause_s


def _no_functions(error: ReplyError) -> bool:
    """Redis before 7 has none; an ACL may not allow them."""
    text = str(error).lower()
    if error.code == "NOPERM":
        return "'fcall'" in text or "'function" in text
    return text.startswith("err unknown command") or text.startswith("err unknown subcommand")


def _looked_at(task: asyncio.Future[Any]) -> None:
    """Nobody may be there to hear how it ended; asyncio must not complain."""
    if not task.cancelled():
        task.exception()
