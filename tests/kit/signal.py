"""Waiting for something to have happened, without sleeping and without missing it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 60.0


class Signal:
    """Wakes everyone who waits for a condition whenever the state behind it may have changed."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
        """Return as soon as `condition()` is true; raise `AssertionError` naming `what` when it never is."""
        try:
            async with asyncio.timeout(patience_s):
                while not condition():
                    future = asyncio.get_running_loop().create_future()
                    self._waiting.append(future)
                    await future
        except TimeoutError:
            raise AssertionError(f"waited {patience_s} s for {what}") from None


async def turns(count: int = 3) -> None:
    """Let everything that is ready run, `count` times. For showing that something does *not* happen at once."""
    for _ in range(count):
        await asyncio.sleep(0)
