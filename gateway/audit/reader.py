"""Reads the logs for the admin API: pages with filters, waiting for news, raw lines for an export.

Only durable bytes are read: what `OrgLog.durable` says, looked at once per call.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Set
from itertools import islice

from gateway.audit.files import Durable, OrgLog
from gateway.audit.persons import Persons
from gateway.audit.sequencer import Sequencer
from tenants.ids import PLATFORM, OrgId

STRIDE = 256
"""Entries between two remembered offsets of a segment."""
SCAN_MAX = 20_000
"""Entries looked at in one call: a filter that matches little answers with what it has and where to go on."""
PIECE_BYTES = 256 * 1024

Wanted = Callable[[Mapping[str, object]], bool]


class LogReader:
    """Implements `AuditReader` over the sequencer's logs, in the same process. `people` says who stands behind the
    pseudonyms in them; without it they are shown as they are."""

    def __init__(self, sequencer: Sequencer, people: Persons | None = None) -> None:
        self._sequencer = sequencer
        self._people = people
        self._offsets: dict[tuple[OrgId, int], list[int]] = {}
        self._learning = threading.Lock()

    async def entries(
        self,
        org: OrgId,
        *,
        after: int = 0,
        limit: int = 100,
        action: str = "",
        actor: str = "",
        outcome: str = "",
        model: str = "",
        client: str = "",
        since: int = 0,
        until: int = 0,
    ) -> tuple[list[Mapping[str, object]], int]:
        files = (await self._sequencer.opened(org)).files
        actors = await self._actors(org, actor)
        same = (("action", action), ("outcome", outcome), ("model", model), ("client", client))
        exact = [(field, value) for field, value in same if value]

        def wanted(entry: Mapping[str, object]) -> bool:
            at = entry["@timestamp"]
            return (
                all(entry.get(field) == value for field, value in exact)
                and (not actor or (entry.get("actor_org", org), entry["actor"]) in actors)
                and isinstance(at, int)
                and since <= at
                and (not until or at < until)
            )

        found, at = await asyncio.to_thread(self._scan, files, max(after, 0), max(limit, 1), wanted)
        return (found if self._people is None else await self._people.show(org, found)), at

    async def _actors(self, org: OrgId, actor: str) -> Set[tuple[object, object]]:
        """Organization and name that an entry of `actor` may have in the log of `org`."""
        if not actor or self._people is None:
            return {(org, actor), (PLATFORM, actor)}
        return await self._people.named(org, actor)

    async def size(self, org: OrgId) -> int:
        """How many entries are durable."""
        return (await self._sequencer.opened(org)).files.durable.size

    async def wait(self, org: OrgId, after: int, timeout_s: float) -> bool:
        """Whether entry `after` exists, waiting up to `timeout_s` for it."""
        state = await self._sequencer.opened(org)
        try:
            async with asyncio.timeout(timeout_s):
                while state.files.durable.size <= after:
                    await state.grown.wait()
        except TimeoutError:
            return False
        return True

    async def checkpoint(self, org: OrgId) -> str:
        return (await self._sequencer.opened(org)).files.checkpoint()

    def verifier_key(self, org: OrgId) -> str:
        return str(self._sequencer.signer.key(org))

    async def raw(self, org: OrgId, start: int, end: int) -> AsyncIterator[bytes]:
        """The lines of entries [start, end); ends early where the log does."""
        files = (await self._sequencer.opened(org)).files
        lines = self._lines(files, max(start, 0), end)
        while piece := await asyncio.to_thread(_piece, lines):
            yield piece

    # -- in a thread ----------------------------------------------------------------------------------------

    def _scan(
        self, files: OrgLog, after: int, limit: int, wanted: Wanted
    ) -> tuple[list[Mapping[str, object]], int]:
        found: list[Mapping[str, object]] = []
        at = after
        for line in self._lines(files, after, after + SCAN_MAX):
            entry = json.loads(line)
            at += 1
            if wanted(entry):
                found.append(entry)
                if len(found) == limit:
                    break
        return found, at

    def _lines(self, files: OrgLog, start: int, end: int) -> Iterator[bytes]:
        """Lines [start, end) with their newlines, as far as they are durable at the first step."""
        durable = files.durable
        end = min(end, durable.size)
        at = start
        while at < end:
            segment = _segment_of(files, durable, at)
            last = durable.size if segment == durable.segment else files.firsts[segment + 1]
            with files.path(segment).open("rb") as file:
                index = self._seek(files, segment, at)
                file.seek(index[1])
                for _ in islice(file, at - index[0]):
                    pass
                for line in islice(file, min(end, last) - at):
                    at += 1
                    yield line

    def _seek(self, files: OrgLog, segment: int, index: int) -> tuple[int, int]:
        """A place at or shortly before entry `index` of a segment: (its index, its offset).

        The offsets of a segment are learnt when they are first asked for, and go on from there.
        """
        first = files.firsts[segment]
        slot = (index - first) // STRIDE
        with self._learning:
            known = self._offsets.setdefault((files.org, segment), [0])
            if slot < len(known):
                return first + slot * STRIDE, known[slot]
            with files.path(segment).open("rb") as file:
                offset = known[-1]
                file.seek(offset)
                while len(known) <= slot:
                    offset += sum(map(len, islice(file, STRIDE)))
                    known.append(offset)
            return first + slot * STRIDE, known[slot]


def _segment_of(files: OrgLog, durable: Durable, index: int) -> int:
    segment = durable.segment
    while segment and files.firsts[segment] > index:
        segment -= 1
    return segment


def _piece(lines: Iterator[bytes]) -> bytes:
    taken: list[bytes] = []
    size = 0
    for line in lines:
        taken.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            break
    return b"".join(taken)
