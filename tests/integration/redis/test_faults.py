"""Networks between a worker and Redis: what is late, reset, half open or silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.errors import UnavailableError
from gateway.limits.redis import RedisSlices
from tests.integration.redis.place import QUICK, Caller, settings, store, unavailable, warnings
from tests.kit.faults import HOST, Fault, FaultProxy, fault_proxy
from tests.kit.redis import RedisServer, shared_server


@pytest.fixture
def server() -> RedisServer:
    return shared_server("redis")


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(HOST, server.port) as proxy:
        yield proxy


@pytest.fixture
async def slices(proxy: FaultProxy) -> AsyncIterator[RedisSlices]:
    async with store(settings(f"{HOST}:{proxy.port}", **QUICK)) as slices:
        await slices.warm()
        assert not slices.failing
        yield slices


async def again(caller: Caller) -> None:
    """Ask until there is an answer: pauses between attempts to connect are the store's own."""
    async with asyncio.timeout(60):
        while True:
            try:
                await caller.take(0)
            except UnavailableError:
                await asyncio.sleep(0.01)
            else:
                return


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.HALF_OPEN, Fault.BLACKHOLE])
async def test_it_says_so_in_time_and_comes_back(
    slices: RedisSlices, proxy: FaultProxy, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caller = Caller(slices)
    await caller.take(10)
    await proxy.set(fault)
    for _ in range(3):
        async with asyncio.timeout(60):  # its own limit is a quarter of a second
            await unavailable(slices)
    await proxy.set(Fault.NONE)
    await again(caller)
    assert await caller.left() == 990
    assert not slices.failing
    lost, back = warnings(caplog)
    assert lost.startswith("limits: Redis cannot be used: ")
    assert back.startswith("limits: Redis answers again, after ")


async def test_a_message_whose_answer_was_lost_counts_once(slices: RedisSlices, proxy: FaultProxy) -> None:
    caller = Caller(slices)
    await caller.take(0)
    await proxy.set(Fault.HALF_OPEN)  # the next message arrives, its answer does not
    with pytest.raises(UnavailableError):
        await caller.take(300)
    await proxy.set(Fault.NONE)
    async with asyncio.timeout(60):
        while caller.pending is not None:
            try:
                answer = await caller.take()  # the one that is pending, word for word
            except UnavailableError:
                await asyncio.sleep(0.01)
            else:
                assert answer.results[0].granted == (300,)
    assert await caller.left() == 700


async def test_nobody_listening_costs_few_attempts_and_few_lines(
    slices: RedisSlices, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    accepted = proxy.accepted
    await proxy.set(Fault.RESET)
    await unavailable(slices)
    await proxy.set(Fault.REFUSE)
    for _ in range(500):
        await unavailable(slices)
    assert len(warnings(caplog)) == 1
    await proxy.set(Fault.NONE)
    await again(Caller(slices))
    assert proxy.accepted <= accepted + 3


async def test_resets_are_not_met_with_a_storm(slices: RedisSlices, proxy: FaultProxy) -> None:
    await proxy.set(Fault.RESET)
    accepted = proxy.accepted
    for _ in range(1_000):
        await unavailable(slices)
    # 50 ms after the first, twice as long after the second and so on: a thousand questions, a handful of attempts.
    assert proxy.accepted - accepted <= 10


async def test_a_late_answer_is_none_and_the_next_is_in_time(slices: RedisSlices, proxy: FaultProxy) -> None:
    caller = Caller(slices)
    await caller.take(5)
    proxy.delay_s = 1
    assert "no answer within 250 ms" in await unavailable(slices)
    proxy.delay_s = 0
    await again(caller)
    assert await caller.left() == 995


async def test_who_goes_away_takes_nothing_along(slices: RedisSlices) -> None:
    """One connection carries all: a caller that is cancelled must not put the others' answers out of step."""
    callers = [Caller(slices, name=f"w{number}") for number in range(40)]
    await asyncio.gather(*(caller.take(0) for caller in callers))
    tasks = [asyncio.create_task(caller.take(1)) for caller in callers]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in done] == [True, False] * 20
    for caller, answer in zip(callers[1::2], done[1::2], strict=True):
        assert not isinstance(answer, BaseException)
        assert answer.session == caller.session
    # What was cancelled had been sent, and is sent again: it counts once.
    for caller in callers[::2]:
        assert (await caller.take(1)).results[0].granted == (1,)
    assert await callers[0].left() == 960
