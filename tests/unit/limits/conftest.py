"""One worker's limits over an owner in memory, on a clock that stands still."""

from __future__ import annotations

import pytest

from gateway.limits.slices import SlicedLimits
from tests.contract.test_limit_store import FakeClock
from tests.unit.limits.many import FEW
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


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few buckets are named in one message that `MANY` take several."""
    monkeypatch.setattr("gateway.limits.session.NAMED", FEW)
    monkeypatch.setattr("gateway.limits.undertaker.NAMED", FEW)
