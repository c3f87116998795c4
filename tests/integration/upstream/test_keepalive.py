"""PING: a connection whose peer is gone fails at once, one whose model thinks for long does not."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.upstream import keepalive
from tests.integration.upstream.caller import read
from tests.integration.upstream.conftest import Open
from tests.integration.upstream.test_cancel import finish
from tests.kit.upstream import RecordingUpstream


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "PING_AFTER_S", 0.02)
    monkeypatch.setattr(keepalive, "PING_TIMEOUT_S", 0.3)


async def test_silent_but_alive(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task = caller.start()
        request = await h2.arrived(1)
        await h2.until(lambda: request.connection.pings >= 3, "three PINGs")
        await finish(request)
        assert await read(await task) == b'{"ok": 1}'
        assert len(h2.connections) == 1


async def test_gone(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        tasks = [caller.start(), caller.start()]
        request = await h2.arrived(2)
        request.connection.mute()
        for task in tasks:
            with pytest.raises(httpx.RemoteProtocolError, match="PING"):
                await task
        request.connection.abort()
        answer = asyncio.ensure_future(caller.ask())
        await finish(await h2.arrived(3))
        await answer
        assert len(h2.connections) == 2
