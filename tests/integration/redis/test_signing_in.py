"""TLS, passwords and ACLs, as an operator sets them up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.limits.redis_open import open_slices
from gateway.limits.redis_orgs import ByOrg
from gateway.limits.redis_server import Server
from gateway.limits.redis_wire import Argument
from gateway.limits_settings import LimitsSettingsError
from gateway.pki import make_ca
from gateway.redis_check import acl_line, examine_redis
from tenants.ids import OrgId
from tests.integration.redis.place import ACME, Caller, settings, store, unavailable, warnings
from tests.kit.certs import Pki, make_pki
from tests.kit.client_certs import issue
from tests.kit.redis import RedisServer, redis_server

PASSWORD = "correct-horse-battery"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "ca.pem").write_text(pki.ca_pem)
    (folder / "redis.password").write_text(PASSWORD + "\n")
    (folder / "redis.password").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def server(pki: Pki) -> Iterator[RedisServer]:
    """Over TLS only, with certificates of clients asked for, and nothing allowed without a password."""
    with redis_server(tls=pki, options=("tls-auth-clients optional",)) as found:
        yield found


def allow(server: RedisServer, line: str) -> None:
    with server.client() as client:
        client.execute_command("ACL SETUSER", *line.replace("PASSWORD", PASSWORD).split()[1:])


def tls(**more: Any) -> dict[str, Any]:
    return {"tls": True, "ca": "ca.pem", "username": "orgate", "password": "redis.password", **more}


async def test_the_line_that_is_printed_is_enough(server: RedisServer, home: Path) -> None:
    given = settings(server.address, **tls())
    allow(server, acl_line(given, Path()))
    async with store(given, home) as slices:
        await slices.warm()
        assert not slices.failing
        caller = Caller(slices)
        assert (await caller.take(3)).results[0].granted == (3,)
        assert len(await slices.usage(ACME)) == 1
        assert await slices.reset(ACME, "requests") == 1
        await slices.seed(ACME, ())
        other = Caller(slices, name="w1")  # the worker begins again, and its session before is over
        other.epoch = caller.epoch
        assert (await other.take(1)).known


async def test_a_user_without_functions_has_scripts(server: RedisServer, home: Path) -> None:
    given = settings(server.address, **tls(username="scripts"))
    allow(server, acl_line(given, Path(), scripts=True))
    async with store(given, home) as slices:
        await slices.warm()
        assert not slices.failing
        caller = Caller(slices)
        assert (await caller.take(3)).known
        assert (await caller.take(3)).slices[0].left == 994


@pytest.mark.parametrize("lacking", ["+fcall", "+function|load"])
async def test_an_acl_that_is_mended_is_enough_at_once(server: RedisServer, home: Path, lacking: str) -> None:
    given = settings(server.address, **tls(username="mended"))
    line = acl_line(given, Path())
    with server.client() as client:
        client.execute_command("ACL DELUSER", "mended")
        client.function_flush()
    allow(server, " ".join(word for word in line.split() if word != lacking))
    async with store(given, home) as slices:
        why = await unavailable(slices)
        assert "ACL does not allow" in why
        assert "evalsha" not in why, "the printed line has functions"
        allow(server, line)
        assert (await Caller(slices).take(3)).known
        assert not slices.failing


async def test_a_user_of_one_organization_counts_for_no_other(server: RedisServer, home: Path) -> None:
    given = settings(server.address, **tls(username="acme-only"))
    allow(server, acl_line(given, Path(), ACME))
    async with store(given, home) as slices:
        assert (await Caller(slices).take(3)).known
        assert "NOPERM" in await unavailable(slices, OrgId("other"))


@pytest.mark.parametrize("lacking", ["+hset", "+mget", "+time", "+zadd", "+pexpire"])
async def test_what_the_library_may_not_do_is_said(
    server: RedisServer, home: Path, lacking: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = settings(server.address, **tls(username="lacking"))
    with server.client() as client:
        client.execute_command("ACL DELUSER", "lacking")
    allow(server, " ".join(word for word in acl_line(given, Path()).split() if word != lacking))
    async with store(given, home) as slices:
        for _ in range(3):
            assert "ACL does not allow" in await unavailable(slices)
    assert len(warnings(caplog)) == 1


async def test_a_wrong_password_is_said_once_and_never_shown(
    server: RedisServer, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "wrong.password").write_text("not-this-one")
    (home / "wrong.password").chmod(0o600)
    async with store(settings(server.address, **tls(password="wrong.password")), home) as slices:
        for _ in range(3):
            assert "it refuses the name or the password" in await unavailable(slices)
    assert len(warnings(caplog)) == 1
    assert "not-this-one" not in caplog.text


async def test_no_password_where_one_is_asked_for_is_said(home: Path) -> None:
    with redis_server(options=(f"requirepass {PASSWORD}",)) as server:
        async with store(settings(server.address), home) as slices:
            assert "a password and none is set" in await unavailable(slices)
        async with store(settings(server.address, password="redis.password"), home) as slices:
            assert (await Caller(slices).take()).known


async def test_a_certificate_of_another_authority_is_not_trusted(
    server: RedisServer, home: Path, tmp_path: Path
) -> None:
    (home / "other.pem").write_text(make_pki(tmp_path).ca_pem)
    async with store(settings(server.address, **tls(ca="other.pem")), home) as slices:
        assert "TLS fails" in await unavailable(slices)


async def test_a_server_without_tls_is_not_spoken_to_in_clear_text(home: Path) -> None:
    with redis_server() as server:
        async with store(settings(server.address, tls=True, ca="ca.pem"), home) as slices:
            assert await unavailable(slices)


async def test_a_certificate_of_our_own_is_shown(pki: Pki, home: Path) -> None:
    authority = make_ca("Client CA")
    ours = issue(authority)
    (home / "clients-ca.pem").write_bytes(authority.certificate_pem())
    (home / "own.pem").write_bytes(ours.certificate_pem())
    (home / "own.key").write_bytes(ours.key_pem())
    options = (f"tls-ca-cert-file {home / 'clients-ca.pem'}", "tls-auth-clients yes")
    with redis_server(tls=pki, options=options) as server:
        async with store(settings(server.address, tls=True, ca="ca.pem"), home) as slices:
            assert await unavailable(slices)
        shown = settings(server.address, tls=True, ca="ca.pem", certificate="own.pem", key="own.key")
        async with store(shown, home) as slices:
            assert (await Caller(slices).take()).known


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [(None, 0o600, "cannot be read"), ("x", 0o644, "can be read by others"), ("", 0o600, "is empty")],
)
def test_a_file_that_holds_no_password_is_said(tmp_path: Path, content: str | None, mode: int, said: str) -> None:
    if content is not None:
        (tmp_path / "redis.password").write_text(content)
        (tmp_path / "redis.password").chmod(mode)
    with pytest.raises(LimitsSettingsError, match=said):
        open_slices(settings("127.0.0.1:1", password="redis.password"), tmp_path)


def test_a_password_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LimitsSettingsError, match="the environment has no"):
        open_slices(settings("127.0.0.1:1", password="env:THE_PASSWORD"), Path())
    monkeypatch.setenv("THE_PASSWORD", PASSWORD)
    open_slices(settings("127.0.0.1:1", password="env:THE_PASSWORD"), Path())


async def test_each_organization_may_have_a_user_that_touches_its_keys_alone(
    server: RedisServer, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = settings(server.address, **tls(username="apart", user_per_org=True))
    other, without = OrgId("other"), OrgId("without")
    for line in (acl_line(given, home), acl_line(given, home, ACME), acl_line(given, home, other)):
        allow(server, line)
        assert PASSWORD not in line
    async with store(given, home) as slices:
        await slices.warm()
        assert not slices.failing
        for org in (ACME, other):
            caller = Caller(slices, org)
            await caller.take(3)
            assert await caller.left() == 997
        with server.client() as client:
            connected = {one["user"] for one in client.client_list() if one["name"] == "orgate"}
            assert {"apart", "apart-acme", "apart-other"} <= connected
            for user in ("apart", "apart-other"):
                key = f"{slices.prefix}:{{{ACME}}}:account"
                denied = client.execute_command("ACL DRYRUN", user, "HGET", key, "epoch")
                assert b"no permissions" in denied or b"has no" in denied or b"access" in denied, denied
        # One that has no user yet is out of reach, and it alone: a line, not one each time.
        for _ in range(3):
            assert "it refuses the name or the password" in await unavailable(slices, without)
            assert (await Caller(slices, name="w2").take(0)).known
    assert len(warnings(caplog)) == 1
    assert {one.verdict for one in await examine_redis(given, home)} == {"ok"}


async def test_connections_of_organizations_are_bounded() -> None:
    """More than so many are not kept, but none that somebody waits for is closed."""
    opened: list[FakeRoute] = []

    def open_for(org: str) -> FakeRoute:
        opened.append(FakeRoute())
        return opened[-1]

    route = ByOrg(FakeRoute(), open_for, most=2)
    waiting = asyncio.create_task(route.run("a", (), ()))
    await asyncio.sleep(0)
    for org in ("b", "c", "d"):
        opened_before = len(opened)
        task = asyncio.create_task(route.run(org, (), ()))
        await asyncio.sleep(0)
        opened[opened_before].answer.set()
        await task
    assert [one.closed for one in opened] == [False, True, True, False]
    opened[0].answer.set()
    await waiting
    route.close()
    assert all(one.closed for one in opened)


class FakeRoute:
    apart = False

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.closed = False

    async def run(self, tag: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        await self.answer.wait()

    async def servers(self) -> Sequence[tuple[str, Server]]:
        return ()

    def close(self) -> None:
        self.closed = True
