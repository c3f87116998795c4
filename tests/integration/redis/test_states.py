"""What becomes of a Redis while it counts: killed, full, busy, a replica, emptied, of two versions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from msgspec.structs import replace

from gateway.errors import UnavailableError
from gateway.limits.protocol import SliceAsk, Wish
from gateway.limits.redis import RedisSlices
from gateway.limits.redis_library import Library, library
from gateway.limits.redis_open import open_route
from tests.integration.redis.place import ACME, DAY, Caller, settings, store, unavailable, warnings
from tests.integration.redis.test_faults import again
from tests.kit.redis import HOST, RedisServer, redis_server
from tests.kit.wait import until


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


async def test_killed_and_started_again_empty_it_hears_from_workers_what_they_know(server: RedisServer) -> None:
    async with store(settings(server.address)) as slices:
        caller = Caller(slices)
        answer = await caller.take(100)
        answer = await caller.take(0, replace(DAY, spent=100))
        knows, epoch = answer.slices[0].left, caller.epoch
        assert knows == 900
        server.stop(kill=True)
        with pytest.raises(UnavailableError):
            await caller.take(0)
        caller.pending = None
        server.start()
        await again(other := Caller(slices, name="w2"))
        assert other.epoch != epoch
        await caller.take(0)
        assert caller.session == ""
        caller.epoch = epoch  # the new session says what it knew of the old epoch
        answer = await caller.take(0, replace(DAY, left=knows, left_at_us=answer.now_us))
        assert answer.slices[0].left == 900


async def test_a_full_redis_takes_nothing_and_comes_back(
    server: RedisServer, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with store(settings(server.address)) as slices:
        caller = Caller(slices)
        await caller.take(7)
        client.config_set("maxmemory", "1mb")
        for _ in range(3):
            assert "its memory is full" in await unavailable(slices)
        assert "its memory is full" in await slices.state()
        client.config_set("maxmemory", "0")
        assert await caller.left() == 993
        assert await slices.state() == ""
    assert len(warnings(caplog)) == 2


async def test_a_replica_is_never_written_to(server: RedisServer) -> None:
    options = (f"replicaof {HOST} {server.port}", "replica-read-only no")
    with redis_server(options=options) as replica, replica.client() as client:
        until(lambda: client.info("replication")["master_link_status"] == "up", "the replica follows")
        async with store(settings(replica.address)) as slices:
            assert "it is a replica" in await unavailable(slices)
        assert client.dbsize() == 0


async def test_one_that_becomes_a_replica_is_left_until_it_is_none(server: RedisServer) -> None:
    with redis_server() as master, server.client() as client:
        async with store(settings(server.address)) as slices:
            caller = Caller(slices)
            await caller.take(5)
            client.replicaof(HOST, master.port)
            assert "it is a replica" in await unavailable(slices)
            client.replicaof("NO", "ONE")
            await again(Caller(slices))
            assert not slices.failing


async def test_a_busy_redis_is_an_outage_until_the_script_is_killed(
    server: RedisServer, client: redis.Redis
) -> None:
    async with store(settings(server.address, timeout_ms=250)) as slices:
        caller = Caller(slices)
        await caller.take(5)
        client.config_set("busy-reply-threshold", "1")

        def spin() -> None:
            with server.client() as other, pytest.raises(redis.ResponseError, match="killed"):
                other.eval("while true do end", 0)

        busy = threading.Thread(target=spin)
        busy.start()

        def is_busy() -> bool:
            try:
                client.ping()
            except redis.ResponseError as error:
                return str(error).startswith("BUSY") or "BUSY" in str(error)
            return False

        until(is_busy, "the script is under way")
        assert "a script keeps it busy" in await unavailable(slices)
        client.script_kill()
        busy.join()
        await again(caller)
        assert await caller.left() == 995


async def test_a_library_that_is_gone_is_loaded_again(
    server: RedisServer, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    for scripts in (False, True):
        async with store(settings(server.address)) as slices:
            if scripts:
                ((_, at),) = await slices._route.servers()
                at._functions = False
            caller = Caller(slices)
            await caller.take(5)
            client.function_flush()
            client.script_flush()
            assert await caller.left() == 995
    assert not warnings(caplog)


async def test_without_functions_scripts_take_their_place() -> None:
    """As on Redis before 7."""
    renamed = ("rename-command FCALL nofcall", "rename-command FUNCTION nofunction")
    with redis_server(options=renamed) as server:
        async with store(settings(server.address)) as slices:
            await slices.warm()
            caller = Caller(slices)
            await caller.take(5)
            assert await caller.left() == 995
            ((_, at),) = await slices._route.servers()
            assert not at.functions


async def test_two_versions_of_the_library_count_together(server: RedisServer) -> None:
    """As in a rollout: each worker calls its own, on the same buckets."""
    given = settings(server.address)
    old, name = library(), "orgate_limits_other"
    new = Library(name, old.function.replace(old.name, name), old.script + "-- newer\n", "0" * 40)
    newer = RedisSlices(open_route(given, Path(), new), prefix=given.prefix, text=new)
    async with store(given) as older:
        one, two = Caller(older, name="w1"), Caller(newer, name="w2")
        await one.take(100)
        assert (await two.take(50)).slices[0].left == 850
        assert await one.left() == 850
        with server.client() as client:
            assert len(client.function_list()) == 2
    await newer.aclose()


async def test_all_that_is_written_is_forgotten_some_day(server: RedisServer, client: redis.Redis) -> None:
    async with store(settings(server.address)) as slices:
        caller, other = Caller(slices), Caller(slices, name="w2")
        await other.take(0)
        await caller.take(5)
        await caller.take(1, replace(DAY, spent=3, want=10))
        keys = list(client.scan_iter())
        # The account, its sessions, its index; two workers' sessions, what one of them holds; the bucket.
        assert len(keys) == 3 + 2 + 1 + 1
        day_ms = 86_400_000
        assert all(0 < client.pttl(key) < 6 * day_ms for key in keys), {key: client.pttl(key) for key in keys}
        await caller.take(0)
        assert all(key.decode().startswith(f"{slices.prefix}:{{{ACME}}}:") for key in keys)


async def test_a_bucket_that_is_full_is_forgotten_soon(server: RedisServer, client: redis.Redis) -> None:
    async with store(settings(server.address)) as slices:
        caller = Caller(slices)
        await caller.take(1)
        await caller.take(0, replace(DAY, back=1))
        (bucket,) = client.scan_iter(match=f"{slices.prefix}:*:b:*")
        assert client.pttl(bucket) <= 61_000  # nothing is forgotten in the first minute of an epoch


async def test_a_message_may_be_about_very_many_buckets(server: RedisServer) -> None:
    """More than Lua has room for in one call."""
    async with store(settings(server.address, timeout_ms=5_000)) as slices:
        parts = tuple(replace(DAY, subject=f"mem_{number}") for number in range(9_000))
        wishes = tuple((Wish(place, 1, 1),) for place in range(9_000))
        answer = await slices.ask(SliceAsk(ACME, "w1", "", "", 1, 1, parts, wishes))
        assert all(result.granted == (1,) for result in answer.results)
        spent = tuple(replace(part, spent=1) for part in parts)
        again = await slices.ask(SliceAsk(ACME, "w1", answer.session, answer.epoch, 2, 1, spent))
        assert {one.left for one in again.slices} == {999}
        assert len(await slices.usage(ACME)) == 9_000
