"""Gateways to be stopped and reloaded: each test has one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.drain.bed import Stopping
from tests.integration.gateway.world import bind
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway
from tests.kit.upstream import RecordingUpstream

Start = Callable[..., AbstractAsyncContextManager[Stopping]]


@pytest.fixture
def start(tmp_path: Path, pki: Pki) -> Start:
    """`async with start(workers=2, drain_s=5) as stopping`: settings of `server` by their names."""

    @asynccontextmanager
    async def started(*, workers: int = 1, **server: object) -> AsyncIterator[Stopping]:
        settings = {f"ORGATE_SERVER__{name.upper()}": str(value) for name, value in server.items()}
        gateway = await asyncio.to_thread(RunningGateway, tmp_path / "home", workers, settings)
        try:
            await asyncio.to_thread(gateway.start)
            owner = await asyncio.to_thread(gateway.owner)
            async with RecordingUpstream(tls=pki.server_context()) as upstream:
                model = await asyncio.to_thread(bind, owner, pki, upstream.url)
                yield Stopping(gateway, owner, upstream, model)
        finally:
            await asyncio.to_thread(gateway.stop)
            gateway.http.close()

    return started
