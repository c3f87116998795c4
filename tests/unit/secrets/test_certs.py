"""Leases of client certificates: a new version is read at once, a store that is away is not felt for a while."""

from __future__ import annotations

import pytest

from gateway.errors import UnavailableError
from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.secrets.certs import REMEMBERED, CertLeases
from gateway.secrets.lease import SOFT_TTL_S, STALE_IF_ERROR_S
from gateway.secrets.store import NoSuchSecretError, StoreUnavailableError
from tenants.ids import OrgId
from tenants.models import Upstream

ACME, GLOBEX = OrgId("acme"), OrgId("globex")


class Store:
    def __init__(self) -> None:
        self.pairs: dict[tuple[str, str], bytes] = {(ACME, "up"): b"pair-1"}
        self.reads = 0
        self.down = False

    async def get(self, org: OrgId, upstream: str) -> Credential:
        self.reads += 1
        if self.down:
            raise StoreUnavailableError("/srv/secret/place is gone")
        if (org, upstream) not in self.pairs:
            raise NoSuchSecretError
        return Credential(1, Secret(self.pairs[org, upstream]))


class World:
    def __init__(self) -> None:
        self.store = Store()
        self.now = 1_000.0
        self.leases = CertLeases(self.store, lambda: self.now)

    async def shown(self, version: int = 1, org: OrgId = ACME) -> bytes | None:
        pair = await self.leases(Upstream(org, "up", "https://up.example", client_cert_version=version))
        return pair.reveal() if pair else None


@pytest.fixture
def world() -> World:
    return World()


async def test_without_a_version_the_store_is_not_asked(world: World) -> None:
    assert await world.shown(0) is None
    assert world.store.reads == 0


async def test_a_pair_is_read_once_a_minute_and_at_each_new_version(world: World) -> None:
    assert [await world.shown(), await world.shown()] == [b"pair-1"] * 2
    assert world.store.reads == 1
    world.store.pairs[ACME, "up"] = b"pair-2"
    assert await world.shown(2) == b"pair-2"
    world.store.pairs[ACME, "up"] = b"pair-3"
    world.now += SOFT_TTL_S
    assert await world.shown(2) == b"pair-3"


async def test_one_that_was_taken_away_is_shown_no_more(world: World) -> None:
    await world.shown()
    world.store.pairs.clear()
    assert await world.shown(2) is None
    world.store.down = True
    assert await world.shown(3) is None


async def test_a_store_that_is_away_is_not_felt_for_15_minutes(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.shown()
    world.store.down = True
    world.now += STALE_IF_ERROR_S - 1
    assert await world.shown() == b"pair-1"
    assert "of acme cannot be read" in caplog.text
    world.now += 2
    with pytest.raises(UnavailableError) as refusal:
        await world.shown()
    assert refusal.value.retry_after_s == 2
    assert "/srv" not in str(refusal.value)


async def test_what_was_never_read_is_refused_while_the_store_is_away(world: World) -> None:
    world.store.down = True
    with pytest.raises(UnavailableError, match="cannot be read now"):
        await world.shown()


async def test_organizations_are_kept_apart_and_memory_is_bounded(world: World) -> None:
    await world.shown()
    assert await world.shown(org=GLOBEX) is None
    for number in range(REMEMBERED + 10):
        await world.leases(Upstream(ACME, f"u{number}", "https://up.example", client_cert_version=1))
    assert len(world.leases._held) <= REMEMBERED
