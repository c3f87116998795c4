from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import msgspec
import pytest

from gateway.bus.hub import BACKLOG, Hub
from gateway.bus.messages import Beat, DeltaDown, Down, ResetDown
from gateway.clock import SystemClock
from tenants.ids import OrgId
from tenants.models import Org
from tenants.snapshot import Delta, TenantRecord

ACME, BETA = OrgId("acme"), OrgId("beta")


def delta(version: int, *orgs: OrgId, full: bool = False, jwks: str = "") -> Delta:
    return Delta(
        version, full=full, orgs=tuple(TenantRecord(Org(org, f"{org} {version}")) for org in orgs), jwks=jwks
    )


async def read(lines: AsyncGenerator[bytes]) -> list[Down]:
    async with asyncio.timeout(60):
        return [msgspec.json.decode(line, type=Down) for line in (await anext(lines)).splitlines()]


@pytest.fixture
def hub() -> Hub:
    return Hub(SystemClock())


async def test_a_worker_begins_with_the_whole_and_then_hears_changes_in_order(hub: Hub) -> None:
    hub.publish(delta(1, ACME, full=True, jwks="keys"))
    hub.publish(delta(2, BETA))
    lines = hub.attach("w1")
    assert await read(lines) == [DeltaDown(Delta(2, True, (
        TenantRecord(Org(ACME, "acme 1")), TenantRecord(Org(BETA, "beta 2"))), jwks="keys"))]  # fmt: skip
    hub.publish(delta(3, ACME))
    hub.reset(ACME, "mem_1")
    assert await read(lines) == [DeltaDown(delta(3, ACME)), ResetDown(ACME, "mem_1")]
    await lines.aclose()


async def test_silence_is_broken_by_beats(hub: Hub) -> None:
    hub.publish(delta(4, full=True))
    lines = hub.attach("w1")
    await read(lines)
    assert await read(lines) == [Beat(4)]
    await lines.aclose()


async def test_before_the_first_publication_nothing_is_said(hub: Hub) -> None:
    lines = hub.attach("w1")
    first = asyncio.ensure_future(read(lines))
    await asyncio.sleep(0)
    assert not first.done()
    hub.publish(delta(1, ACME, full=True))
    assert await first == [DeltaDown(delta(1, ACME, full=True))]
    await lines.aclose()


async def test_live_waits_for_every_worker(hub: Hub) -> None:
    hub.publish(delta(1, full=True))
    streams = [hub.attach("w1"), hub.attach("w2")]
    for lines in streams:
        await read(lines)
    waiting = asyncio.ensure_future(hub.live(1, timeout=60))
    assert hub.ack("w1", 1)
    await asyncio.sleep(0)
    assert not waiting.done()
    assert hub.ack("w2", 1)
    assert await waiting == ()
    assert [(w.worker, w.state) for w in hub.workers()] == [("w1", "live"), ("w2", "live")]
    hub.publish(delta(2))
    assert {w.state for w in hub.workers()} == {"behind"}
    for lines in streams:
        await lines.aclose()


async def test_a_worker_that_does_not_acknowledge_is_fenced_and_left_out(hub: Hub) -> None:
    hub.publish(delta(1, full=True))
    lines = hub.attach("w1")
    await read(lines)
    assert await hub.live(1, timeout=0.01) == ("w1",)
    assert [w.state for w in hub.workers()] == ["fenced"]
    assert await hub.live(1, timeout=60) == ()
    with pytest.raises(StopAsyncIteration):  # its stream has ended: it will find itself out of touch
        await read(lines)
    assert hub.workers() == ()


async def test_a_worker_that_leaves_is_not_waited_for(hub: Hub) -> None:
    hub.publish(delta(1, full=True))
    left: list[str] = []
    hub.on_leave(left.append)
    lines = hub.attach("w1")
    await read(lines)
    waiting = asyncio.ensure_future(hub.live(1, timeout=60))
    await asyncio.sleep(0)
    await lines.aclose()
    assert await waiting == ()
    assert left == ["w1"]
    assert not hub.ack("w1", 1)


async def test_a_slow_worker_is_let_go(hub: Hub) -> None:
    hub.publish(delta(1, full=True))
    lines = hub.attach("w1")
    await read(lines)
    for version in range(2, BACKLOG + 3):
        hub.publish(delta(version))
    with pytest.raises(StopAsyncIteration):
        await read(lines)


async def test_a_second_stream_of_a_worker_ends_the_first(hub: Hub) -> None:
    hub.publish(delta(1, full=True))
    left: list[str] = []
    hub.on_leave(left.append)
    first, second = hub.attach("w1"), hub.attach("w1")
    await read(first)
    await read(second)
    with pytest.raises(StopAsyncIteration):
        await read(first)
    assert left == []
    hub.publish(delta(2))
    assert await read(second) == [DeltaDown(delta(2))]
    await second.aclose()


async def test_new_keys_are_acknowledged_although_the_version_is_the_same(hub: Hub) -> None:
    hub.publish(delta(1, full=True))
    lines = hub.attach("w1")
    await read(lines)
    hub.ack("w1", 1)
    hub.publish(delta(1, jwks="new"))
    waiting = asyncio.ensure_future(hub.live(1, timeout=60))
    await asyncio.sleep(0)
    assert not waiting.done()
    hub.ack("w1", 1)
    assert await waiting == ()
    await lines.aclose()


async def test_closing_ends_every_stream(hub: Hub) -> None:
    lines = hub.attach("w1")
    first = asyncio.ensure_future(read(lines))
    await asyncio.sleep(0)
    hub.close()
    with pytest.raises(StopAsyncIteration):
        await first
