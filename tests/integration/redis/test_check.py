"""What `orgate doctor` sees of a Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.redis_check import Seen, acl_line, examine_redis
from tenants.ids import OrgId
from tests.integration.redis.place import settings
from tests.kit.ports import free_port
from tests.kit.redis import HOST, RedisServer, redis_server, shared_cluster, shared_server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def seen(*addresses: str, home: Path = Path(), now: float | None = None, **more: Any) -> list[Seen]:
    return await examine_redis(settings(*addresses, **more), home, time.time if now is None else lambda: now)


def texts(found: list[Seen], verdict: str) -> str:
    return "\n".join(one.seen for one in found if one.verdict == verdict)


async def test_a_sound_one_is_well() -> None:
    with redis_server(options=("appendonly yes",)) as server, server.client() as client:
        found = await seen(server.address)
        assert {one.verdict for one in found} == {"ok"}
        said = texts(found, "ok")
        assert "by functions" in said
        assert "noeviction" in said
        assert "append-only file" in said
        assert "the library orgate_limits_" in said
        # Nobody's account is touched, and what is left behind ends by itself.
        assert all(b"{_doctor}" in key and client.pttl(key) > 0 for key in client.scan_iter())


async def test_valkey_is_well() -> None:
    found = await seen(shared_server("valkey").address)
    assert "Valkey 9" in texts(found, "ok")
    assert not texts(found, "failed")


async def test_each_node_of_a_cluster_is_looked_at() -> None:
    nodes = shared_cluster()
    found = await seen(nodes[0].address, topology="cluster")
    assert {node.address for node in nodes} <= {one.server for one in found}
    assert not texts(found, "failed")


@pytest.mark.parametrize(("most", "verdict"), [("0", "warning"), ("100mb", "failed")])
async def test_one_that_evicts_is_not(server: RedisServer, most: str, verdict: str) -> None:
    with server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", most)
    assert "maxmemory-policy allkeys-lru" in texts(await seen(server.address), verdict)


async def test_a_clock_of_its_own_is_a_warning(server: RedisServer) -> None:
    found = await seen(server.address, now=time.time() + 30)
    assert "its clock and this machine's are 30." in texts(found, "warning") or "29." in texts(found, "warning")


async def test_nobody_there_is_said(tmp_path: Path) -> None:
    found = await seen(f"{HOST}:{free_port()}")
    assert "Connection refused" in texts(found, "failed")
    found = await seen(f"{HOST}:1", home=tmp_path, password="none")
    assert "cannot be read" in texts(found, "failed")


async def test_each_fault_says_what_to_do(server: RedisServer, tmp_path: Path) -> None:
    (password := tmp_path / "password").write_text("wrong")
    password.chmod(0o600)
    found = await seen(server.address, home=tmp_path, username="orgate", password="password")
    assert [one.fix for one in found] == ["limits.username, limits.password and its ACL must agree"]
    with redis_server(options=("requirepass x",)) as guarded:
        found = await seen(guarded.address)
    assert [one.fix for one in found] == ["set limits.username and limits.password"]


async def test_one_right_too_few_is_found_before_anybody_is_refused(server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    (tmp_path / "password").chmod(0o600)
    given: dict[str, Any] = {"username": "orgate", "password": "password"}
    line = (
        acl_line(settings(server.address, prefix="orgate", **given), Path()).replace("PASSWORD", "x").split()[1:]
    )
    rights = [word for word in line if word.startswith("+") and word != "+ping"]
    with server.client() as client:
        for lacking in rights:
            client.execute_command("ACL DELUSER", "orgate")
            client.execute_command("ACL SETUSER", *(word for word in line if word != lacking))
            found = await seen(server.address, home=tmp_path, prefix="orgate", **given)
            if lacking in ("+fcall", "+function|load"):
                lacks_both = texts(found, "failed")  # nor is it allowed scripts
                assert lacks_both, lacking
                continue
            assert "ACL does not allow" in texts(found, "failed"), (lacking, found)
            assert any("orgate limit acl" in one.fix for one in found)


def test_the_line_names_only_what_is_used() -> None:
    given = settings("127.0.0.1:1", prefix="orgate")
    assert "+asking" not in acl_line(given, Path())
    assert "+cluster|slots +asking" in acl_line(settings("127.0.0.1:1", topology="cluster"), Path())
    assert "~orgate:{acme}:* " in acl_line(given, Path(), OrgId("acme"))
    assert "+evalsha +script|load" in acl_line(given, Path(), scripts=True)
    assert "+fcall" not in acl_line(given, Path(), scripts=True)
