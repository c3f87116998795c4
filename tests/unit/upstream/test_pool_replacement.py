"""Connections that are replaced before their peer's limits end them: by age, by the resets they have sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gateway.upstream.balance import Bounds
from gateway.upstream.gauges import Gauges
from gateway.upstream.pool import BACKOFF_S, SWEEP_S, ConnectionPool
from tests.kit.signal import turns
from tests.unit.upstream.paper import Dials, Paper


async def warm(bounds: Bounds, dials: Dials, gauges: Gauges) -> tuple[ConnectionPool, Paper]:
    """A pool with one connection and one stream on it."""
    pool = ConnectionPool(dials, bounds, gauges, dice=lambda: 0.5)
    task = asyncio.ensure_future(pool.acquire())
    await turns()
    paper = dials.succeed(1)
    paper.started = 1
    assert await task is paper
    await turns()
    return pool, paper


def resets(paper: Paper, count: int) -> None:
    paper.resets = count
    paper.changed()


async def test_successor_is_dialled_before_the_old_one_is_given_up() -> None:
    dials, gauges = Dials(limit=9), Gauges()
    pool, old = await warm(Bounds(1, connection_resets=10), dials, gauges)
    resets(old, 7)
    await turns()
    assert len(dials.begun) == 1
    resets(old, 8)
    await turns()
    assert len(dials.begun) == 2
    assert pool.take() is old  # it serves until then
    new = dials.succeed(2)
    await turns()
    assert (old.draining, old.closed, gauges.replaced) == (True, False, 1)
    assert pool.take() is new
    old.free()
    assert old.open == 1
    old.free()
    assert (old.open, old.closed, len(dials.begun)) == (0, True, 2)  # it ends with its last stream


async def test_worn_connection_takes_no_request_while_its_successor_is_dialled() -> None:
    """Each more may be a reset more, and its peer would end it with all that is innocent on it."""
    dials, gauges = Dials(limit=9), Gauges()
    pool, old = await warm(Bounds(1, connection_resets=10), dials, gauges)
    resets(old, 10)
    assert pool.take() is None
    waiting = asyncio.ensure_future(pool.acquire())
    await turns()
    assert not waiting.done()
    new = dials.succeed(2)
    assert await waiting is new
    assert not old.closed


async def test_worn_connection_serves_while_none_can_be_dialled() -> None:
    dials, gauges = Dials(limit=9), Gauges()
    pool, old = await warm(Bounds(1, connection_resets=10), dials, gauges)
    resets(old, 10)
    waiting = asyncio.ensure_future(pool.acquire())
    await turns()
    dials.fail(2, httpx.ConnectError("no"))
    assert await waiting is old
    assert pool.take() is old
    assert (gauges.dial_failures, gauges.replaced) == (1, 0)


async def test_failed_successor_is_dialled_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    dials = Dials(limit=9)
    pool, old = await warm(Bounds(1, connection_resets=10), dials, Gauges())
    resets(old, 8)
    await turns()
    dials.fail(2, httpx.ConnectError("no"))
    await turns()
    resets(old, 9)
    await turns()
    assert len(dials.begun) == 2
    later = asyncio.get_running_loop().time() + BACKOFF_S
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: later)
    assert pool.take() is old
    await turns()
    assert len(dials.begun) == 3


async def test_one_after_the_other() -> None:
    dials, gauges = Dials(limit=9), Gauges()
    pool, first = await warm(Bounds(2, connection_resets=10), dials, gauges)
    second = dials.succeed(2)
    await turns()
    assert pool.take() is second
    second.resets = 8
    resets(first, 9)
    await turns()
    assert len(dials.begun) == 3
    third = dials.succeed(3)
    await turns(5)
    assert (first.draining, second.draining) == (True, False)  # the one with more resets went first
    assert len(dials.begun) == 4
    fourth = dials.succeed(4)
    await turns(5)
    assert (second.draining, third.usable, fourth.usable, gauges.replaced) == (True, True, True, 2)
    assert len(dials.begun) == 4


async def test_innocent_streams_see_nothing_of_thousands_of_resets() -> None:
    """Whatever the order of resets and dials: no connection sends more resets than its bound and its streams."""
    dials, gauges = Dials(limit=100), Gauges()
    bounds = Bounds(1, connection_resets=900)
    pool, paper = await warm(bounds, dials, gauges)
    papers = [paper]
    cancelled = 0
    while cancelled < 3_000:
        connection = pool.take()
        if connection is None:
            waiting = asyncio.ensure_future(pool.acquire())
            await turns()
            papers.append(dials.succeed(len(papers) + 1))
            connection = await waiting
        assert isinstance(connection, Paper)
        connection.resets += 1
        connection.free()
        cancelled += 1
    assert [paper.resets for paper in papers] == [900, 900, 900, 300]
    assert not papers[0].closed  # its innocent stream is still there
    assert all(paper.closed for paper in papers[1:3])


async def test_old_connection_is_replaced_at_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    dials, gauges = Dials(limit=9), Gauges()
    pool, old = await warm(Bounds(1, connection_age_s=100), dials, gauges)
    for seconds, begun in ((99, 1), (101, 2)):
        later = old.made_at + seconds
        monkeypatch.setattr(loop, "time", lambda later=later: later)
        pool._sweep()
        await turns()
        assert len(dials.begun) == begun
    new = dials.succeed(2)
    await turns()
    assert (old.draining, pool.take(), gauges.replaced) == (True, new, 1)


async def test_sweep_comes_back_in_time_for_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    due: list[float] = []
    loop = asyncio.get_running_loop()
    real = loop.call_at

    def call_at(when: float, callback: Callable[..., object], *args: Any, **options: Any) -> asyncio.TimerHandle:
        due.append(when)
        return real(when, callback, *args)

    monkeypatch.setattr(loop, "call_at", call_at)
    _, paper = await warm(Bounds(1, connection_age_s=2), Dials(), Gauges())
    assert due[-1] == paper.made_at + 2
    _, paper = await warm(Bounds(1, connection_age_s=3_600), Dials(), Gauges())
    assert due[-1] < paper.made_at + SWEEP_S + 5


async def test_connection_that_was_never_used_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    dials, gauges = Dials(limit=9), Gauges()
    pool, paper = await warm(Bounds(2, connection_age_s=100), dials, gauges)
    spare = dials.succeed(2)  # dialled ahead, and never needed
    await turns()
    later = spare.made_at + 101
    paper.made_at = later
    pool._retire_at[paper] = later + 100
    monkeypatch.setattr(loop, "time", lambda: later)
    pool._sweep()
    assert spare.closed
    assert gauges.replaced == 0


async def test_pool_that_is_replaced_itself_replaces_nothing() -> None:
    dials = Dials(limit=9)
    pool, old = await warm(Bounds(1, connection_resets=10), dials, Gauges())
    pool.drain()
    resets(old, 9)
    await turns()
    assert len(dials.begun) == 1
    old.free()
    await turns()
    assert old.closed
