"""Time, injected: tests give their own."""

from __future__ import annotations

import time
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
