"""The store of slices under test: in memory, on Redis, Valkey and a cluster."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from gateway.limits.store import SliceAdmin, SliceStore
from tests.contract.slice_store import PLACES, Advance, Backend, Worker


@pytest.fixture(params=list(PLACES))
async def backend(request: pytest.FixtureRequest) -> AsyncGenerator[Backend]:
    async with PLACES[request.param]() as backend:
        yield backend


@pytest.fixture
def store(backend: Backend) -> SliceStore:
    return backend.store


@pytest.fixture
def admin(backend: Backend) -> SliceAdmin:
    return backend.admin


@pytest.fixture
def advance(backend: Backend) -> Advance:
    return backend.advance


@pytest.fixture
def worker(store: SliceStore) -> Worker:
    return Worker(store)
