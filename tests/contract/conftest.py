"""The control store under test: every backend, one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.oauth.sql import SqlOAuthStore
from tenants.sql.store import SqlControlStore
from tests.contract.control_store import BACKENDS, Backend, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return BACKENDS[request.param](tmp_path)


@pytest.fixture
async def store(backend: Backend, clock: Clock) -> AsyncIterator[SqlControlStore]:
    opened = await backend.open(clock)
    yield opened
    await opened.close()


@pytest.fixture
async def oauth_store(backend: Backend, clock: Clock) -> AsyncIterator[SqlOAuthStore]:
    opened = await backend.open(clock)
    yield await SqlOAuthStore.open(opened.engine)
    await opened.close()
