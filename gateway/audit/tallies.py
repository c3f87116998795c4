"""What workers count of each day, kept by the control process so that it outlives both of them.

A worker says with every report, once a second and once more as its last word, what it has counted of each day
since it began: a state, not an increment. It is written down every `SAVE_S`, and at once when it is a last word.
Crash in between: a worker that lives says it again; one that ended in these seconds counts as lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

from tenants.auditdays import AuditDays, Tally
from tenants.ids import InvalidIdError, OrgId, org_id
from tenants.store import StoreError

log = logging.getLogger(__name__)

SAVE_S: Final = 10.0
GONE_S: Final = 10.0
"""A worker that has not reported for so long is not there any more: ten of its reports."""

Counted = tuple[OrgId, int, int, int, int, int]
"""Organization, day, and of that day requests, prompt tokens, completion tokens and nanodollars."""


class Tallies:
    """`clock`: Unix seconds. `await run()` beside the servers, `save` when everything has to be written down."""

    def __init__(self, days: AuditDays, clock: Callable[[], float]) -> None:
        self._days = days
        self._clock = clock
        self._fresh: dict[tuple[OrgId, int, str], Tally] = {}
        self._said: dict[tuple[OrgId, int, str], Counted] = {}
        self._heard: dict[str, float] = {}
        self._last_word = asyncio.Event()
        self._turn = asyncio.Lock()

    def take(self, boot: str, counted: Iterable[Counted], *, last: bool = False) -> None:
        """A report of the worker's boot `boot`; `last`: it is about to end, and has settled everything."""
        now = self._clock()
        self._heard[boot] = now
        for one in counted:
            key = (one[0], one[1], boot)
            if (self._said.get(key) == one and not last) or not _known(one[0]):
                continue
            self._said[key] = one
            self._fresh[key] = Tally(one[0], one[1], boot, *one[2:], at=int(now), ended=last)
        if last:
            self._heard.pop(boot, None)
            self._said = {key: one for key, one in self._said.items() if key[2] != boot}
            self._last_word.set()

    def alive(self) -> Collection[str]:
        """The boots that report."""
        oldest = self._clock() - GONE_S
        return {boot for boot, heard in self._heard.items() if heard >= oldest}

    async def save(self) -> None:
        """Write down what is not yet. Errors: `StoreError`; then it is still to be written."""
        async with self._turn:
            fresh, self._fresh = self._fresh, {}
            try:
                if fresh:
                    await self._days.put(tuple(fresh.values()))
            except BaseException:
                self._fresh = {**fresh, **self._fresh}
                raise
        living = self.alive()
        self._heard = {boot: heard for boot, heard in self._heard.items() if boot in living}
        self._said = {key: one for key, one in self._said.items() if key[2] in living}

    async def run(self) -> None:
        """Write down until cancelled, and then once more."""
        try:
            while True:
                self._last_word.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SAVE_S):
                        await self._last_word.wait()
                await self._try_to_save()
        finally:
            await self._try_to_save()

    async def _try_to_save(self) -> None:
        try:
            await self.save()
        except StoreError as error:
            log.warning("audit: what workers counted is not written down for now: %s", error)


def _known(org: str) -> bool:
    """Whether it can have a log: what never said who it was is in nobody's."""
    try:
        org_id(org)
    except InvalidIdError:
        return False
    return True
