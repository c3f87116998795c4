"""What a worker tries when an upstream refuses a key: the newer one, or the one that a rotation keeps."""

from __future__ import annotations

import asyncio

import pytest

from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.secrets.lease import RETRY_S, KeyLeases
from gateway.secrets.store import NoSuchSecretError, StoreUnavailableError
from tenants.ids import OrgId

ACME = OrgId("acme")


class Store:
    """`before`: what is kept. `looks` counts the reads of it."""

    def __init__(self) -> None:
        self.newest = 2
        self.before: int | None = 1
        self.looks = 0
        self.down = False

    async def get(self, org: OrgId, upstream: str) -> Credential:
        if self.down:
            raise StoreUnavailableError("sealed")
        return Credential(self.newest, Secret(f"sk-{self.newest}"))

    async def get_before(self, org: OrgId, upstream: str, version: int) -> Credential:
        self.looks += 1
        await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailableError("sealed")
        if self.before is None:
            raise NoSuchSecretError("nothing is kept")
        return Credential(self.before, Secret(f"sk-{self.before}"))


class Bench:
    def __init__(self) -> None:
        self.now = 1_000.0
        self.store = Store()
        self.told: list[tuple[str, str, int]] = []
        self.leases = KeyLeases(self.store, lambda: self.now, lambda: 0.5, lambda *said: self.told.append(said))

    async def other(self, version: int, announced: int = 2) -> int | None:
        found = await self.leases.other(ACME, "up", version, announced)
        return found.version if found is not None else None


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.leases.lease(ACME, "up", 2)
    return made


async def test_within_an_overlap_it_is_the_key_before_and_the_store_is_asked_once(bench: Bench) -> None:
    assert await asyncio.gather(*(bench.other(2) for _ in range(20))) == [1] * 20
    assert bench.store.looks == 1
    bench.now += RETRY_S
    bench.store.before = None
    assert await bench.other(2) is None
    assert await bench.other(2) is None
    assert bench.store.looks == 2


async def test_a_key_that_is_newer_than_the_refused_one_goes_first(bench: Bench) -> None:
    assert await bench.other(1) == 2
    bench.store.newest = 3
    assert await bench.other(2, announced=3) == 3
    assert bench.store.looks == 0


async def test_what_was_rolled_back_and_is_not_announced_yet_is_found(bench: Bench) -> None:
    bench.store.before, bench.store.newest = None, 3
    assert await bench.other(2) == 3


async def test_a_store_that_is_down_has_no_other(bench: Bench) -> None:
    bench.store.down = True
    assert await bench.other(2) is None


async def test_a_renewal_forgets_the_key_before(bench: Bench) -> None:
    assert await bench.other(2) == 1
    bench.store.newest = 3
    await bench.leases.lease(ACME, "up", 3)
    assert bench.leases._leases[ACME, "up"].before is None


async def test_a_key_outdone_is_told_once_a_second_for_the_version_that_is_held(bench: Bench) -> None:
    bench.leases.refused(ACME, "up", 2)
    assert bench.told == []  # the request may be at fault
    for _ in range(5):
        bench.leases.outdone(ACME, "up", 2)
        bench.leases.outdone(ACME, "up", 1)
    assert bench.told == [(ACME, "up", 2)]
    bench.now += 1
    bench.leases.outdone(ACME, "up", 2)
    assert len(bench.told) == 2


async def test_the_key_of_an_upstream_that_is_gone_is_forgotten(bench: Bench) -> None:
    """One that is made anew under its name may lead elsewhere, with the same version announced."""
    bench.leases.keep({(ACME, "up")})
    assert bench.leases.peek(ACME, "up", 2) is not None
    bench.leases.keep({(OrgId("globex"), "up"), (ACME, "down")})
    assert bench.leases.peek(ACME, "up", 2) is None
