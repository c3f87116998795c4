"""The transport over real sockets, against the recording upstream, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import uvloop

from tests.integration.upstream.caller import Caller, connected
from tests.kit.certs import Pki
from tests.kit.upstream import RecordingUpstream

Open = Callable[..., AbstractAsyncContextManager[Caller]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """Production runs on uvloop; asyncio's own loop hands over cancellations in another order."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(params=["tls", "h2c"])
async def h2(request: pytest.FixtureRequest, pki: Pki) -> AsyncIterator[RecordingUpstream]:
    """An HTTP/2 upstream at whose end no stream is open and no rule was broken."""
    tls = pki.server_context() if request.param == "tls" else None
    async with RecordingUpstream(tls=tls) as upstream:
        yield upstream
        assert not upstream.faults, upstream.faults


@pytest.fixture
def open_caller(pki: Pki) -> Open:
    """`open_caller(upstream, connections=1, ...)`: a caller whose transport is bound to `upstream`."""
    return lambda upstream, **binding: connected(upstream, pki, **binding)
