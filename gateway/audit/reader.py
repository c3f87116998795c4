"""Reads the logs for the admin API: pages with filters, waiting for news, raw lines for an export.

Only durable lines are read: as many as `OrgLog.size` says, looked at once per call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Set

from gateway.audit.orglog import OrgLog
from gateway.audit.persons import Persons
from gateway.audit.selection import Selection, Wanted, facts
from gateway.audit.sequencer import Sequencer
from gateway.audit.tree_reader import TreeReader
from tenants.ids import PLATFORM, OrgId

SCAN_MAX = 20_000
"""Entries looked at in one call: a filter that matches little answers with what it has and where to go on."""
PIECE_BYTES = 256 * 1024


class LogReader:
    """Implements `AuditReader` over the sequencer's logs, in the same process. `people` says who stands behind the
    pseudonyms in them; without it they are shown as they are."""

    def __init__(self, sequencer: Sequencer, people: Persons | None = None) -> None:
        self._sequencer = sequencer
        self._people = people
        self.tree = TreeReader(sequencer)

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
        log = (await self._sequencer.opened(org)).log
        chosen = Selection(
            action=action, actor=actor, outcome=outcome, model=model, client=client, since=since, until=until
        )
        wanted = await self._matcher(org, chosen)
        found, at = await asyncio.to_thread(self._scan, log, max(after, 0), max(limit, 1), wanted)
        return (found if self._people is None else await self._people.show(org, found)), at

    async def _matcher(self, org: OrgId, chosen: Selection) -> Wanted:
        return chosen.matcher(org, await self.actors(org, chosen.actor))

    async def actors(self, org: OrgId, actor: str) -> Set[tuple[object, object]]:
        """Organization and name that an entry of `actor` may have in the log of `org`."""
        named = [one for one in actor.split(",") if one]
        if self._people is None:
            return {(at, one) for one in named for at in (org, PLATFORM)}
        found: set[tuple[object, object]] = set()
        for one in named:
            found |= await self._people.named(org, one)
        return found

    async def size(self, org: OrgId) -> int:
        """How many entries are durable."""
        return (await self._sequencer.opened(org)).log.size

    async def range(self, org: OrgId) -> tuple[int, int]:
        log = (await self._sequencer.opened(org)).log
        return log.store.begin, log.size

    async def wait(self, org: OrgId, after: int, timeout_s: float) -> bool:
        """Whether entry `after` exists, waiting up to `timeout_s` for it."""
        state = await self._sequencer.opened(org)
        try:
            async with asyncio.timeout(timeout_s):
                while state.log.size <= after:
                    await state.grown.wait()
        except TimeoutError:
            return False
        return True

    async def checkpoint(self, org: OrgId) -> str:
        return await self._sequencer.checkpoint(org)

    def verifier_key(self, org: OrgId) -> str:
        return str(self._sequencer.signer.key(org))

    async def raw(self, org: OrgId, start: int, end: int) -> AsyncIterator[bytes]:
        """The lines of entries [start, end); ends early where the log does."""
        lines = (await self._sequencer.opened(org)).log.lines(max(start, 0), end)
        while piece := await asyncio.to_thread(_piece, lines):
            yield piece

    async def matching(self, org: OrgId, chosen: Selection, start: int, end: int) -> AsyncIterator[bytes]:
        """The lines of those of the entries [start, end) that match. An empty piece: none of SCAN_MAX did."""
        lines = (await self._sequencer.opened(org)).log.lines(max(start, 0), end)
        wanted = await self._matcher(org, chosen)
        while (piece := await asyncio.to_thread(_matching, lines, wanted)) is not None:
            yield piece

    # -- in a thread ----------------------------------------------------------------------------------------

    def _scan(self, log: OrgLog, after: int, limit: int, wanted: Wanted) -> tuple[list[Mapping[str, object]], int]:
        found: list[Mapping[str, object]] = []
        at = after = max(after, min(log.store.begin, log.size))
        for line in log.lines(after, after + SCAN_MAX):
            at += 1
            if wanted(facts(line)):
                found.append(json.loads(line))
                if len(found) == limit:
                    break
        return found, at


def _piece(lines: Iterator[bytes]) -> bytes:
    taken: list[bytes] = []
    size = 0
    for line in lines:
        taken.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            break
    return b"".join(taken)


def _matching(lines: Iterator[bytes], wanted: Wanted) -> bytes | None:
    """The next piece of those that match; None at the end."""
    taken: list[bytes] = []
    size = looked = 0
    for line in lines:
        looked += 1
        if wanted(facts(line)):
            taken.append(line)
            size += len(line)
        if size >= PIECE_BYTES or looked >= SCAN_MAX:
            break
    return b"".join(taken) if looked else None
