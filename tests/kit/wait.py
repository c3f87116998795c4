"""Waiting for what can only be asked for, not listened to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def until(holds: Callable[[], bool], what: str, patience_s: float = 60) -> None:
    """Ask `holds` until it says yes. Raises after `patience_s`, naming `what` was waited for."""
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, f"not within {patience_s} s: {what}"
        time.sleep(0.02)


async def eventually(holds: Callable[[], bool], what: str, patience_s: float = 60) -> None:
    """`until`, for what this event loop has to do itself."""
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, f"not within {patience_s} s: {what}"
        await asyncio.sleep(0.01)
