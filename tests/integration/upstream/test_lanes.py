"""A full upstream over real sockets: who waits, who is sent, who never is."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.upstream.errors import SaturatedError, TotalTimeoutError
from gateway.upstream.transport import TransportPool, UpstreamAnswer, UpstreamTransport
from tenants.ids import OrgId
from tests.integration.upstream.caller import LOOPBACK, binding, cancelled
from tests.integration.upstream.conftest import Open
from tests.integration.upstream.test_cancel import finish
from tests.kit.certs import Pki
from tests.kit.signal import turns
from tests.kit.upstream import RecordingUpstream

COMPLETION, CHAT, AGENT = 0, 1, 2


def send(
    transport: UpstreamTransport, path: str, lane: int, ends: float = float("inf")
) -> asyncio.Task[UpstreamAnswer]:
    outgoing = transport.outgoing(b"POST", path.encode(), [], b"{}", ends=ends, lane=lane)
    return asyncio.ensure_future(transport.open(outgoing))


async def read(task: asyncio.Task[UpstreamAnswer]) -> bytes:
    answer, body = await task, b""
    while data := await answer.stream.read():
        body += data
    return body


async def waiting(transport: UpstreamTransport, count: int) -> None:
    while transport.gauges.waiting < count:
        await turns()


async def test_lanes_over_one_stream(pki: Pki, open_caller: Open) -> None:
    """The peer allows one stream: the order in which requests come to it is the lanes'."""
    async with (
        RecordingUpstream(tls=pki.server_context(), max_concurrent_streams=1) as upstream,
        open_caller(upstream) as caller,
    ):
        tasks = [send(caller.transport, "/first", CHAT)]
        await upstream.arrived(1)
        for number, (path, lane) in enumerate(
            (("/agent", AGENT), ("/chat", CHAT), ("/completion", COMPLETION)), 1
        ):
            tasks.append(send(caller.transport, path, lane))
            await waiting(caller.transport, number)
        for number in range(1, 5):
            await finish(await upstream.arrived(number))
        await asyncio.gather(*map(read, tasks))
        assert [request.path for request in upstream.requests] == ["/first", "/completion", "/chat", "/agent"]
        assert upstream.resets == 0


async def test_one_too_many_is_refused_unsent(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2, max_in_flight=1, max_queue=1) as caller:
        tasks = [send(caller.transport, "/1", CHAT)]
        await h2.arrived(1)
        tasks.append(send(caller.transport, "/2", CHAT))
        await waiting(caller.transport, 1)
        with pytest.raises(SaturatedError) as refusal:
            await send(caller.transport, "/3", CHAT)
        assert 1 <= refusal.value.retry_after_s <= 30
        for number in (1, 2):
            await finish(await h2.arrived(number))
        await asyncio.gather(*map(read, tasks))
        assert [request.path for request in h2.requests] == ["/1", "/2"]
        assert caller.gauges.shed == [0, 1, 0]


async def test_who_is_cancelled_or_late_in_line_is_never_sent(h2: RecordingUpstream, open_caller: Open) -> None:
    loop = asyncio.get_running_loop()
    async with open_caller(h2, max_in_flight=1) as caller:
        first = send(caller.transport, "/first", CHAT)
        await h2.arrived(1)
        gone, late = (
            send(caller.transport, "/gone", CHAT),
            send(caller.transport, "/late", CHAT, loop.time() + 0.02),
        )
        last = send(caller.transport, "/last", CHAT)
        await waiting(caller.transport, 3)
        await cancelled(gone)
        with pytest.raises(TotalTimeoutError):
            await late
        await finish(h2.requests[0])
        await finish(await h2.arrived(2))
        await asyncio.gather(read(first), read(last))
        assert [request.path for request in h2.requests] == ["/first", "/last"]
        assert (h2.resets, caller.gauges.expired) == (0, [0, 1, 0])


async def test_first_byte_timeout_counts_the_wait(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2, max_in_flight=1, first_byte_timeout_ms=100) as caller:
        first = send(caller.transport, "/first", CHAT)
        (await h2.arrived(1)).respond(200)
        answer = await first
        with pytest.raises(httpx.PoolTimeout):
            await send(caller.transport, "/late", CHAT)
        answer.stream.cancel()
        assert len(h2.requests) == 1


async def test_organizations_share_the_cap_of_an_origin_but_no_connection(h2: RecordingUpstream, pki: Pki) -> None:
    pool = TransportPool(allowed=LOOPBACK)
    acme, globex = (
        pool.for_upstream(binding(h2, pki, org=OrgId(org), max_in_flight=1)) for org in ("acme", "globex")
    )
    tasks = [send(acme, "/acme", CHAT)]
    await h2.arrived(1)
    for number in range(1, 4):
        tasks.append(send(acme, "/acme", CHAT))
        await waiting(acme, number)
    tasks.append(send(globex, "/globex", CHAT))
    while globex.gauges.handshakes < 1:  # who has no connection yet is passed over
        await turns()
    for number in range(1, 6):
        assert h2.open_streams <= 1
        await finish(await h2.arrived(number))
    await asyncio.gather(*map(read, tasks))
    assert [request.path for request in h2.requests] == ["/acme", "/acme", "/globex", "/acme", "/acme"]
    assert len({request.connection.number for request in h2.requests if request.path == "/globex"}) == 1
    assert {r.connection.number for r in h2.requests if r.path == "/globex"}.isdisjoint(
        r.connection.number for r in h2.requests if r.path == "/acme"
    )
    await pool.aclose()


async def test_organizations_without_a_cap_share_nothing(h2: RecordingUpstream, pki: Pki) -> None:
    pool = TransportPool(allowed=LOOPBACK)
    acme = pool.for_upstream(binding(h2, pki, org=OrgId("acme"), max_in_flight=1))
    free = pool.for_upstream(binding(h2, pki, org=OrgId("globex")))
    tasks = [send(acme, "/acme", CHAT), send(free, "/globex", CHAT), send(free, "/globex", CHAT)]
    for number in (1, 2, 3):
        await h2.arrived(number)
    for request in h2.requests:
        await finish(request)
    await asyncio.gather(*map(read, tasks))
    await pool.aclose()


async def test_http_1_1_keeps_the_cap_and_the_lanes(pki: Pki, open_caller: Open) -> None:
    async with (
        RecordingUpstream(tls=pki.server_context(("http/1.1",))) as upstream,
        open_caller(upstream, max_in_flight=1, max_queue=2) as caller,
    ):
        tasks = [send(caller.transport, "/first", CHAT)]
        await upstream.arrived(1)
        for number, (path, lane) in enumerate((("/agent", AGENT), ("/completion", COMPLETION)), 1):
            tasks.append(send(caller.transport, path, lane))
            await waiting(caller.transport, number)
        for number in range(1, 4):
            await finish(await upstream.arrived(number))
        await asyncio.gather(*map(read, tasks))
        assert [request.path for request in upstream.requests] == ["/first", "/completion", "/agent"]
