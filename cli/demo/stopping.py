"""Being stopped: Ctrl-C, SIGTERM and a closed terminal, heeded where they do no harm and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopping:
    """Whether to stop. The first signal raises KeyboardInterrupt within `heeded`, elsewhere it is noted.

    The ones after it change nothing, to the process's end: nobody who presses Ctrl-C twice cuts the cleaning up
    short. A signal that was ignored before (nohup) stays so.
    """

    def __init__(self) -> None:
        self.asked = False
        self._heeding = False

    @contextlib.contextmanager
    def watch(self) -> Iterator[Stopping]:
        """Take the signals over. They are given back only when none came."""
        before = {number: signal.getsignal(number) for number in _STOPPING}
        taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

        def stop(number: int, frame: FrameType | None) -> None:
            for each in taken:
                signal.signal(each, signal.SIG_IGN)
            self._stop()

        for number in taken:
            signal.signal(number, stop)
        try:
            yield self
        finally:
            for number in taken if not self.asked else ():
                signal.signal(number, before[number])

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Within it the signal raises, at once or, when it came before, on entry."""
        self._heeding = True
        try:
            self.check()
            yield
            self.check()
        finally:
            self._heeding = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it nothing is raised: what is done here is done wholly. What came is raised after it."""
        self._heeding, before = False, self._heeding
        try:
            yield
        finally:
            self._heeding = before
        if before:
            self.check()

    def check(self) -> None:
        """Raise when the signal came and nothing has been raised, or what was raised got lost."""
        if self.asked:
            raise KeyboardInterrupt

    def _stop(self) -> None:
        self.asked = True
        # What a loop says of the tasks that this cuts short, traceback and all, is no news to who stopped it.
        logging.getLogger("asyncio").disabled = True
        if not self._heeding:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise KeyboardInterrupt from None
        # Between two steps of the loop's tasks and never in one. In the middle of starting a thread it would leave
        # one that its executor does not know: nobody tells it to end, and the interpreter waits for it for ever.
        loop.call_soon_threadsafe(self.check)
