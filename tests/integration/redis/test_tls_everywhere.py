"""TLS on every connection of a Cluster, and of a master that Sentinel names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenants.ids import OrgId
from tests.integration.redis.place import Caller, settings, store, unavailable
from tests.integration.redis.test_faults import again
from tests.kit.certs import Pki, make_pki
from tests.kit.redis import redis_cluster, redis_sentinel


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "ca.pem").write_text(pki.ca_pem)
    (folder / "other.pem").write_text(make_pki(folder / "other").ca_pem)
    return folder


async def test_organizations_are_on_every_node_of_a_cluster(pki: Pki, home: Path) -> None:
    with redis_cluster(tls=pki) as nodes:
        given = settings(nodes[0].address, topology="cluster", tls=True, ca="ca.pem")
        async with store(given, home) as slices:
            for number in range(12):
                caller = Caller(slices, OrgId(f"org{number}"))
                await caller.take(7)
                assert await caller.left() == 993
            for node in nodes:
                with node.client() as client:
                    assert list(client.scan_iter(match=f"{slices.prefix}:*"))
        given = settings(nodes[0].address, topology="cluster", tls=True, ca="other.pem")
        async with store(given, home) as slices:
            assert "TLS fails" in await unavailable(slices)


async def test_a_failover_is_followed(pki: Pki, home: Path) -> None:
    with redis_sentinel(tls=pki) as place:
        given = settings(place.sentinel.address, topology="sentinel", master=place.name, tls=True, ca="ca.pem")
        async with store(given, home) as slices:
            caller = Caller(slices)
            await caller.take(7)
            with place.master.client() as client:
                assert client.wait(1, 5_000) == 1
            place.failover()
            await again(caller)
            assert await caller.left() == 993
