"""Reconciles a day of an organization: fetches what `gateway.audit.reconcile` judges."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from gateway.audit.daily import DAY_MS, Lines
from gateway.audit.reconcile import (
    DaySums,
    Reconciliation,
    WindowSums,
    WorkerState,
    budget,
    day_bounds_s,
    judge,
    workers,
)
from gateway.audit.tallies import Tallies
from tenants.auditdays import AuditDays
from tenants.ids import OrgId

SETTLED_S: Final = 600
"""After midnight, before a day is judged: nearly all that began on it has ended, and is an entry."""

LOOKS: Final = 3
LOOK_S: Final = 2.0
"""What lives reports once a second, and its entries follow within a second: a difference that is gone at the next
look was none."""

KEPT_DAYS: Final = 40
"""Tallies of so many days are kept: the longest budget's window, and some."""


class Reconciles(Protocol):
    """`Reconciler`, as the admin API uses it."""

    async def reconcile(self, org: OrgId, day: int) -> Reconciliation:
        """Errors: `tenants.store.StoreError`, OSError of a log that cannot be read."""


class Reconciler:
    """`day_text` spells a day. `clock`: Unix seconds. `shared`: other gateways draw from the same budgets."""

    def __init__(
        self,
        lines: Lines,
        days: AuditDays,
        tallies: Tallies,
        *,
        clock: Callable[[], float],
        day_text: Callable[[int], str],
        shared: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._lines = lines
        self._days = days
        self._tallies = tallies
        self._clock = clock
        self._day_text = day_text
        self._shared = shared
        self._sleep = sleep

    def over(self, day: int) -> bool:
        """Whether `day` is to be judged."""
        return self._clock() >= day_bounds_s(day)[1] + SETTLED_S

    async def served(self, org: OrgId, day: int) -> bool:
        """Whether any worker counted a request of that day. Errors: `tenants.store.StoreError`."""
        await self._tallies.save()
        return bool(await self._days.tallies(org, day, day))

    async def reconcile(self, org: OrgId, day: int) -> Reconciliation:
        """As `Reconciles` says. Looks again where a worker that lives and the log differ, and in all of the log
        before it says that something is missing."""
        for _ in range(LOOKS - 1):
            found = await self._look(org, day)
            if found.ok:
                return found
            if any(one.state is WorkerState.ALIVE and not one.agrees for one in found.workers):
                await self._sleep(LOOK_S)
        return await self._look(org, day, whole=True)

    async def _look(self, org: OrgId, day: int, *, whole: bool = False) -> Reconciliation:
        # First what was counted, then the log: what is counted in between has its entry in what is read.
        await self._tallies.save()
        alive = self._tallies.alive()
        tallies = await self._days.tallies(org, day - KEPT_DAYS, day)
        windows = [WindowSums(use) for use in await self._days.ended(org, *day_bounds_s(day))]
        sums = DaySums(day)
        await self._read(org, day, [sums, *windows], whole=whole)
        found = workers(sums.boots(), [one for one in tallies if one.day == day], alive)
        lost_on = {one.day for one in tallies if not one.ended and one.boot not in alive}
        if any(one.state is WorkerState.LOST for one in found):
            lost_on.add(day)
        budgets = tuple(
            budget(one, lost=any(_within(day, one) for day in lost_on), shared=self._shared)
            for one in windows
            if one.use.used or one.most
        )
        return judge(org, self._day_text(day), found, budgets, unknown=sums.unknown, over=self.over(day))

    async def _read(self, org: OrgId, day: int, sums: Sequence[DaySums | WindowSums], *, whole: bool) -> None:
        first = min([day, *(one.use.starts_s * 1000 // DAY_MS for one in sums if isinstance(one, WindowSums))])
        start, _ = await self._days.around(org, first)
        # What is behind the count of two days later was in the spool of a worker that was away for so long.
        _, end = await self._days.around(org, day + 1)
        size = await self._lines.size(org)
        end = size if end is None or whole else min(end, size)

        def feed(lines: bytes) -> None:
            for one in sums:
                one.feed(lines)

        async for piece in self._lines.raw(org, start if start <= size else 0, end):
            await asyncio.to_thread(feed, piece)


def _within(day: int, window: WindowSums) -> bool:
    begin, end = day_bounds_s(day)
    return begin < window.use.ends_s and end > window.use.starts_s
