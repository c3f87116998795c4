"""Reads what proves entries: tiles, leaf hashes, proofs, and where an entry is that somebody knows by its id.

For the admin API, in the sequencer's process. All of it is about trees whose checkpoint was saved: nothing here
makes one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from typing import TypeVar

from gateway.audit.log import Proved
from gateway.audit.orglog import OrgLog
from gateway.audit.proofs import consistency, inclusion
from gateway.audit.sequencer import Sequencer
from gateway.audit.tiles import Address
from gateway.errors import UnavailableError
from tenants.ids import OrgId

LOOK_BACK = 65_536
"""Entries that one search for an id looks at, the newest first."""
PIECE_TILES = 32
ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""What a document's or a request's id is made of: it stands in a line as it is."""

T = TypeVar("T")


class TreeReader:
    """Implements `AuditTree`."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer

    async def proven_size(self, org: OrgId) -> int:
        log = await self._log(org)
        return min(log.signed_size, log.tiles.size)

    async def tile(self, org: OrgId, at: Address) -> bytes | None:
        log, size = await self._log(org), await self.proven_size(org)
        return await _thread(lambda: log.tiles.read(at, size))

    async def leaves(self, org: OrgId, start: int, end: int) -> AsyncIterator[bytes]:
        pieces = (await self._log(org)).tiles.leaves(start, end)
        while piece := await _thread(lambda: b"".join(islice(pieces, PIECE_TILES))):
            yield piece

    async def inclusion(self, org: OrgId, index: int, size: int) -> Proved | None:
        log = await self._log(org)

        def prove() -> Proved | None:
            line = next(log.lines(index, index + 1), b"") if index >= log.store.begin else b""
            return Proved(line[:-1], inclusion(log.tiles, index, size)) if line else None

        return await _thread(prove)

    async def consistency(self, org: OrgId, old: int, new: int) -> list[bytes]:
        log = await self._log(org)
        return await _thread(lambda: consistency(log.tiles, old, new))

    async def find(self, org: OrgId, wanted: str, before: int | None) -> tuple[int | None, int]:
        log = await self._log(org)
        end = min(before if before is not None else log.size, log.size)
        start = max(end - LOOK_BACK, log.store.begin)
        found = await _thread(lambda: _last(log.lines(start, end), wanted))
        return (None if found is None else start + found), start if start > log.store.begin else 0

    async def _log(self, org: OrgId) -> OrgLog:
        return (await self._sequencer.opened(org)).log


def _last(lines: Iterator[bytes], wanted: str) -> int | None:
    spelt = f':"{wanted}"'.encode()
    named = [b'"_document_id"' + spelt, b'"request_id"' + spelt]
    places = [at for at, line in enumerate(lines) if spelt in line and any(name in line for name in named)]
    return places[-1] if places else None


async def _thread(call: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(call)
    except OSError as error:
        reason = error.strerror or "input/output error"
        raise UnavailableError(f"the audit log's tree cannot be read now: {reason}", retry_after_s=5) from error
