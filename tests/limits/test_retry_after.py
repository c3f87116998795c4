"""Alone on its bucket, a client that waits for `Retry-After` is never refused twice in a row, at any rate."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from gateway.errors import LimitExceededError
from gateway.exchange import Claim, Used
from gateway.limits.accounts import LimitOwner
from gateway.limits.slices import TICK_S, SlicedLimits
from gateway.limits.store import LimitStore, SliceStore
from tenants.models import LimitUnit
from tests.contract.slice_store_redis import on_one
from tests.contract.test_limit_store import FakeClock, Turns, Wire, claim
from tests.kit.redis import shared_server
from tests.limits.plan import ORG, Plan
from tests.limits.subjects import REDIS, limits_of

RATES = 60
REFUSALS = 4
"""Of each client."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["embedded", "redis"])
async def limits(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncGenerator[Turns]:
    """Two workers; the client's requests go to the one and the other."""
    async with AsyncExitStack() as stack:
        if request.param == "embedded":
            store: SliceStore = Wire(LimitOwner(clock))
        else:
            store, _ = await stack.enter_async_context(on_one("redis", clock))
        workers = [SlicedLimits(f"w{number}", store, workers=2, clock=clock) for number in range(2)]
        yield Turns(workers)
        for worker in workers:
            await worker.close()


def any_claim(random_: random.Random, number: int) -> Claim:
    """Of a bucket of its own: from one a day to thousands a second, from one at once to some thousands."""
    amount = round(10 ** random_.uniform(0, 4))
    burst = round(10 ** random_.uniform(0, 3.5))
    unit = random_.choice((LimitUnit.REQUESTS, LimitUnit.TOKENS))
    cost = random_.randint(max(burst // 12, 1), burst) if unit is LimitUnit.TOKENS else 1
    period_s = round(10 ** random_.uniform(0, 4.9))
    if unit is LimitUnit.REQUESTS:
        burst = min(burst, 12)
    return claim(limit=f"l{number}", unit=unit, cost=cost, amount=amount, burst=burst, period_s=period_s)


async def honest_client(
    limits: LimitStore, asked: Claim, random_: random.Random, wait: Callable[[int], Awaitable[None]]
) -> int:
    """Asks again and again, and waits when it is told to. Returns how often it was."""
    waited = 0
    refused = False
    while waited < REFUSALS:
        try:
            hold = await limits.reserve([asked])
        except LimitExceededError as error:
            if refused:
                raise AssertionError(f"refused again after having waited: {asked}") from error
            refused = True
            waited += 1
            await wait(error.retry_after_s or 0)
            continue
        refused = False
        hold.settle(Used(input_tokens=random_.randint(0, asked.cost)))
    return waited


@pytest.mark.parametrize("seed", range(RATES // 20))
async def test_by_a_clock_that_the_test_moves(limits: Turns, clock: FakeClock, seed: int) -> None:
    random_ = random.Random(seed)

    async def wait(seconds: int) -> None:
        """Workers tick meanwhile; after a minute nothing changes any more by that."""
        ticked = min(seconds, 60)
        for _ in range(round(ticked / TICK_S)):
            clock.advance(TICK_S)
            for worker in limits.workers:
                await worker.sync()
        clock.advance(seconds - ticked)

    for number in range(20):
        asked = any_claim(random_, number)
        assert await honest_client(limits, asked, random_, wait) == REFUSALS


async def test_by_the_clocks_of_redis_and_of_the_worker() -> None:
    """Rates of which there is a unit again after a whole second, or hardly less."""
    random_ = random.Random(7)
    begun = time.monotonic()

    async def client(limits: LimitStore, number: int) -> int:
        asked = claim(org=ORG, limit=f"real-{number}", amount=1_000 + number, burst=1, period_s=1_000)
        return await honest_client(limits, asked, random_, asyncio.sleep)

    async with limits_of(
        REDIS, "retry-after", Plan("", 0, 1, (), workers=1), shared_server("redis").address
    ) as limits:
        waits = await asyncio.gather(*(client(limits, number) for number in range(40)))
    assert waits == [REFUSALS] * 40
    assert time.monotonic() - begun >= REFUSALS
