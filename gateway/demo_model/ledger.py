"""What became of each model stream. Counts and moments only: never a word of a prompt or an answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal

KEPT_RESETS: Final = 1_000
"""The newest resets are listed, all of them are counted."""

Counter = Literal["opened", "ended", "reset"]


class Record:
    """One model stream, from its request headers to its end. Closes once: what comes after does nothing."""

    __slots__ = ("_ledger", "_opened_at", "answered", "chunks", "closed", "stream")

    def __init__(self, ledger: Ledger, stream: str, opened_at: float) -> None:
        self._ledger = ledger
        self._opened_at = opened_at
        self.stream: Final = stream
        self.answered = False
        self.chunks = 0
        self.closed = False

    def end(self) -> None:
        """The whole answer was handed to the socket."""
        if not self.closed:
            self.closed = True
            self._ledger.close("ended")

    def reset(self, how: Literal["rst_stream", "connection"]) -> None:
        """The client took it back: RST_STREAM, or the connection closed under it (the only way HTTP/1.1 has)."""
        if not self.closed:
            self.closed = True
            now = self._ledger.clock()
            self._ledger.close(
                "reset",
                {
                    "stream": self.stream,
                    "at_ms": round(now * 1000, 3),
                    "lived_ms": round((now - self._opened_at) * 1000, 3),
                    "after_chunks": self.chunks,
                    "before_headers": not self.answered,
                    "how": how,
                },
            )


class Ledger:
    """Counts streams and lets a reader wait for the next one. `clock` is in seconds and monotonic.

    On Linux `time.monotonic` is one clock for all processes of a machine: `at_ms` may be compared with
    `time.monotonic() * 1000` of the client that sent the reset.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock: Final = clock
        self.connections = 0
        self._counts: dict[Counter, int] = {"opened": 0, "ended": 0, "reset": 0}
        self._resets: deque[dict[str, Any]] = deque(maxlen=KEPT_RESETS)
        self._changed = asyncio.Event()

    def open(self, stream: str) -> Record:
        self._counts["opened"] += 1
        self._notify()
        return Record(self, stream, self.clock())

    def close(self, counter: Literal["ended", "reset"], entry: dict[str, Any] | None = None) -> None:
        self._counts[counter] += 1
        if entry is not None:
            self._resets.append(entry)
        self._notify()

    def view(self) -> dict[str, Any]:
        """The body of `GET /demo/streams`. `connections` were accepted since the start; `open` is now."""
        counts = self._counts
        return {
            "opened": counts["opened"],
            "ended": counts["ended"],
            "reset": counts["reset"],
            "open": counts["opened"] - counts["ended"] - counts["reset"],
            "connections": self.connections,
            "resets": list(self._resets),
        }

    async def wait(self, counter: Counter, count: int, timeout_s: float) -> None:
        """Returns when `counter` has reached `count`, or after `timeout_s`: the reader looks at the view."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._counts[counter] < count:
                    await self._changed.wait()
        except TimeoutError:
            return

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
