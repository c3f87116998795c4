"""One line when something goes away and one when it is back, whatever its causes do meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

QUIET_S: Final = 30.0
"""What goes away again so soon after a line is spoken of when it is still away then: something that comes and goes
is two lines in so long, not two each time."""

MOST_CAUSES: Final = 100
"""Different ones that are counted. Some have a server's own words in them."""


class AwayLog:
    """`gone` has a place for the first cause. `clock` gives seconds. One process's own."""

    def __init__(
        self,
        log: logging.Logger,
        gone: str,
        back: str,
        clock: Callable[[], float] = time.monotonic,
        level: int = logging.WARNING,
    ) -> None:
        self._log = log
        self._gone = gone
        self._back = back
        self._clock = clock
        self._level = level  # of the good news
        self._since_s = 0.0
        self._causes: set[str] = set()
        self._said = False
        self._quiet_until_s: float | None = None
        self._unsaid = 0

    @property
    def away(self) -> bool:
        return bool(self._causes)

    def failed(self, why: str, *, more: bool = False) -> None:
        """It is away, or still is. `more`: more of it than before, worth a line when the last was long ago."""
        now = self._clock()
        if not self._causes:
            self._since_s, self._said = now, False
        if len(self._causes) < MOST_CAUSES:
            self._causes.add(why)
        quiet = self._quiet_until_s is not None and now < self._quiet_until_s
        if not quiet and (more or not self._said):
            unsaid = f" (and {self._unsaid} times for a moment before)" if self._unsaid else ""
            self._log.warning(self._gone + "%s", why, unsaid)
            self._said, self._unsaid = True, 0
            self._quiet_until_s = now + QUIET_S

    def worked(self) -> None:
        """It is there, or still is."""
        if not self._causes:
            return
        now = self._clock()
        if self._said:
            causes = len(self._causes)
            different = f", for {causes} different causes" if causes > 1 else ""
            self._log.log(self._level, "%s, after %.1f s%s", self._back, now - self._since_s, different)
            self._quiet_until_s = now + QUIET_S
        else:
            self._unsaid += 1
        self._causes.clear()
