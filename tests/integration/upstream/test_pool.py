"""Several connections, several organizations, several versions of one binding."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from msgspec import structs

from gateway.upstream.transport import TransportPool
from tenants.ids import OrgId
from tests.integration.upstream.caller import LOOPBACK, Caller, binding, read, stream_of
from tests.integration.upstream.conftest import Open
from tests.integration.upstream.test_cancel import finish
from tests.kit.certs import Pki
from tests.kit.scripts import openai
from tests.kit.signal import turns
from tests.kit.upstream import RecordingUpstream


async def test_connections_are_dialled_ahead_and_share_the_load(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2, connections=3) as caller:
        tasks = []
        for number in range(1, 4):
            tasks.append(caller.start())
            await h2.arrived(number)
            await h2.connected(min(number + 1, 3))  # the next is dialled as soon as all have something to do
            while caller.gauges.handshakes < min(number + 1, 3):
                await turns()
        assert sorted(request.connection.number for request in h2.requests) == [1, 2, 3]
        for request in h2.requests:
            await finish(request)
        await asyncio.gather(*[read(await task) for task in tasks])
        assert (len(h2.connections), caller.gauges.connections) == (3, 3)


async def test_organizations_share_no_connection(h2: RecordingUpstream, pki: Pki) -> None:
    h2.script = openai()
    pool = TransportPool(allowed=LOOPBACK)
    for org in ("acme", "globex", "acme"):
        caller = Caller(pool.for_upstream(binding(h2, pki, org=OrgId(org))), h2.url)
        await caller.ask()
    assert [request.connection.number for request in h2.requests] == [1, 2, 1]
    assert {(org, name, g.requests) for org, name, g in pool.gauges()} == {
        ("acme", "main", 2),
        ("globex", "main", 1),
    }
    await pool.aclose()


async def test_an_upstream_made_anew_has_nothing_of_the_one_before(h2: RecordingUpstream, pki: Pki) -> None:
    """Its versions begin again: the same name and version, and another server, or other trust in the same one."""
    h2.script = openai()
    pool = TransportPool(allowed=LOOPBACK)
    before = binding(h2, pki)
    await Caller(pool.for_upstream(before), h2.url).ask()
    assert pool.for_upstream(before) is pool.for_upstream(structs.replace(before))
    async with RecordingUpstream(tls=pki.server_context(), script=openai()) as other:
        await Caller(pool.for_upstream(binding(other, pki)), other.url).ask()
        assert (len(h2.requests), len(other.requests)) == (1, 1)
    assert pool.for_upstream(before) is not pool.for_upstream(structs.replace(before, connections=9))
    await pool.aclose()


async def test_new_version_replaces_the_connections(h2: RecordingUpstream, pki: Pki) -> None:
    """What is in flight on the old ones finishes; they close when idle. A call pinned to the old version is
    served too, and leaves no connection behind."""
    pool = TransportPool(allowed=LOOPBACK)
    old, new = binding(h2, pki, version=1), binding(h2, pki, version=2)
    task = Caller(pool.for_upstream(old), h2.url).start()
    first = await h2.arrived(1)
    answer = asyncio.ensure_future(Caller(pool.for_upstream(new), h2.url).ask())
    second = await h2.arrived(2)
    assert (first.connection.number, second.connection.number) == (1, 2)
    await finish(second)
    await answer
    await finish(first)
    assert await read(await task) == b'{"ok": 1}'
    await h2.until(lambda: first.connection.closed, "the old connection to close")

    pinned = asyncio.ensure_future(Caller(pool.for_upstream(old), h2.url).ask())
    third = await h2.arrived(3)
    await finish(third)
    assert await pinned == b'{"ok": 3}'
    await h2.until(lambda: third.connection.closed, "the pinned call's connection to close")
    assert not second.connection.closed
    assert h2.resets == 0
    await pool.aclose()


async def test_closing_resets_what_is_in_flight(h2: RecordingUpstream, open_caller: Open) -> None:
    async with open_caller(h2) as caller:
        task, silent = caller.start(), caller.start()
        for number in (1, 2):
            await h2.arrived(number)
        h2.requests[0].respond(200)
        chunks = stream_of(await task) if await settled(task, silent) is task else stream_of(await silent)
        await caller.transport.aclose()
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(chunks)
        await asyncio.gather(task, silent, return_exceptions=True)
        for request in h2.requests:
            assert (await request.reset()).code == 8
        with pytest.raises(httpx.ConnectError):
            await caller.start()


async def settled(*tasks: asyncio.Task[httpx.Response]) -> asyncio.Task[httpx.Response]:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return done.pop()


async def test_mixed_traffic_leaves_nothing_behind(pki: Pki) -> None:
    """A small soak: a third of the requests are given up at different points, the others are all answered."""
    async with RecordingUpstream(tls=pki.server_context(), script=openai(chunks=5, pace_s=0.001)) as upstream:
        pool = TransportPool(allowed=LOOPBACK)
        caller = Caller(pool.for_upstream(binding(upstream, pki, connections=2)), upstream.url)

        async def one(number: int) -> int:
            task = caller.start(b'{"stream": true}')
            if number % 3:
                return (await read(await task)).count(b"data: ")
            await turns(number % 50)
            task.cancel()
            for result in await asyncio.gather(task, return_exceptions=True):
                if isinstance(result, httpx.Response):
                    await result.aclose()
            return 0

        for _ in range(5):
            answers = await asyncio.gather(*(one(number) for number in range(120)))
            assert [a for number, a in enumerate(answers) if number % 3] == [6] * 80
        await upstream.idle()
        assert (caller.gauges.streams, caller.gauges.waiting, len(upstream.connections)) == (0, 0, 2)
        assert upstream.opened == upstream.ended + upstream.resets
        assert not upstream.faults
        await pool.aclose()


async def test_connections_to_a_deleted_upstream_close(h2: RecordingUpstream, pki: Pki) -> None:
    h2.script = openai()
    pool = TransportPool(allowed=LOOPBACK)
    for org in ("acme", "globex"):
        await Caller(pool.for_upstream(binding(h2, pki, org=OrgId(org))), h2.url).ask()
    theirs, ours = (connection for connection in h2.connections)
    pool.keep({(OrgId("globex"), "main")})
    await h2.until(lambda: theirs.closed, "the deleted upstream's connection to close")
    assert not ours.closed
    assert [org for org, _, _ in pool.gauges()] == ["globex"]
    await pool.aclose()
