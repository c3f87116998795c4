"""When personal tokens were used: said in batches, again when that failed, written down by organization."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from gateway import keyuses
from gateway.authn.statickeys import StaticKeys
from gateway.bus.client import BusClient
from gateway.bus.messages import KeyUsesUp
from gateway.errors import UnavailableError
from gateway.keyuses import key_uses_into, report_key_uses, say_key_uses
from tenants.ids import OrgId
from tenants.store import ControlStore, StoreUnavailableError

ACME, GLOBEX = OrgId("acme"), OrgId("globex")


class Bus:
    def __init__(self) -> None:
        self.said: list[KeyUsesUp] = []
        self.away = False

    async def send_key_uses(self, uses: KeyUsesUp) -> None:
        if self.away:
            raise UnavailableError("away")
        self.said.append(uses)


def used(*uses: tuple[OrgId, str, int]) -> StaticKeys:
    keys = StaticKeys("audience", lambda: 0.0)
    keys.give_back({(org, key): at for org, key, at in uses})
    return keys


async def test_what_could_not_be_said_is_said_the_next_time() -> None:
    bus, keys = Bus(), used((ACME, "pt_1", 60))
    bus.away = True
    await say_key_uses(cast(BusClient, bus), "w", keys)
    bus.away = False
    await say_key_uses(cast(BusClient, bus), "w", keys)
    await say_key_uses(cast(BusClient, bus), "w", keys)
    assert bus.said == [KeyUsesUp("w", ((ACME, "pt_1", 60),))]


async def test_a_worker_that_ends_says_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyuses, "EVERY_S", 3_600.0)
    bus, keys = Bus(), used((ACME, "pt_1", 60))
    task = asyncio.create_task(report_key_uses(cast(BusClient, bus), "w", keys))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [message.uses for message in bus.said] == [((ACME, "pt_1", 60),)]


class Store:
    """What `for_org` gives, for as little as is asked of it."""

    def __init__(self) -> None:
        self.written: list[tuple[str, dict[str, int]]] = []
        self.away = False

    def for_org(self, org: OrgId) -> Any:
        store = self

        class Keys:
            async def used(self, times: Mapping[str, int]) -> None:
                if store.away:
                    raise StoreUnavailableError("locked")
                store.written.append((org, dict(times)))

        class Part:
            static_keys = Keys()

        return Part()


async def test_each_organization_gets_its_own() -> None:
    store = Store()
    write = key_uses_into(cast(ControlStore, store))
    await write(KeyUsesUp("w", ((ACME, "pt_1", 60), (GLOBEX, "pt_3", 60), (ACME, "pt_2", 120))))
    assert store.written == [("acme", {"pt_1": 60, "pt_2": 120}), ("globex", {"pt_3": 60})]
    store.away = True
    with pytest.raises(UnavailableError):
        await write(KeyUsesUp("w", ((ACME, "pt_1", 60),)))
