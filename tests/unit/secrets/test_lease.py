"""Leases: fresh for a minute, stale for a quarter of an hour, one reader at a time."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import UnavailableError
from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.secrets.lease import KeyLeases
from gateway.secrets.store import NoSuchSecretError, StoreUnavailableError
from tenants.ids import OrgId

ACME, GLOBEX = OrgId("acme"), OrgId("globex")


class Keys:
    """A store whose reads can be held back, counted and made to fail."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], int] = {(ACME, "openai"): 1}
        self.reads = 0
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()

    async def get(self, org: OrgId, upstream: str) -> Credential:
        self.reads += 1
        version = self.versions.get((org, upstream))
        self.arrived.set()
        await self.gate.wait()
        if self.down:
            raise StoreUnavailableError("/srv/orgate/secrets.sealed cannot be read")
        if version is None:
            raise NoSuchSecretError(f"orgs/{org}/upstreams/{upstream}")
        return Credential(version, Secret(f"{org}-{version}"))

    async def get_before(self, org: OrgId, upstream: str, version: int) -> Credential:
        raise NoSuchSecretError(f"orgs/{org}/upstreams/{upstream}")


class Bench:
    def __init__(self) -> None:
        self.now = 1000.0
        self.keys = Keys()
        self.jitter = 0.0
        self.leases = KeyLeases(self.keys, lambda: self.now, lambda: self.jitter)

    async def settle(self) -> None:
        """Let the background renewal that was started run to its end."""
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_the_first_lease_reads_and_the_next_peek_does_not(bench: Bench) -> None:
    assert bench.leases.peek(ACME, "openai", 1) is None
    got = await bench.leases.lease(ACME, "openai", 1)
    assert got.secret.reveal() == b"acme-1"
    assert bench.leases.peek(ACME, "openai", 1) is got
    assert bench.keys.reads == 1


async def test_concurrent_first_leases_read_once(bench: Bench) -> None:
    bench.keys.gate.clear()
    waiting = [asyncio.ensure_future(bench.leases.lease(ACME, "openai", 1)) for _ in range(50)]
    await bench.keys.arrived.wait()
    waiting[0].cancel()  # whoever happens to have started the read may leave
    bench.keys.gate.set()
    got = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(got[0], asyncio.CancelledError)
    assert {g.version for g in got[1:] if isinstance(g, Credential)} == {1}
    assert bench.keys.reads == 1


async def test_past_the_soft_ttl_the_old_key_serves_while_one_renewal_runs(bench: Bench) -> None:
    await bench.leases.lease(ACME, "openai", 1)
    bench.keys.versions[ACME, "openai"] = 2
    bench.now += 61
    for _ in range(10):
        held = bench.leases.peek(ACME, "openai", 1)
        assert held is not None
        assert held.version == 1
    await bench.settle()
    assert bench.keys.reads == 2
    renewed = bench.leases.peek(ACME, "openai", 1)
    assert renewed is not None
    assert renewed.version == 2


async def test_a_newer_version_is_read_at_once(bench: Bench) -> None:
    await bench.leases.lease(ACME, "openai", 1)
    bench.keys.versions[ACME, "openai"] = 2
    assert bench.leases.peek(ACME, "openai", 2) is None
    assert (await bench.leases.lease(ACME, "openai", 2)).version == 2
    assert bench.keys.reads == 2


async def test_a_read_begun_before_the_new_key_does_not_answer_for_it(bench: Bench) -> None:
    await bench.leases.lease(ACME, "openai", 1)
    bench.now += 61
    bench.keys.gate.clear()
    bench.keys.arrived.clear()
    bench.leases.peek(ACME, "openai", 1)
    await bench.keys.arrived.wait()  # it has read version 1
    bench.keys.versions[ACME, "openai"] = 2
    waiting = asyncio.ensure_future(bench.leases.lease(ACME, "openai", 2))
    await asyncio.sleep(0)
    bench.keys.gate.set()
    assert (await waiting).version == 2


async def test_a_store_that_is_down_is_not_felt_for_fifteen_minutes(bench: Bench) -> None:
    await bench.leases.lease(ACME, "openai", 1)
    bench.keys.down = True
    for _ in range(14):
        bench.now += 61
        assert (await bench.leases.lease(ACME, "openai", 1)).version == 1
        await bench.settle()
    assert (await bench.leases.lease(ACME, "openai", 2)).version == 1  # the older key beats no key
    bench.now += 61
    with pytest.raises(UnavailableError) as caught:
        await bench.leases.lease(ACME, "openai", 1)
    assert caught.value.retry_after_s
    assert "/srv" not in caught.value.message
    bench.keys.down = False
    bench.now += 5
    assert (await bench.leases.lease(ACME, "openai", 1)).version == 1


async def test_a_failing_store_is_not_asked_on_every_request(bench: Bench) -> None:
    await bench.leases.lease(ACME, "openai", 1)
    bench.keys.down = True
    bench.now += 61
    for _ in range(20):
        bench.leases.peek(ACME, "openai", 1)
        await bench.settle()
        await bench.leases.lease(ACME, "openai", 2)
    assert bench.keys.reads == 2


async def test_without_a_cached_key_a_store_that_is_down_is_503(bench: Bench) -> None:
    bench.keys.down = True
    with pytest.raises(UnavailableError, match="cannot be read now"):
        await bench.leases.lease(ACME, "openai", 1)


async def test_an_organization_without_a_key_does_not_wait_for_a_store_that_just_failed(bench: Bench) -> None:
    bench.keys.down = True
    for _ in range(20):
        with pytest.raises(UnavailableError) as caught:
            await bench.leases.lease(ACME, "openai", 1)
        assert caught.value.retry_after_s
    assert bench.keys.reads == 1
    bench.keys.down = False
    bench.now += 2
    assert (await bench.leases.lease(ACME, "openai", 1)).version == 1


@pytest.mark.parametrize(("jitter", "due"), [(0.0, 60), (0.5, 54), (1.0, 48)])
async def test_renewals_are_spread_over_a_fifth_of_the_minute(bench: Bench, jitter: float, due: int) -> None:
    bench.jitter = jitter
    await bench.leases.lease(ACME, "openai", 1)
    for later, reads in ((due - 1, 1), (1, 2)):
        bench.now += later
        assert bench.leases.peek(ACME, "openai", 1) is not None
        await bench.settle()
        assert bench.keys.reads == reads


async def test_a_key_that_the_upstream_refused_is_read_again_at_once(bench: Bench) -> None:
    await bench.leases.lease(ACME, "openai", 1)
    bench.keys.versions[ACME, "openai"] = 2
    bench.now += 3
    bench.leases.refused(ACME, "openai", 1)
    assert bench.leases.peek(ACME, "openai", 1) is not None  # nobody waits for it
    await bench.settle()
    renewed = bench.leases.peek(ACME, "openai", 1)
    assert renewed is not None
    assert renewed.version == 2
    assert bench.keys.reads == 2


async def test_refusals_do_not_ask_the_store_again_and_again(bench: Bench) -> None:
    await bench.leases.lease(ACME, "openai", 1)
    bench.now += 3
    for version in (1, 1, 0, 2):  # another version than the one that is held was refused: nothing new in that
        bench.leases.refused(ACME, "openai", version)
        await bench.settle()
    bench.leases.refused(GLOBEX, "openai", 1)
    assert bench.keys.reads == 2
    bench.keys.down = True
    bench.now += 3
    for _ in range(3):
        bench.leases.refused(ACME, "openai", 1)
        await bench.settle()
    assert bench.keys.reads == 3


async def test_another_organization_s_lease_is_not_mine(bench: Bench) -> None:
    await bench.leases.lease(ACME, "openai", 1)
    assert bench.leases.peek(GLOBEX, "openai", 1) is None
    with pytest.raises(UnavailableError, match="no key is set"):
        await bench.leases.lease(GLOBEX, "openai", 1)


async def test_a_key_taken_away_stops_serving(bench: Bench) -> None:
    await bench.leases.lease(ACME, "openai", 1)
    del bench.keys.versions[ACME, "openai"]
    assert bench.leases.peek(ACME, "openai", 0) is None
    with pytest.raises(UnavailableError, match="no key is set"):
        await bench.leases.lease(ACME, "openai", 0)
    assert bench.leases.peek(ACME, "openai", 1) is None
    assert bench.leases.peek(ACME, "openai", 1) is None


async def test_keys_nobody_uses_are_forgotten(bench: Bench) -> None:
    await bench.leases.lease(ACME, "openai", 1)
    bench.keys.versions[GLOBEX, "openai"] = 1
    bench.now += 16 * 60
    await bench.leases.lease(GLOBEX, "openai", 1)
    assert list(bench.leases._leases) == [(GLOBEX, "openai")]
