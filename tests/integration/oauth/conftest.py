"""The authorization server's routes over its real stores, called in process (nothing here streams)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from gateway.api.oauth import oauth_routes
from tests.unit.oauth.conftest import Bench, bench, furnished, keys_are_read_once

__all__ = ["bench", "furnished", "keys_are_read_once"]


@pytest.fixture
async def client(bench: Bench, tmp_path: Path) -> AsyncIterator[AsyncTestClient[Litestar]]:
    app = Litestar(route_handlers=oauth_routes(bench.service), openapi_config=None, logging_config=None)
    async with AsyncTestClient(app, base_url="https://gateway.example") as made:
        made.headers["x-orgate-client"] = "192.0.2.1"
        yield made
