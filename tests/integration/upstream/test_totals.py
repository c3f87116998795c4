"""The end of the whole request: whatever it waits for by then, it is reset, and the upstream was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.upstream.errors import TotalTimeoutError
from gateway.upstream.transport import UpstreamAnswer
from tests.integration.upstream.caller import Caller
from tests.integration.upstream.conftest import Open
from tests.integration.upstream.test_cancel import finish
from tests.kit.certs import Pki
from tests.kit.upstream import RecordingUpstream, Request


@pytest.fixture(params=["h2", "http/1.1"])
async def either(request: pytest.FixtureRequest, pki: Pki) -> AsyncIterator[RecordingUpstream]:
    async with RecordingUpstream(tls=pki.server_context([request.param])) as upstream:
        yield upstream


def ask(caller: Caller, within_s: float, **options: Any) -> asyncio.Task[UpstreamAnswer]:
    ends = asyncio.get_running_loop().time() + within_s
    outgoing = caller.transport.outgoing(b"POST", b"/v1/completions", (), b"{}", ends=ends)
    return asyncio.ensure_future(caller.transport.open(outgoing, **options))


async def read_all(answer: UpstreamAnswer) -> None:
    while await answer.stream.read():
        pass


async def reset(request: Request) -> None:
    assert (await request.reset()).code in (8, None)


async def test_before_the_head(either: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(either) as caller:
        task = ask(caller, 0.2)
        request = await either.arrived(1)
        with pytest.raises(TotalTimeoutError):
            await task
        await reset(request)
        assert caller.gauges.timeouts == 1


async def test_in_mid_answer_though_it_is_not_silent(either: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(either) as caller:
        task = ask(caller, 0.3)
        request = await either.arrived(1)
        request.respond(200)
        answer = await task

        async def talk() -> None:
            while request.was_reset is None:
                request.send(b"x")
                await asyncio.sleep(0.01)  # time itself is the subject

        talking = asyncio.ensure_future(talk())
        with pytest.raises(TotalTimeoutError):
            await read_all(answer)
        await reset(request)
        await talking


async def test_while_nobody_reads(either: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(either) as caller:
        task = ask(caller, 0.2)
        request = await either.arrived(1)
        request.respond(200)
        answer = await task
        await reset(request)
        with pytest.raises(TotalTimeoutError):
            await answer.stream.read()


async def test_while_it_waits_for_a_stream(h2: RecordingUpstream, open_caller: Open) -> None:
    h2.max_concurrent_streams = 1
    sent: list[int] = []
    async with open_caller(h2) as caller:
        first = caller.start()
        await h2.arrived(1)
        with pytest.raises(TotalTimeoutError):
            await ask(caller, 0.1, sent=lambda: sent.append(1))
        assert (sent, h2.opened) == ([], 1)
        await finish(h2.requests[0])
        await (await first).aclose()


async def test_the_upstream_is_told_what_is_left(either: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(either) as caller:
        task = ask(caller, 30.0)
        request = await (await either.arrived(1)).complete()
        assert 20_000 < int(request.headers["x-request-timeout-ms"]) <= 30_000
        assert request.headers["content-length"] == "2"
        await finish(request)
        assert await (await task).stream.read()


async def test_without_an_end_nothing_is_told(either: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(either) as caller:
        task = caller.start()
        request = await (await either.arrived(1)).complete()
        assert "x-request-timeout-ms" not in request.headers
        await finish(request)
        await (await task).aclose()


async def test_the_upstreams_own_bound(either: RecordingUpstream, open_caller: Open) -> None:
    """The earlier of the two counts; httpx's interface knows only this one."""
    async with open_caller(either, total_timeout_ms=200) as caller:
        with pytest.raises(httpx.ReadTimeout, match="longer than it may"):
            await caller.start()
        assert int(either.requests[0].headers["x-request-timeout-ms"]) <= 200
        with pytest.raises(TotalTimeoutError):
            await ask(caller, 30.0)
        await either.until(lambda: all(request.was_reset for request in either.requests), "both resets")
