"""What is put to the test: a gateway worker's limits on Redis, and two that are wrong, as others do it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from msgspec import structs

from gateway.exchange import Claim, Hold
from gateway.limits.memory import MemoryLimits
from gateway.limits.redis import RedisSlices
from gateway.limits.redis_open import open_slices
from gateway.limits.slices import SlicedLimits
from gateway.limits.store import LimitStore
from gateway.limits_settings import LimitsSettings
from gateway.quota import Quota
from tests.limits.plan import Plan

REDIS = "redis"

REPLICAS, SPLIT = "replicas", "split"
"""Each worker counts all of a limit for itself; each worker has an equal part of it."""


@asynccontextmanager
async def redis_slices(address: str) -> AsyncIterator[RedisSlices]:
    """The store at `host:port`, as a gateway opens it, connected."""
    store = open_slices(LimitsSettings(store="redis", addresses=(address,)), Path())
    await store.warm()
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def limits_of(
    subject: str, worker: str, plan: Plan, store: str, folder: Path | None = None
) -> AsyncIterator[LimitStore]:
    """`store`: address of the store of `subject`, if it has one. `folder`: where its workers keep their books."""
    if subject == REDIS:
        async with redis_slices(store) as slices:
            limits = SlicedLimits(worker, slices, workers=plan.workers, folder=folder)
            ticking = asyncio.create_task(limits.run())
            yield limits
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking
            await limits.close()
    elif subject == REPLICAS:
        yield MemoryLimits(_now_us)
    elif subject == SPLIT:
        yield _Split(MemoryLimits(_now_us), plan.workers)
    else:
        raise ValueError(f"there is no subject {subject!r}")


class _Split:
    """An equal part of each limit, whatever the others do with theirs."""

    def __init__(self, within: LimitStore, parts: int) -> None:
        self._within = within
        self._parts = parts

    async def reserve(self, claims: Sequence[Claim]) -> Hold:
        return await self._within.reserve(
            [Claim(self._part(claim.quota), claim.cost, claim.least) for claim in claims]
        )

    def take(self, claims: tuple[Claim, ...]) -> Hold | None:
        return None

    def _part(self, quota: Quota) -> Quota:
        return structs.replace(quota, amount=quota.amount // self._parts, burst=quota.burst // self._parts)


def _now_us() -> int:
    return time.monotonic_ns() // 1000
