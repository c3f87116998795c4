"""A master, its replica and a Sentinel that fails over: where the master is, it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.redis.place import Caller, settings, store, unavailable, warnings
from tests.integration.redis.test_faults import again
from tests.kit.ports import free_port
from tests.kit.redis import HOST, Sentinel, redis_sentinel
from tests.kit.wait import until


@pytest.fixture
def place() -> Iterator[Sentinel]:
    with redis_sentinel() as place:
        yield place


async def test_a_failover_is_followed_and_what_was_spent_stays_spent(
    place: Sentinel, caplog: pytest.LogCaptureFixture
) -> None:
    # The first of the Sentinels is gone for good: the next is asked.
    addresses = (f"{HOST}:{free_port()}", place.sentinel.address)
    async with store(settings(*addresses, topology="sentinel", master=place.name)) as slices:
        caller = Caller(slices)
        await caller.take(7)
        with place.replica.client() as client:
            until(lambda: client.dbsize() > 0, "the replica has it")
            position = client.info("replication")["slave_repl_offset"]
        with place.master.client() as client:
            client.wait(1, 5_000)
        place.failover()
        assert position > 0
        await again(caller)
        assert await caller.left() == 993
        with place.replica.client() as client:
            assert client.execute_command("ROLE")[0] == b"master"
    assert not warnings(caplog) or "answers again, after " in warnings(caplog)[-1]


async def test_a_master_that_is_killed_is_an_outage_until_another_is_chosen(place: Sentinel) -> None:
    given = settings(place.sentinel.address, topology="sentinel", master=place.name, timeout_ms=500)
    async with store(given) as slices:
        caller = Caller(slices)
        await caller.take(7)
        with place.master.client() as client:
            client.wait(1, 5_000)
        place.master.stop(kill=True)
        await unavailable(slices)
        place.wait_for(place.replica)
        await again(caller)
        assert await caller.left() == 993


async def test_a_name_that_no_sentinel_knows_is_said(place: Sentinel) -> None:
    async with store(settings(place.sentinel.address, topology="sentinel", master="another")) as slices:
        assert "knows no master 'another'" in await unavailable(slices)
