"""When each upstream's key was last used, from what workers report anyway: no request writes anything for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from tenants.ids import OrgId

COUNTER: Final = "orgate_upstream_requests_total"
"""Labels: the organization, the upstream. Requests that were meant for it, those that waited in vain included."""


class LastUsed:
    """To a few seconds: a counter that has risen since the last report. `clock`: Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: dict[str, dict[tuple[str, str], float]] = {}
        self._times: dict[tuple[OrgId, str], int] = {}
        self._unsaved: set[tuple[OrgId, str]] = set()

    def note(self, boot: str, counters: Iterable[tuple[str, tuple[str, ...], float]]) -> None:
        """A worker's report: `boot` says which worker's life it counts."""
        known = self._counts.setdefault(boot, {})
        for name, labels, value in counters:
            if name == COUNTER and len(labels) == 2 and value > known.get((labels[0], labels[1]), 0):
                known[labels[0], labels[1]] = value
                key = (OrgId(labels[0]), labels[1])
                self._times[key] = int(self._clock())
                self._unsaved.add(key)

    def left(self, boot: str) -> None:
        """That worker is gone."""
        self._counts.pop(boot, None)

    def at(self, org: OrgId, upstream: str) -> int:
        """Unix seconds; 0: not since this process started."""
        return self._times.get((org, upstream), 0)

    def take(self) -> dict[tuple[OrgId, str], int]:
        """What has changed since the last time, to be written down."""
        taken = {key: self._times[key] for key in self._unsaved}
        self._unsaved.clear()
        return taken
