"""Time that others depend on."""

from __future__ import annotations

from gateway.clock import unix_us


class Wall:
    def __init__(self) -> None:
        self.wall = 1_800_000_000.25
        self.ticks_us = 77

    def now(self) -> float:
        return self.wall

    def monotonic_us(self) -> int:
        return self.ticks_us


def test_unix_microseconds_go_on_whatever_the_clock_is_set_to() -> None:
    clock = Wall()
    now = unix_us(clock)
    assert now() == 1_800_000_000_250_000
    clock.wall -= 3_600
    clock.ticks_us += 5
    assert now() == 1_800_000_000_250_005
