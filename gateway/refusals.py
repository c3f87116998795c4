"""Requests that were refused before anybody knew whose they were, as entries of the platform's log: one a minute.

A worker says with every report what it counted in each of the last minutes: a state, not an increment. When a
minute is over, and workers have had time to say so, it is written down. Crash of the control process: the workers
say it again, and what was taken is known. Crash of a worker: what it counted since its last report is lost, a
second or two.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from tenants.refusals import Counts, Refusals
from tenants.store import StoreError

ROUND_S: Final = 5.0
GRACE_S: Final = 5.0
"""How long after its end a minute is waited for: a few reports."""
FORGET_MINUTES: Final = 120

Refused = tuple[int, int, str, int]
"""Minute since 1970-01-01, status, code, and how many."""


class RefusalLog:
    """`clock`: Unix seconds. `await run()` beside the servers."""

    def __init__(self, store: Refusals, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._heard: dict[int, dict[str, Counts]] = {}
        self._done: set[tuple[int, str]] = set()

    def take(self, boot: str, refused: Iterable[Refused]) -> None:
        """A report of the worker's boot `boot`."""
        minutes: defaultdict[int, dict[str, int]] = defaultdict(dict)
        for minute, status, code, count in refused:
            if (minute, boot) not in self._done:
                minutes[minute][f"{status}.{code}"] = count
        for minute, counts in minutes.items():
            self._heard.setdefault(minute, {})[boot] = counts

    async def round(self, *, last: bool = False) -> None:
        """Write down the minutes that are over; `last`: whatever there is. Raises `StoreError`: try again."""
        over = int(((self._clock() + 60) if last else self._clock() - GRACE_S) // 60)
        for minute in sorted(minute for minute in self._heard if minute < over):
            counted = dict(self._heard[minute])
            await self._store.add(minute, counted)
            self._done |= {(minute, boot) for boot in counted}
            del self._heard[minute]
        self._done = {done for done in self._done if done[0] > over - FORGET_MINUTES}

    async def run(self) -> None:
        """Until cancelled; then what there is is written down."""
        try:
            while True:
                await asyncio.sleep(ROUND_S)
                with contextlib.suppress(StoreError):
                    await self.round()
        finally:
            with contextlib.suppress(StoreError):
                await self.round(last=True)
