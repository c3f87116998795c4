"""Three nodes that share the slots: an organization is on one of them, and moves."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterator
from typing import Any

import pytest

from tenants.ids import OrgId
from tests.integration.redis.place import ACME, Caller, settings, store, unavailable, warnings
from tests.integration.redis.test_faults import again
from tests.kit.redis import HOST, RedisServer, redis_cluster, shared_server

SLOT = crc_hqx(ACME.encode(), 0) % 16_384


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[RedisServer]]:
    with redis_cluster() as nodes:
        yield nodes


def owner(nodes: list[RedisServer], slot: int = SLOT) -> RedisServer:
    with nodes[0].client() as client:
        found: Any = client.cluster("SLOTS")
    port = next(int(master[1]) for first, last, master, *_ in found if first <= slot <= last)
    return next(node for node in nodes if node.port == port)


def name(node: RedisServer) -> str:
    with node.client() as client:
        return bytes(client.execute_command("CLUSTER MYID")).decode()


def command(node: RedisServer, *words: object) -> Any:
    with node.client() as client:
        return client.execute_command(*words)


def given(nodes: list[RedisServer], **more: Any) -> Any:
    """As an operator writes it: one node is enough to learn of the others."""
    return settings(nodes[0].address, topology="cluster", **more)


async def test_organizations_are_spread_and_each_is_whole(nodes: list[RedisServer]) -> None:
    async with store(given(nodes)) as slices:
        orgs = [OrgId(f"org{number}") for number in range(12)]
        for org in orgs:
            caller = Caller(slices, org)
            await caller.take(7)
            assert await caller.left() == 993
            assert len(await slices.usage(org)) == 1
        for node in nodes:
            with node.client() as client:
                assert list(client.scan_iter(match=f"{slices.prefix}:*"))


async def test_a_slot_that_has_moved_is_followed(
    nodes: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    async with store(given(nodes)) as slices:
        caller = Caller(slices)
        await caller.take(7)
        source = owner(nodes)
        target = next(node for node in nodes if node is not source)
        move(nodes, source, target)
        assert await caller.left() == 993
        assert (await slices.usage(ACME))[0].level == 993
    assert not warnings(caplog)


async def test_while_a_slot_is_on_its_way_nothing_is_counted_twice(nodes: list[RedisServer]) -> None:
    """Half of an account is here and half there: it is an outage, which each limit has an answer to."""
    async with store(given(nodes)) as slices:
        caller = Caller(slices)
        await caller.take(7)
        source = owner(nodes)
        target = next(node for node in nodes if node is not source)
        command(target, "CLUSTER SETSLOT", SLOT, "IMPORTING", name(source))
        command(source, "CLUSTER SETSLOT", SLOT, "MIGRATING", name(target))
        with source.client() as client:
            keys = list(client.scan_iter(match=f"{slices.prefix}:{{{ACME}}}:*"))
        command(source, "MIGRATE", HOST, target.port, "", 0, 5_000, "KEYS", *keys[: len(keys) // 2])
        assert "the slot is being moved" in await unavailable(slices, ACME)
        move(nodes, source, target)
        await again(Caller(slices, name="w2"))
        assert (await slices.usage(ACME))[0].level == 993


async def test_a_node_that_is_gone_takes_its_own_organizations_along_only(
    nodes: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    async with store(given(nodes, timeout_ms=500)) as slices:
        lost = owner(nodes)
        other = next(
            OrgId(f"org{number}")
            for number in range(100)
            if owner(nodes, crc_hqx(f"org{number}".encode(), 0) % 16_384) is not lost
        )
        here, there = Caller(slices), Caller(slices, other)
        await here.take(7)
        await there.take(7)
        lost.stop(kill=True)
        try:
            for _ in range(5):
                await unavailable(slices, ACME)
                assert await there.left() == 993
            assert not any("answers again" in line for line in warnings(caplog))
        finally:
            lost.start()
        await again(Caller(slices, name="w2"))
        assert warnings(caplog)[-1].startswith("limits: Redis answers again, after ")
        assert not slices.failing


async def test_a_node_that_is_spoken_to_as_a_single_one_is_found_out(nodes: list[RedisServer]) -> None:
    elsewhere = next(node for node in nodes if node is not owner(nodes))
    async with store(settings(elsewhere.address)) as slices:
        assert "limits.topology does not say so" in await unavailable(slices, ACME)


async def test_no_cluster_where_one_is_said_to_be_is_found_out() -> None:
    async with store(settings(shared_server("redis").address, topology="cluster")) as slices:
        assert "cluster support disabled" in await unavailable(slices)


def move(nodes: list[RedisServer], source: RedisServer, target: RedisServer) -> None:
    """What `redis-cli --cluster reshard` does with one slot."""
    command(target, "CLUSTER SETSLOT", SLOT, "IMPORTING", name(source))
    command(source, "CLUSTER SETSLOT", SLOT, "MIGRATING", name(target))
    keys = command(source, "CLUSTER GETKEYSINSLOT", SLOT, 1_000)
    if keys:
        command(source, "MIGRATE", HOST, target.port, "", 0, 5_000, "KEYS", *keys)
    for node in (target, source, *nodes):
        command(node, "CLUSTER SETSLOT", SLOT, "NODE", name(target))
