"""Time, injected: tests give their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC."""

    def monotonic_us(self) -> int:
        """Microseconds that never go back; only differences mean anything."""


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000


def unix_us(clock: Clock) -> Callable[[], int]:
    """Unix microseconds as they are now, and from here on as `monotonic_us` goes: whatever the system's clock is
    set to, they never go back and leave none out."""
    offset = int(clock.now() * 1_000_000) - clock.monotonic_us()
    return lambda: offset + clock.monotonic_us()
