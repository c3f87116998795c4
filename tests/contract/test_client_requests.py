"""One suite for every `ClientRequests`: what is conditional has one winner, what a client began ends with it."""

from __future__ import annotations

import asyncio

from gateway.oauth.requests import Pushed
from gateway.oauth.sql import SqlOAuthStore
from gateway.oauth.store import AuthorizationCode, DeviceGrant, DeviceStatus, Family
from tenants.ids import MemberId, OrgId

ACME, ADA, NOW = OrgId("acme"), MemberId("mem_ada"), 1_800_000_000.0
LONG = f"{'a' * 40}.{'b' * 64}"


def request(digest: str = "d1", client: str = "acme.app", expires_at: float = NOW + 60) -> Pushed:
    return Pushed(digest, client, {"state": "x", "scope": "inference"}, expires_at)


async def test_an_assertion_is_used_once_until_it_ends(oauth_store: SqlOAuthStore) -> None:
    clients = oauth_store.clients
    used = await asyncio.gather(*(clients.use("acme.app", "j1", NOW + 60, NOW) for _ in range(10)))
    assert sum(used) == 1
    assert await clients.use("acme.other", "j1", NOW + 60, NOW)  # another client's ids are its own
    assert await clients.use("globex.app", "j1", NOW + 60, NOW)
    assert await clients.use(LONG, "j1", NOW + 60, NOW)
    assert not await clients.use("acme.app", "j1", NOW + 60, NOW + 59)
    assert await clients.use("acme.app", "j1", NOW + 120, NOW + 60)


async def test_a_pushed_request_is_taken_once_by_its_client(oauth_store: SqlOAuthStore) -> None:
    clients = oauth_store.clients
    assert await clients.push(request(), NOW, 10)
    assert await clients.take("d1", "acme.other", NOW) is None
    assert await clients.take("d2", "acme.app", NOW) is None
    assert await clients.take("d1", "acme.app\0", NOW) is None
    assert await clients.take("d1", "acme.app", NOW + 60) is None
    taken = await asyncio.gather(*(clients.take("d1", "acme.app", NOW + 59) for _ in range(10)))
    assert [one for one in taken if one] == [request()]
    assert await clients.take("d1", "acme.app", NOW) is None


async def test_so_many_requests_of_one_client_wait(oauth_store: SqlOAuthStore) -> None:
    clients = oauth_store.clients
    pushed = [await clients.push(request(f"d{number}"), NOW, 2) for number in range(3)]
    assert pushed == [True, True, False]
    assert await clients.take("d2", "acme.app", NOW) is None
    assert await clients.push(request("other", "acme.other"), NOW, 2)
    assert await clients.push(request("later", expires_at=NOW + 120), NOW + 60, 2)  # those before have expired


async def test_what_a_client_began_ends_with_it(oauth_store: SqlOAuthStore) -> None:
    store = oauth_store
    for client in ("acme.app", "acme.other"):
        mark = client[5:]
        for number in range(2):
            grant = DeviceGrant(f"d{mark}{number}", f"u{mark}{number}", client, "", "", NOW + 600, 5)
            await store.add_device(grant, NOW)
        assert await store.decide(f"u{mark}0", DeviceStatus.APPROVED, ACME, ADA, NOW)
        assert await store.redeem(
            f"d{mark}0", Family(f"f{mark}", ACME, ADA, client, "t", created_at=NOW, expires_at=NOW + 100)
        )
        code = AuthorizationCode(f"c{mark}", client, "", "", "", "", ACME, ADA, NOW + 60)
        await store.add_code(code, NOW)
        assert await store.clients.push(request(f"p{mark}", client), NOW, 10)
    assert await store.clients.end_client("acme.app", NOW + 1) == 1
    assert await store.clients.end_client("acme.app", NOW + 2) == 0
    for mark, alive in (("app", False), ("other", True)):
        family, device = await store.family(f"f{mark}"), await store.device(f"d{mark}1")
        assert family is not None
        assert device is not None
        assert (family.ended_at == 0) is alive
        assert (device.status is DeviceStatus.PENDING) is alive
        assert (await store.code(f"c{mark}") is not None) is alive
        assert (await store.clients.take(f"p{mark}", f"acme.{mark}", NOW + 3) is not None) is alive
