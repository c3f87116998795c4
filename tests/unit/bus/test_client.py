"""What a worker believes, by a clock that only tests move. The socket leads nowhere."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.bus.client import BusClient, OutOfStepError
from gateway.bus.messages import Beat, DeltaDown, ResetDown
from tenants.ids import OrgId
from tenants.models import Org
from tenants.snapshot import Delta, Snapshot, TenantRecord

ACME = OrgId("acme")


class FakeClock:
    us = 5_000_000

    def now(self) -> float:
        return self.us / 1e6

    def monotonic_us(self) -> int:
        return self.us


class FakeReader:
    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.loads = 0
        self.broken = False
        self.threads: set[int] = set()

    def data_version(self) -> int:
        self.threads.add(threading.get_ident())
        if self.broken:
            raise OSError
        return self.snapshot.version

    def load(self) -> Snapshot:
        self.loads += 1
        if self.broken:
            raise OSError
        return self.snapshot


class World:
    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.reader = FakeReader()
        self.seen: list[int] = []
        self.resets: list[tuple[OrgId, str]] = []
        self.client = BusClient(
            folder / "nothing.sock",
            "w1",
            lambda snapshot: self.seen.append(snapshot.version),
            lambda org, member: self.resets.append((org, member)),
            clock=self.clock,
            reader=self.reader,
            max_staleness_s=60,
        )

    def wait(self, seconds: float) -> None:
        self.clock.us += int(seconds * 1e6)

    async def hear(self, version: int, name: str = "Acme", *, full: bool = False, jwks: str = "") -> None:
        orgs = (TenantRecord(Org(ACME, name)),)
        await self.client._take(DeltaDown(Delta(version, full, orgs, jwks=jwks)))

    @property
    def kind(self) -> str:
        return self.client.state.kind

    def refuses(self) -> bool:
        return not self.client.accepting

    @property
    def name(self) -> str:
        return self.client.snapshot.tenants[ACME].org.name


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_without_a_snapshot_nothing_is_accepted(world: World) -> None:
    assert world.refuses()
    world.reader.broken = True
    assert not await world.client.look()
    assert world.refuses()
    assert world.kind == "stale"


async def test_a_second_of_silence_stops_it_until_it_has_looked(world: World) -> None:
    await world.hear(1, full=True)
    assert (world.kind, world.client.accepting) == ("live", True)
    world.wait(1.1)
    assert world.refuses()
    world.reader.snapshot = Snapshot(2)
    assert await world.client.look()
    assert (world.kind, world.client.accepting) == ("polling", True)
    assert world.seen == [1, 2]


async def test_with_the_store_gone_too_it_serves_until_it_is_too_stale(world: World) -> None:
    await world.hear(1, full=True)
    world.reader.broken = True
    world.wait(59)
    assert not await world.client.look()
    assert world.client.accepting
    assert world.kind == "stale"
    assert world.client.state.seconds == 59
    world.wait(1.1)
    await world.client.look()
    assert world.refuses()
    world.reader.broken = False
    await world.client.look()
    assert world.client.accepting


async def test_the_store_is_read_only_when_it_changed(world: World) -> None:
    world.reader.snapshot = Snapshot(3)
    for _ in range(3):
        await world.client.look()
    assert (world.reader.loads, world.seen) == (1, [3])


async def test_the_store_is_read_from_one_thread_whatever_the_others_do(world: World) -> None:
    release = threading.Event()
    busy: list[asyncio.Task[bool]] = []
    for _ in range(4):
        assert await world.client.look()
        busy.append(asyncio.create_task(asyncio.to_thread(release.wait, 20)))
        await asyncio.sleep(0)  # the shared pool's idle thread is taken
    release.set()
    assert all(await asyncio.gather(*busy))
    assert len(world.reader.threads) == 1


async def test_a_publisher_that_is_behind_the_store_takes_nothing_back(world: World) -> None:
    world.reader.snapshot = Snapshot(5, [TenantRecord(Org(ACME, "newest"))])
    await world.client.look()
    await world.hear(4, "older", full=True, jwks="keys")
    assert (world.name, world.client.snapshot.version, world.client.snapshot.jwks) == ("newest", 5, "keys")
    await world.hear(4, "older", jwks="more keys")
    assert (world.name, world.client.snapshot.jwks) == ("newest", "more keys")
    await world.hear(6, "next")
    assert world.name == "next"


async def test_keys_are_waited_for_beyond_a_snapshot_that_has_none(world: World) -> None:
    keyed = asyncio.create_task(world.client.keyed())
    world.reader.snapshot = Snapshot(5)
    assert await world.client.look()
    await world.client.known()
    assert not keyed.done()
    await world.hear(5, jwks="keys")
    await keyed


async def test_a_store_that_was_set_back_is_believed(world: World) -> None:
    await world.hear(9, full=True)
    world.reader.snapshot = Snapshot(2)
    await world.hear(2, "from the backup", full=True)
    assert (world.name, world.client.snapshot.version) == ("from the backup", 2)


async def test_a_full_delta_forgets_what_it_does_not_name(world: World) -> None:
    await world.hear(1, full=True)
    await world.client._take(DeltaDown(Delta(2, True)))
    assert not world.client.snapshot.tenants


async def test_resets_are_passed_on(world: World) -> None:
    await world.client._take(ResetDown(ACME, "mem_1"))
    assert world.resets == [(ACME, "mem_1")]


async def test_a_change_that_was_announced_and_never_came_is_noticed(world: World) -> None:
    await world.hear(1, full=True)
    await world.client._take(Beat(1))
    with pytest.raises(OutOfStepError):
        await world.client._take(Beat(2))
