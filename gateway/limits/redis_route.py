"""Which Redis an organization's account is on: the only one, the one Sentinel names, or a node of a Cluster."""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any, Final, Protocol

from gateway.limits.redis_library import Library
from gateway.limits.redis_server import Server, Times
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

SLOTS: Final = 16_384
REDIRECTIONS: Final = 4
REFRESH_S: Final = 0.25
"""The map of a Cluster is asked for at most so often."""


class Route(Protocol):
    """`apart`: whether one organization may be out of reach while others are not. Errors of all: `ReplyError`,
    `WireError`."""

    @property
    def apart(self) -> bool: ...

    async def run(self, tag: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run the library where `tag`, the hash tag of all `keys`, belongs."""

    async def servers(self) -> Sequence[tuple[str, Server]]:
        """All that are written to, by name."""

    def close(self) -> None: ...


class Single:
    """One Redis, or the master that Sentinel names: `server` knows where it is."""

    apart = False

    def __init__(self, name: str, server: Server) -> None:
        self._name = name
        self._server = server

    async def run(self, tag: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        return await self._server.run(keys, arguments)

    async def servers(self) -> Sequence[tuple[str, Server]]:
        return ((self._name, self._server),)

    def close(self) -> None:
        self._server.close()


class Sentinels:
    """Where the master is (https://redis.io/docs/latest/develop/reference/sentinel-clients/): the first Sentinel
    that answers says it. Whether it is one, the connection to it says."""

    def __init__(self, sentinels: Sequence[Address], master: str, login: Login, times: Times) -> None:
        self._sentinels = list(sentinels)
        self._master = master
        self._login = login
        self._times = times

    async def find(self) -> Address:
        """Raises `WireError` when none of them knows."""
        why = "there is no Sentinel"
        for place, address in enumerate(self._sentinels):
            try:
                found = await self._ask(address)
            except (WireError, ReplyError) as error:
                why = f"Sentinel {error}"
                continue
            if found is None:
                why = f"Sentinel at {shown_address(address)} knows no master {self._master!r}"
                continue
            self._sentinels.insert(0, self._sentinels.pop(place))
            return found[0].decode(), int(found[1])
        raise WireError(why)

    async def _ask(self, address: Address) -> list[bytes] | None:
        wire, _ = await connect(
            address, self._login, timeout_s=self._times.connect_s, connect_timeout_s=self._times.connect_s
        )
        try:
            found: list[bytes] | None = await wire.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
            return found
        finally:
            wire.close()


class Cluster:
    """A Redis Cluster (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/). Its map is
    asked for at the start, and again when a node says that it has changed or does not answer."""

    apart = True

    def __init__(self, nodes: Sequence[Address], login: Login, times: Times, library: Library) -> None:
        self._first = tuple(nodes)
        self._login = login
        self._times = times
        self._library = library
        self._nodes: dict[Address, Server] = {}
        self._slots: dict[int, Address] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = float("-inf")

    async def run(self, tag: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        slot = crc_hqx(tag.encode(), 0) % SLOTS
        asked: Address | None = None
        for _ in range(REDIRECTIONS):
            address = asked or self._slots.get(slot)
            if address is None:
                await self._refresh()
                address = self._slots.get(slot)
            if address is None:
                raise WireError("no node of the Cluster has this slot")
            try:
                return await self._at(address).run(keys, arguments, asking=asked is not None)
            except WireError:
                self._soon()
                raise
            except ReplyError as error:
                asked = None
                if error.code == "MOVED":
                    self._slots[slot] = _redirected(error, address)
                    self._soon()
                elif error.code == "ASK":
                    asked = _redirected(error, address)
                else:
                    if error.code in ("READONLY", "CLUSTERDOWN"):
                        self._soon()
                    raise
        raise WireError("the nodes of the Cluster send us from one to the next")

    async def servers(self) -> Sequence[tuple[str, Server]]:
        if not self._slots:
            await self._refresh()
        return [(shown_address(node), self._at(node)) for node in sorted(set(self._slots.values()))]

    def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
        for server in self._nodes.values():
            server.close()

    def _at(self, address: Address) -> Server:
        server = self._nodes.get(address)
        if server is None:

            async def find() -> Address:
                return address

            server = self._nodes[address] = Server(find, self._login, self._times, self._library)
        return server

    def _soon(self) -> None:
        """Ask for the map; nobody waits for it."""
        if self._refreshing is None and _now() - self._refreshed_at >= REFRESH_S:
            self._begin()

    async def _refresh(self) -> None:
        if self._refreshing is None and _now() - self._refreshed_at < REFRESH_S:
            raise WireError("no node of the Cluster answers")
        refreshing = self._refreshing or self._begin()
        try:
            async with asyncio.timeout(self._times.answer_s):
                await asyncio.shield(refreshing)
        except TimeoutError:
            raise WireError("no node of the Cluster has answered yet") from None

    def _begin(self) -> asyncio.Task[None]:
        self._refreshed_at = _now()
        self._refreshing = asyncio.create_task(self._ask_for_map())
        self._refreshing.add_done_callback(self._ended)
        return self._refreshing

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # whoever waited has it; a refresh in passing is tried again

    async def _ask_for_map(self) -> None:
        known = dict.fromkeys((*self._slots.values(), *self._first))
        why: Exception = WireError("no node of the Cluster answers")
        for address in known:
            wire: Wire | None = None
            try:
                wire, _ = await connect(
                    address, self._login, timeout_s=self._times.connect_s, connect_timeout_s=self._times.connect_s
                )
                self._learn(await wire.call("CLUSTER", "SLOTS"), address)
            except (WireError, ReplyError) as error:
                why = error
            else:
                return
            finally:
                if wire is not None:
                    wire.close()
        raise why

    def _learn(self, ranges: Sequence[Any], asked: Address) -> None:
        """`[[first, last, [host, port, …] of the master, …], …]`. An empty host is the one that was asked."""
        slots: dict[int, Address] = {}
        for first, last, master, *_ in ranges:
            host = (master[0] or b"").decode() or asked[0]
            address = (asked[0] if host == "?" else host), int(master[1])
            slots.update(dict.fromkeys(range(first, last + 1), address))
        if not slots:
            raise WireError("the Cluster has no slots yet")
        self._slots = slots
        for address in set(self._nodes) - set(slots.values()):
            self._nodes.pop(address).close()


def _redirected(error: ReplyError, asked: Address) -> Address:
    """Where `MOVED slot host:port` or `ASK slot host:port` sends us."""
    host, _, port = str(error).split(" ")[2].rpartition(":")
    return host or asked[0], int(port)


def _now() -> float:
    return asyncio.get_running_loop().time()
