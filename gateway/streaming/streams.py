"""All streams of all organizations: one task each, begun and ended as definitions change; and how they are."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from gateway.audit.daily import glances
from gateway.audit.formats.context import Context
from gateway.clock import Clock
from gateway.streaming.batch import Batch, record
from gateway.streaming.sender import Sender, SendError
from gateway.streaming.stream import Log, Stream
from tenants.ids import OrgId
from tenants.store import StoreError
from tenants.streams import AuditStream, StreamBook, StreamPlace

log = logging.getLogger("orgate.streams")

LOOK_S: Final = 30.0
SOON_S: Final = 0.2
MEASURE_S: Final = 10.0
KIND: Final = "audit.stream_behind"
Name = tuple[OrgId, str]
Make = Callable[[AuditStream], Awaitable[Sender]]
"""The sender of a stream. Raises `SendError` when there can be none now."""


class StreamState(Struct, frozen=True):
    """How a stream is. `position`: all entries below it are with the receiver; `lag_entries` are not, and the
    oldest of them is `lag_s` seconds old. `state` is `sending`, `waiting` (an attempt failed) or `paused`."""

    name: str
    kind: str
    state: str
    position: int
    lag_entries: int
    lag_s: int
    delivered_at: int
    failing_since: int
    failure: str
    skipped: int
    rejected: int


class StreamTest(Struct, frozen=True):
    """What a test met."""

    ok: bool
    ms: float
    detail: str


class Shows(Protocol):
    """`ControlMetrics`, as far as it is used."""

    def show(self, name: str, value: float, *labels: str) -> None: ...
    def hide(self, name: str, *labels: str) -> None: ...
    def count_stream(self, org: OrgId, kind: str, entries: int) -> None: ...


class Tells(Protocol):
    """`Alarms.tell`."""

    async def __call__(self, org: OrgId, kind: str, key: str, data: dict[str, Any]) -> bool: ...


class Streams:
    """`await run()` beside the servers; `wake` when definitions may have changed. `behind_s`: from how many
    seconds of lag on an alarm is raised."""

    def __init__(
        self,
        book: StreamBook,
        entries: Log,
        make: Make,
        *,
        ctx: Context,
        clock: Clock,
        random: Callable[[], float],
        metrics: Shows,
        tell: Tells,
        behind_s: int,
    ) -> None:
        self._book = book
        self._entries = entries
        self._make = make
        self._ctx = ctx
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._tell = tell
        self._behind_s = behind_s
        self._changed = asyncio.Event()
        self._running: dict[Name, tuple[Stream, asyncio.Task[None]]] = {}
        self._oldest: dict[Name, tuple[int, int]] = {}  # (position, its time in ms)
        self._behind: dict[Name, bool] = {}  # behind for too long → whether the webhook knows
        self._shown: set[tuple[OrgId, str]] = set()

    def wake(self) -> None:
        """Look at the definitions soon. From the loop's own thread."""
        self._changed.set()

    async def run(self) -> None:
        """Send until cancelled."""
        measuring = asyncio.create_task(self._measure_on())
        try:
            while True:
                self._changed.clear()
                try:
                    await self.look()
                except StoreError as error:
                    log.warning("streams of audit logs stay as they are for now: %s", error)
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._changed.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(SOON_S)  # one look for many changes
        finally:
            measuring.cancel()
            tasks = [task for _, task in self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(measuring, *tasks, return_exceptions=True)
            self._running.clear()

    async def look(self) -> None:
        """Begin, end and begin anew what was made, deleted or changed. Errors: `StoreError`."""
        wanted = {(one.org, one.name): one for one in await self._book.all() if not one.paused}
        ended = []
        for name, (stream, task) in list(self._running.items()):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                log.error("stream '%s' of %s broke: %s", name[1], name[0], type(error).__name__, exc_info=error)
            if task.done() or wanted.get(name) != stream.stream:
                task.cancel()
                ended.append(task)
                del self._running[name]
        await asyncio.gather(*ended, return_exceptions=True)  # the next of a name begins where this one ended
        for name, definition in wanted.items():
            if name not in self._running:
                made = self._stream(definition)
                self._running[name] = made, asyncio.create_task(made.run())

    def _stream(self, definition: AuditStream) -> Stream:
        def count(entries: int) -> None:
            self._metrics.count_stream(definition.org, definition.kind.value, entries)

        return Stream(
            definition,
            self._entries,
            self._book,
            lambda: self._make(definition),
            ctx=self._ctx,
            now=lambda: self._clock.monotonic_us() / 1_000_000,
            clock=self._clock.now,
            random=self._random,
            count=count,
        )

    # -- how it goes ----------------------------------------------------------------------------------------

    async def states(self, definitions: tuple[AuditStream, ...]) -> list[StreamState]:
        """Of these, all of one organization. Errors: `StoreError`, OSError of a log that cannot be read."""
        if not definitions:
            return []
        places = {one.name: one for one in await self._book.places(definitions[0].org)}
        return [await self._state(one, places.get(one.name)) for one in definitions]

    async def _state(self, one: AuditStream, place: StreamPlace | None) -> StreamState:
        size = await self._entries.size(one.org)
        found = place if place is not None else StreamPlace(one.org, one.name, 0 if one.from_start else size)
        lag = max(size - found.position, 0)
        waiting = "waiting" if found.failure else "sending"
        return StreamState(
            name=one.name,
            kind=one.kind.value,
            state="paused" if one.paused else waiting,
            position=found.position,
            lag_entries=lag,
            lag_s=await self._age_s(one, found.position) if lag else 0,
            delivered_at=found.delivered_at,
            failing_since=found.failing_since,
            failure=found.failure,
            skipped=found.skipped,
            rejected=found.rejected,
        )

    async def _age_s(self, one: AuditStream, position: int) -> int:
        """Of the oldest entry that is not with the receiver: by when it happened."""
        name = (one.org, one.name)
        known = self._oldest.get(name)
        if known is None or known[0] != position:
            at_ms = int(self._clock.now() * 1000)
            async for piece in self._entries.raw(one.org, position, position + 1):
                at_ms = next(glances(piece)).at
                break
            known = self._oldest[name] = position, at_ms
        return max(int(self._clock.now() - known[1] / 1000), 0)

    async def _measure_on(self) -> None:
        while True:
            await asyncio.sleep(MEASURE_S)
            try:
                await self.measure()
            except Exception as error:  # noqa: BLE001  # whatever it is, streams go on, and the next look may know
                log.warning("how far streams are behind is not known for now: %s", type(error).__name__)

    async def measure(self) -> None:
        """Show how far behind they are, for each organization and kind together; and tell of what is behind for
        too long, once until it has caught up. Errors as `states`."""
        by_org: defaultdict[OrgId, list[AuditStream]] = defaultdict(list)
        for one in await self._book.all():
            by_org[one.org].append(one)
        sums: dict[tuple[OrgId, str], tuple[int, int]] = {}
        for org, definitions in by_org.items():
            for state in await self.states(tuple(definitions)):
                entries, seconds = sums.get((org, state.kind), (0, 0))
                sums[org, state.kind] = entries + state.lag_entries, max(seconds, state.lag_s)
                await self._judge(org, state)
        for labels in self._shown - set(sums):
            self._metrics.hide("orgate_audit_stream_lag_entries", *labels)
            self._metrics.hide("orgate_audit_stream_lag_seconds", *labels)
        for labels, (entries, seconds) in sums.items():
            self._metrics.show("orgate_audit_stream_lag_entries", entries, *labels)
            self._metrics.show("orgate_audit_stream_lag_seconds", seconds, *labels)
        self._shown = set(sums)
        living = {(one.org, one.name) for definitions in by_org.values() for one in definitions}
        self._behind = {name: told for name, told in self._behind.items() if name in living}
        self._oldest = {name: known for name, known in self._oldest.items() if name in living}

    async def _judge(self, org: OrgId, state: StreamState) -> None:
        name = (org, state.name)
        if state.state == "paused" or state.lag_s < self._behind_s:
            if self._behind.pop(name, None) is not None:
                log.info("stream '%s' of %s has caught up", state.name, org)
            return
        if name not in self._behind:
            self._behind[name] = False
            why = state.failure or "the receiver is slow"
            log.error("stream '%s' of %s is %d s behind: %s", state.name, org, state.lag_s, why)
        if not self._behind[name]:
            data = {
                "stream": state.name,
                "lag_entries": state.lag_entries,
                "lag_s": state.lag_s,
                "failure": state.failure,
                "text": f"The stream '{state.name}' is {state.lag_s} s behind the audit log"
                + (f": {state.failure}." if state.failure else "."),
            }
            self._behind[name] = await self._tell(org, KIND, f"{state.name}\0{state.position}", data)

    async def test(self, one: AuditStream) -> StreamTest:
        """Send one entry that is none, and say what it met."""
        begun = self._clock.monotonic_us()
        made = {
            "@timestamp": int(self._clock.now() * 1000),
            "_document_id": f"test-{begun}",
            "action": "audit_stream.test",
            "actor": "system",
            "index": 0,
            "operation_type": "access",
            "org": one.org,
            "target": one.name,
        }
        batch = Batch([record(msgspec.json.encode(made, order="sorted"), one.format, self._ctx)])
        sender: Sender | None = None
        try:
            sender = await self._make(one)
            rejected = await sender.send(batch)
            if not sender.certain:
                await asyncio.sleep(SOON_S)
                if not await sender.alive():
                    raise SendError("the receiver closed the connection")
        except SendError as error:
            return StreamTest(False, self._since(begun), str(error))
        finally:
            if sender is not None:
                await sender.aclose()
        detail = "the receiver did not want it" if rejected else "the receiver took it"
        return StreamTest(not rejected, self._since(begun), detail)

    def _since(self, begun_us: int) -> float:
        return (self._clock.monotonic_us() - begun_us) / 1000
