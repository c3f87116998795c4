"""One timer for many deadlines: nothing is late by more than the grain, and looking costs little."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import cast

import httpx
import pytest

from gateway.upstream.deadlines import GRAIN_S, Deadlines
from gateway.upstream.errors import TotalTimeoutError
from gateway.upstream.fields import Head
from gateway.upstream.stream import Outgoing, Stream, sweep


class FakeTimer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self.now + delay, call)
        self.timers.append(timer)
        return timer

    @property
    def armed(self) -> list[FakeTimer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def fire(self) -> None:
        (timer,) = self.armed
        self.timers.remove(timer)
        self.now = timer.at
        timer.call()


def deadlines(loop: FakeLoop, look: Callable[[float], float]) -> Deadlines:
    return Deadlines(cast("asyncio.AbstractEventLoop", loop), look)


def test_only_an_earlier_deadline_touches_the_timer() -> None:
    loop = FakeLoop()
    watch = deadlines(loop, lambda now: math.inf)
    for when in (160.0, 161.0, 160.0, 170.0):
        watch.by(when)
    assert len(loop.timers) == 1
    watch.by(101.0)
    assert [timer.at for timer in loop.armed] == [101.0]
    watch.by(math.inf)
    assert len(loop.timers) == 2


def test_looks_again_for_as_long_as_there_is_something_to_look_for() -> None:
    loop = FakeLoop()
    looked: list[float] = []

    def look(now: float) -> float:
        looked.append(now)
        return now + 5 if len(looked) < 3 else math.inf

    watch = deadlines(loop, look)
    watch.by(110.0)
    for _ in range(3):
        loop.fire()
    assert looked == [110.0, 115.0, 120.0]
    assert loop.armed == []
    watch.by(130.0)
    assert [timer.at for timer in loop.armed] == [130.0]
    watch.stop()
    assert loop.armed == []


def test_a_deadline_that_has_passed_is_looked_at_within_the_grain() -> None:
    loop = FakeLoop()
    deadlines(loop, lambda now: math.inf).by(0.0)
    assert loop.armed[0].at == loop.now + GRAIN_S


class FakeLink:
    def __init__(self) -> None:
        self.abandoned: list[Exception] = []

    def consumed(self, stream: Stream, credit: int) -> None:
        raise AssertionError("nothing is read here")

    def abandon(self, stream: Stream, error: Exception) -> None:
        self.abandoned.append(error)
        stream.finish(error)


async def stream(deadline: float, idle_s: float, ends: float = math.inf) -> tuple[Stream, FakeLink]:
    link = FakeLink()
    outgoing = Outgoing(b"POST", b"/", (), b"", deadline, idle_s, ends)
    return Stream(asyncio.get_running_loop(), link, 1, outgoing), link


async def test_first_the_head_then_silence_then_the_end() -> None:
    waiting, _ = await stream(deadline=10.0, idle_s=3.0, ends=20.0)
    assert sweep([waiting], 5.0) == (0, 10.0)
    waiting.head_received(Head(200, []))
    assert sweep([waiting], 5.0) == (0, 8.0)
    assert sweep([waiting], 19.0) == (0, 20.0)


@pytest.mark.parametrize(
    ("head", "now", "kind", "says"),
    [
        (False, 10.0, httpx.ReadTimeout, "did not answer"),
        (False, 30.0, TotalTimeoutError, "longer than it may"),
        (True, 30.0, TotalTimeoutError, "longer than it may"),
    ],
)
async def test_what_is_due_is_abandoned(head: bool, now: float, kind: type[Exception], says: str) -> None:
    late, link = await stream(deadline=10.0, idle_s=3.0, ends=30.0)
    other, _ = await stream(deadline=50.0, idle_s=3.0)
    if head:
        late.head_received(Head(200, []))
    assert sweep([late, other], now) == (1, 50.0)
    assert type(link.abandoned[0]) is kind
    with pytest.raises(kind, match=says):
        await late.read()
