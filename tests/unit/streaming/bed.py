"""A log, a control store, and streams of the log to wherever a test wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from msgspec import structs

from gateway.audit.formats.context import Context
from gateway.audit.reader import LogReader
from gateway.audit.sequencer import Sequencer
from gateway.clock import SystemClock
from gateway.secret import Secret
from gateway.secrets.sealed import SealedFile, SealedStreams
from gateway.streaming.parts import Senders
from gateway.streaming.streams import Streams
from tenants.ids import OrgId
from tenants.models import Org
from tenants.sql.store import SqlControlStore
from tenants.store import Actor
from tenants.streams import FORMATS, AuditStream, StreamKind, StreamPlace
from tests.contract.control_store import new_store
from tests.fakes.audit import ACME, GLOBEX, SIGNER, up
from tests.kit.wait import eventually

LOOPBACK = (ip_network("127.0.0.0/8"),)
BY = Actor(ACME, "mem_1")


class Metrics:
    """`ControlMetrics`, as far as streams use it."""

    def __init__(self) -> None:
        self.gauges: dict[tuple[str, tuple[str, ...]], float] = {}
        self.entries: dict[tuple[str, str], int] = {}
        self.failures = 0

    def show(self, name: str, value: float, *labels: str) -> None:
        self.gauges[name, labels] = value

    def hide(self, name: str, *labels: str) -> None:
        del self.gauges[name, labels]

    def count_stream(self, org: OrgId, kind: str, entries: int) -> None:
        self.entries[org, kind] = self.entries.get((org, kind), 0) + entries
        self.failures += not entries


class Bed:
    def __init__(self, store: SqlControlStore, folder: Path) -> None:
        self.store = store
        self.clock = SystemClock()
        self.sequencer = Sequencer(folder / "audit", SIGNER)
        self.reader = LogReader(self.sequencer)
        self.secrets = SealedStreams(SealedFile(folder / "secrets.sealed", Secret(b"k" * 32)))
        self.metrics = Metrics()
        self.told: list[tuple[str, str, str, dict[str, Any]]] = []
        self.hears = True
        self.ctx = Context(host="gateway.example")
        self.streams = self.begin()
        self._running: asyncio.Task[None] | None = None
        self._boots = 0

    def begin(self, *, behind_s: int = 900) -> Streams:
        """Streams as a control process that has just started makes them."""
        senders = Senders(self.secrets, self.ctx, self.clock, allowed=LOOPBACK)
        return Streams(
            self.store.streams,
            self.reader,
            senders.make,
            ctx=self.ctx,
            clock=self.clock,
            random=lambda: 1.0,
            metrics=self.metrics,
            tell=self._tell,
            behind_s=behind_s,
        )

    async def _tell(self, org: OrgId, kind: str, key: str, data: dict[str, Any]) -> bool:
        self.told.append((org, kind, key, data))
        return self.hears

    def run(self) -> None:
        self._running = asyncio.create_task(self.streams.run())
        self.store.subscribe(self.streams.wake)

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    async def kill(self) -> None:
        """End it as kill -9 would as far as what is stored goes, and begin anew."""
        await self.stop()
        self.streams = self.begin()

    async def add(
        self, kind: StreamKind, url: str, *, org: OrgId = ACME, secret: str = "", **more: Any
    ) -> AuditStream:
        fields = {"name": "siem", "format": FORMATS[kind][0], "from_start": True, **more}
        repository = self.store.for_org(org).audit_streams
        made = await repository.create(AuditStream(org=org, kind=kind, url=url, **fields), BY)
        if secret:
            await self.secrets.put(org, made.name, Secret(secret))
            made = await self.change(made, secret_version=1)
        return made

    async def change(self, stream: AuditStream, **changes: object) -> AuditStream:
        repository = self.store.for_org(stream.org).audit_streams
        current = await repository.get(stream.name)
        return await repository.replace(structs.replace(current, **changes), current.version, BY)

    async def log(self, count: int, *, org: OrgId = ACME) -> None:
        """So many entries more."""
        self._boots += 1
        await self.sequencer.append_receipts(up(f"{self._boots:032}", *range(1, count + 1), org=org))

    async def place(self, org: OrgId = ACME, name: str = "siem") -> StreamPlace:
        found = await self.store.streams.place(org, name)
        return found if found is not None else StreamPlace(org, name, -1)

    async def reached(self, position: int, org: OrgId = ACME, name: str = "siem") -> None:
        """Until the receiver is known to have all below `position`."""
        here = [-1]

        async def look() -> None:
            while here[0] < position:
                here[0] = (await self.place(org, name)).position
                await asyncio.sleep(0.02)

        task = asyncio.create_task(look())
        try:
            await eventually(lambda: here[0] >= position, f"the stream is at {position}, not {here[0]}", 60)
        finally:
            task.cancel()

    async def failing(self, words: str, org: OrgId = ACME) -> StreamPlace:
        """Until the stream says so."""
        found = await self.place(org)
        async with asyncio.timeout(60):
            while words not in found.failure:
                await asyncio.sleep(0.02)
                found = await self.place(org)
        return found


@asynccontextmanager
async def open_bed(folder: Path) -> AsyncIterator[Bed]:
    store = await new_store(folder / "control.db")
    for org in (ACME, GLOBEX):
        await store.orgs.create(Org(id=org, name=org), BY)
    bed = Bed(store, folder)
    try:
        yield bed
    finally:
        await bed.stop()
        await bed.sequencer.close()
        await store.close()
