from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from gateway.bus.hub import Hub
from gateway.bus.publisher import Publisher
from gateway.clock import SystemClock
from tenants.ids import OrgId
from tenants.models import Org, Revocation
from tenants.snapshot import TenantRecord
from tenants.store import NotFoundError

ACME, BETA = OrgId("acme"), OrgId("beta")


class FakeOrg:
    def __init__(self, record: TenantRecord | None) -> None:
        self._record = record

    async def record(self) -> TenantRecord:
        if self._record is None:
            raise NotFoundError
        return self._record


class FakeStore:
    """A control store of names; each write raises the version."""

    def __init__(self) -> None:
        self.names: dict[OrgId, str] = {}
        self.written: dict[OrgId, int] = {}
        self.at = 0
        self.revoked: tuple[Revocation, ...] = ()
        self.broken = False
        self.asked = asyncio.Event()

    def write(self, org: OrgId, name: str | None) -> None:
        self.at += 1
        self.written[org] = self.at
        if name is None:
            del self.names[org]
        else:
            self.names[org] = name

    def for_org(self, org: OrgId) -> FakeOrg:
        return FakeOrg(TenantRecord(Org(org, self.names[org])) if org in self.names else None)

    async def version(self) -> int:
        self.asked.set()
        if self.broken:
            raise OSError("disk gone")
        return self.at

    async def changed_since(self, version: int) -> tuple[int, Sequence[OrgId], Sequence[OrgId]]:
        touched = [org for org, at in self.written.items() if at > version]
        there = tuple(org for org in touched if org in self.names)
        return self.at, there, tuple(org for org in touched if org not in self.names)

    async def revocations(self, now: int) -> Sequence[Revocation]:
        return tuple(r for r in self.revoked if r.expires_at > now)


class Keys:
    jwks = "one"

    def __call__(self) -> str:
        return self.jwks


@pytest.fixture
def hub() -> Hub:
    return Hub(SystemClock())


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def publisher(store: FakeStore, hub: Hub, keys: Keys) -> Publisher:
    return Publisher(store, hub, SystemClock(), keys)


def names(hub: Hub) -> dict[OrgId, str]:
    return {org: tenant.org.name for org, tenant in hub.snapshot.tenants.items()}


async def test_the_first_is_the_whole_then_what_changed(publisher: Publisher, store: FakeStore, hub: Hub) -> None:
    store.write(ACME, "Acme")
    store.write(BETA, "Beta")
    assert await publisher.sync() == 2
    beta = hub.snapshot.tenants[BETA]
    store.write(ACME, "Acme Corp")
    assert await publisher.sync() == 3
    assert names(hub) == {ACME: "Acme Corp", BETA: "Beta"}
    assert hub.snapshot.tenants[BETA] is beta
    store.write(BETA, None)
    await publisher.sync()
    assert names(hub) == {ACME: "Acme Corp"}


async def test_an_empty_store_is_published_too(publisher: Publisher, hub: Hub) -> None:
    assert await publisher.sync() == 0
    lines = hub.attach("w1")
    assert b'"full":true' in await anext(lines)
    await lines.aclose()


async def test_nothing_new_is_not_published(publisher: Publisher, store: FakeStore, hub: Hub) -> None:
    store.write(ACME, "Acme")
    await publisher.sync()
    before = hub.snapshot
    await publisher.sync()
    assert hub.snapshot is before


async def test_revocations_that_still_count_go_along(publisher: Publisher, store: FakeStore, hub: Hub) -> None:
    past, future = Revocation(ACME, 5, 6), Revocation(ACME, 5, 2**40)
    store.revoked = (past, future)
    store.write(ACME, "Acme")
    await publisher.sync()
    assert hub.snapshot.revocations == (future,)


async def test_new_keys_are_published_without_a_write(publisher: Publisher, hub: Hub, keys: Keys) -> None:
    await publisher.sync()
    keys.jwks = "two"
    await publisher.sync()
    assert hub.snapshot.jwks == "two"


async def test_an_org_deleted_while_it_is_read_is_removed(
    publisher: Publisher, store: FakeStore, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(ACME, "Acme")
    await publisher.sync()
    store.write(ACME, "Acme Corp")
    monkeypatch.setattr(store, "for_org", lambda _: FakeOrg(None))
    await publisher.sync()
    assert names(hub) == {}


async def test_a_backup_put_back_replaces_everything(publisher: Publisher, store: FakeStore, hub: Hub) -> None:
    store.write(ACME, "Acme")
    store.write(BETA, "Beta")
    await publisher.sync()
    store.names, store.written, store.at = {ACME: "Acme of old"}, {ACME: 1}, 1
    assert await publisher.sync() == 1
    assert names(hub) == {ACME: "Acme of old"}


async def test_a_commit_is_published_at_once_and_a_broken_store_is_tried_again(
    publisher: Publisher, store: FakeStore, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    running = asyncio.ensure_future(publisher.run())
    async with asyncio.timeout(60):
        while hub.snapshot.jwks != "one":
            await asyncio.sleep(0)
        store.broken = True
        store.asked.clear()
        store.write(ACME, "Acme")
        with caplog.at_level(logging.WARNING, "orgate.bus"):
            publisher.wake("whatever the store says")
            while not publisher.failing:
                await asyncio.sleep(0)
        assert "the control store cannot be read" in caplog.text
        assert "disk gone" not in caplog.text
        store.broken = False
        publisher.wake()
        while names(hub) != {ACME: "Acme"}:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
