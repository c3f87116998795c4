"""The control process's end of the bus: what every worker should know, and which of them know it.

Knows no framework and no socket: `attach` yields bytes, the caller carries them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Literal

import msgspec
from msgspec import Struct

from gateway.bus.messages import BEAT_S, TOUCH_S, Beat, DeltaDown, Down, ResetDown
from gateway.clock import Clock
from tenants.ids import OrgId
from tenants.snapshot import Delta, Snapshot

BACKLOG = 256
"""Lines a worker may be behind. One that is further behind is let go, and begins again with the whole."""


class WorkerStatus(Struct, frozen=True):
    """One attached worker. `version` is what it acknowledged; `attached_s` how long its stream has been open."""

    worker: str
    version: int
    state: Literal["live", "behind", "fenced"]
    attached_s: float


class _Link:
    """One worker's open stream. Owned by the hub's loop."""

    __slots__ = ("acked", "arrived", "at_us", "closed", "fenced", "lines", "worker")

    def __init__(self, worker: str, at_us: int) -> None:
        self.worker = worker
        self.at_us = at_us
        self.acked = -1
        self.fenced = False
        self.closed = False
        self.lines: deque[bytes] = deque()
        self.arrived = asyncio.Event()

    def push(self, line: bytes) -> None:
        if len(self.lines) >= BACKLOG:
            self.close()
        elif not self.closed:
            self.lines.append(line)
            self.arrived.set()

    def close(self) -> None:
        self.closed = True
        self.lines.clear()
        self.arrived.set()


class Hub:
    """Holds the current snapshot and passes every change to every worker, in order, at least once.

    Not durable: after a restart the publisher reads the store again and workers begin with the whole. One
    loop's own. Memory per worker is bounded by `BACKLOG` lines. Trusted: whoever can call `publish` decides
    who is let in everywhere.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._snapshot = Snapshot()
        self._published = asyncio.Event()
        self._full = b""
        self._links: dict[str, _Link] = {}
        self._changed = asyncio.Event()
        self._on_leave: list[Callable[[str], None]] = []

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    def on_leave(self, callback: Callable[[str], None]) -> None:
        """Call `callback(worker)` whenever a worker's stream has ended and no newer one took its place."""
        self._on_leave.append(callback)

    def publish(self, delta: Delta) -> None:
        """Make `delta` the current state and send it to every worker."""
        same_version = delta.version == self._snapshot.version
        self._snapshot = self._snapshot.apply(delta)
        self._full = b""
        self._published.set()
        line = _line(DeltaDown(delta))
        for link in list(self._links.values()):
            if same_version:
                # New signing keys do not raise the store's version; they must be acknowledged all the same.
                link.acked = min(link.acked, delta.version - 1)
            link.push(line)
        self._wake()

    def reset(self, org: OrgId, member: str = "") -> None:
        """Tell every worker to end what `org`, or one `member` of it, has in flight."""
        line = _line(ResetDown(org, member))
        for link in list(self._links.values()):
            link.push(line)

    async def attach(self, worker: str) -> AsyncGenerator[bytes, None]:
        """The lines for one worker, until it is let go. Close the generator when the worker goes away.

        A second stream of the same worker ends the first one. Nothing is sent before the first `publish`:
        a worker would take an empty world for the truth.
        """
        link = _Link(worker, self._clock.monotonic_us())
        if (earlier := self._links.get(worker)) is not None:
            earlier.close()
        self._links[worker] = link
        try:
            await self._published.wait()
            if not link.closed:
                link.lines.clear()  # what came since is in the whole
                link.arrived.clear()
                yield self._whole()
            while not link.closed:
                if line := await self._next(link):
                    yield line
        finally:
            # A worker that was let go without having gone (a stalled one) is told apart by nothing here: its
            # slots are given up for it, and it declares what it holds when it attaches again.
            if self._links.get(worker) is link:
                del self._links[worker]
                for callback in self._on_leave:
                    callback(worker)
            self._wake()

    def ack(self, worker: str, version: int) -> bool:
        """`worker` serves `version` now. False: no such worker is attached (it should attach again)."""
        link = self._links.get(worker)
        if link is None:
            return False
        link.acked = max(link.acked, version)
        self._wake()
        return True

    async def live(self, version: int, timeout: float = TOUCH_S) -> tuple[str, ...]:
        """Wait until every attached worker serves `version`; returns the workers that were fenced instead.

        A worker that has not acknowledged within `timeout` seconds is fenced: its stream is ended, so that it
        finds itself out of touch and stops accepting until it has read the store itself.
        """
        try:
            async with asyncio.timeout(timeout):
                while self._behind(version):
                    await self._changed.wait()
        except TimeoutError:
            late = self._behind(version)
            for link in late:
                link.fenced = True
                link.close()
            return tuple(link.worker for link in late)
        return ()

    def workers(self) -> tuple[WorkerStatus, ...]:
        now, current = self._clock.monotonic_us(), self._snapshot.version
        return tuple(
            WorkerStatus(
                worker=link.worker,
                version=link.acked,
                state="fenced" if link.fenced else "live" if link.acked >= current else "behind",
                attached_s=(now - link.at_us) / 1e6,
            )
            for link in self._links.values()
        )

    def close(self) -> None:
        """End every stream."""
        self._published.set()
        for link in self._links.values():
            link.close()

    def _behind(self, version: int) -> list[_Link]:
        return [link for link in self._links.values() if link.acked < version and not link.fenced]

    def _whole(self) -> bytes:
        if not self._full:
            now = self._snapshot
            records = tuple(now.records.values())
            delta = Delta(now.version, full=True, orgs=records, revocations=now.revocations, jwks=now.jwks)
            self._full = _line(DeltaDown(delta))
        return self._full

    async def _next(self, link: _Link) -> bytes:
        """What has piled up for `link`, in one piece; a beat when nothing has for `BEAT_S`."""
        try:
            async with asyncio.timeout(BEAT_S):
                await link.arrived.wait()
        except TimeoutError:
            return _line(Beat(self._snapshot.version))
        lines = b"".join(link.lines)
        link.lines.clear()
        link.arrived.clear()
        return lines

    def _wake(self) -> None:
        """Let everyone in `live` look again."""
        self._changed.set()
        self._changed = asyncio.Event()


def _line(message: Down) -> bytes:
    return msgspec.json.encode(message) + b"\n"
