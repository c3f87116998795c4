"""One worker's limits over an owner in memory, on a clock that stands still."""

from __future__ import annotations

import pytest

from gateway.limits.slices import SlicedLimits
from tests.contract.test_limit_store import FakeClock
from tests.unit.limits.wire import Wire, grown_up


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def wire(clock: FakeClock) -> Wire:
    return Wire(await grown_up(clock))


@pytest.fixture
def limits(wire: Wire, clock: FakeClock) -> SlicedLimits:
    return SlicedLimits("w1", wire, clock=clock)
