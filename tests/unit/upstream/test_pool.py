"""The line of waiting requests, with connections that exist on paper only."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.upstream.balance import Bounds
from gateway.upstream.gauges import Gauges
from gateway.upstream.pool import Connection, ConnectionPool
from tests.kit.signal import turns
from tests.unit.upstream.paper import Dials


async def test_waiters_are_served_in_order() -> None:
    dials = Dials(limit=1)
    pool = ConnectionPool(dials, Bounds(1), Gauges())
    served: list[int] = []

    async def one(number: int) -> None:
        connection = await pool.acquire()
        served.append(number)
        await turns()
        pool.release(connection)

    tasks = [asyncio.ensure_future(one(number)) for number in range(5)]
    await turns()
    dials.succeed(1)
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]


async def test_nobody_overtakes_the_line() -> None:
    dials = Dials(limit=1)
    pool = ConnectionPool(dials, Bounds(1), Gauges())
    task = asyncio.ensure_future(pool.acquire())
    await turns()
    paper = dials.succeed(1)
    await task
    waiting = asyncio.ensure_future(pool.acquire())
    await turns()
    pool.release(paper)
    assert pool.take() is None  # promised to the one in line, though its task has not run
    assert await waiting is paper


@pytest.mark.parametrize("position", [0, 1, 2])
async def test_turn_of_a_cancelled_waiter_is_handed_on(position: int) -> None:
    """All are cancelled but the last, in the same step in which the slot comes free."""
    dials, gauges = Dials(limit=1), Gauges()
    pool = ConnectionPool(dials, Bounds(1), gauges)
    holder = asyncio.ensure_future(pool.acquire())
    await turns()
    paper = dials.succeed(1)
    await holder
    waiters = [asyncio.ensure_future(pool.acquire()) for _ in range(4)]
    await turns()
    if position == 0:
        pool.release(paper)
    for number, waiter in enumerate(waiters[:-1], 1):
        waiter.cancel()
        if number == position:
            pool.release(paper)
    assert await asyncio.wait_for(waiters[-1], 60) is paper
    await asyncio.gather(*waiters, return_exceptions=True)
    assert (paper.reserved, gauges.waiting) == (1, 0)


async def test_dial_outlives_the_request_that_began_it() -> None:
    dials = Dials(limit=5)
    pool = ConnectionPool(dials, Bounds(1), Gauges())
    first, second = asyncio.ensure_future(pool.acquire()), asyncio.ensure_future(pool.acquire())
    await turns()
    first.cancel()
    await turns()
    paper = dials.succeed(1)
    assert await second is paper
    assert (len(dials.begun), paper.reserved) == (1, 1)


async def test_failed_dial_fails_those_who_have_nothing_else_to_wait_for() -> None:
    dials, gauges = Dials(limit=1), Gauges()
    pool = ConnectionPool(dials, Bounds(2), gauges)
    tasks = [asyncio.ensure_future(pool.acquire()) for _ in range(3)]
    await turns()
    dials.fail(1, httpx.ConnectTimeout("slow"))
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(failure) for failure in failures] == [httpx.ConnectTimeout] * 3
    assert len({id(failure) for failure in failures}) == 3
    assert (gauges.dial_failures, gauges.waiting, len(dials.begun)) == (1, 0, 1)


async def test_failed_dial_leaves_those_who_can_wait_for_a_slot() -> None:
    dials = Dials(limit=1)
    pool = ConnectionPool(dials, Bounds(2), Gauges())
    holder = asyncio.ensure_future(pool.acquire())
    await turns()
    paper = dials.succeed(1)
    await holder
    await turns()
    waiter = asyncio.ensure_future(pool.acquire())
    await turns()
    dials.fail(2, httpx.ConnectError("no"))
    await turns()
    assert not waiter.done()
    assert len(dials.begun) == 2  # and no dial after dial: there is a pause
    pool.release(paper)
    assert await waiter is paper


async def test_lost_connection_is_replaced_for_those_who_wait() -> None:
    dials = Dials(limit=1)
    pool = ConnectionPool(dials, Bounds(1), Gauges())
    holder = asyncio.ensure_future(pool.acquire())
    await turns()
    dials.succeed(1)
    paper = await holder
    waiter = asyncio.ensure_future(pool.acquire())
    await turns()
    paper.close()
    await turns()
    assert await asyncio.wait_for(_after(dials, waiter), 60) is not paper


async def _after(dials: Dials, waiter: asyncio.Task[Connection]) -> Connection:
    dials.succeed(2)
    return await waiter


async def test_closed_pool_serves_nobody() -> None:
    dials = Dials()
    pool = ConnectionPool(dials, Bounds(1), Gauges())
    waiter = asyncio.ensure_future(pool.acquire())
    await turns()
    pool.close()
    with pytest.raises(httpx.ConnectError):
        await waiter
    with pytest.raises(httpx.ConnectError):
        await pool.acquire()
    assert pool.take() is None


async def test_a_connection_that_ends_without_room_for_anything_is_a_failed_dial() -> None:
    """MAX_CONCURRENT_STREAMS=0 and goodbye: dialled at once again, it would be a handshake a round trip."""
    dials, gauges = Dials(limit=0), Gauges()
    pool = ConnectionPool(dials, Bounds(1), gauges)
    waiting = asyncio.ensure_future(pool.acquire())
    await turns()
    paper = dials.succeed(1)
    await turns()
    assert not waiting.done()  # room may come yet
    paper.close()
    with pytest.raises(httpx.ConnectError, match="without taking a request"):
        await waiting
    await turns()
    assert (len(dials.begun), gauges.dial_failures, gauges.waiting) == (1, 1, 0)
    again = asyncio.ensure_future(pool.acquire())
    await turns()
    dials.limit = 1
    served = dials.succeed(2)
    assert await again is served


async def test_room_that_comes_later_is_used() -> None:
    dials = Dials(limit=0)
    pool = ConnectionPool(dials, Bounds(1), Gauges())
    waiting = asyncio.ensure_future(pool.acquire())
    await turns()
    paper = dials.succeed(1)
    await turns()
    paper.limit = 1
    paper.changed()
    assert await waiting is paper
