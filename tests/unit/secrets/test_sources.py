"""Keys that others put there: how a worker finds what changed, and what it does while it cannot read."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from gateway.errors import UnavailableError
from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.secrets.sources import EnvironmentKeys, MountedKeys, SourceLeases, variable
from gateway.secrets.store import NoSuchSecretError, StoreUnavailableError
from tenants.ids import OrgId

ACME = OrgId("acme")


class Source:
    """A source that can fail, hang and change; counts how often it is read."""

    def __init__(self) -> None:
        self.credential: Credential | None = Credential(1, Secret("sk-1"))
        self.fault = ""
        self.reads = 0
        self.open = asyncio.Event()
        self.open.set()

    async def get(self, org: OrgId, upstream: str) -> Credential:
        self.reads += 1
        await self.open.wait()
        if self.fault:
            raise StoreUnavailableError(self.fault)
        if self.credential is None:
            raise NoSuchSecretError
        return self.credential

    async def get_before(self, org: OrgId, upstream: str, version: int) -> Credential:
        raise NoSuchSecretError


class Bench:
    def __init__(self) -> None:
        self.source = Source()
        self.now = 1000.0
        self.leases = SourceLeases(self.source, lambda: self.now)

    async def key(self) -> bytes:
        """As the pipeline asks."""
        found = self.leases.peek(ACME, "openai", 0) or await self.leases.lease(ACME, "openai", 0)
        return found.secret.reveal()


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_a_key_that_is_fresh_is_not_read_again(bench: Bench) -> None:
    for _ in range(5):
        assert await bench.key() == b"sk-1"
        bench.now += 0.3
    assert bench.source.reads == 1


async def test_a_changed_key_is_there_within_five_seconds_whether_anybody_asks_meanwhile_or_not(
    bench: Bench,
) -> None:
    await bench.key()
    bench.source.credential = Credential(2, Secret("sk-2"))
    bench.now += 4.0
    assert await bench.key() == b"sk-2"


async def test_a_busy_worker_looks_beside_its_requests(bench: Bench) -> None:
    await bench.key()
    bench.source.credential = Credential(2, Secret("sk-2"))
    bench.now += 2.5
    assert await bench.key() == b"sk-1"  # nobody waits
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await bench.key() == b"sk-2"
    assert bench.source.reads == 2


async def test_many_that_come_at_once_read_once(bench: Bench) -> None:
    bench.source.open.clear()
    waiting = [asyncio.ensure_future(bench.key()) for _ in range(20)]
    await asyncio.sleep(0)
    bench.source.open.set()
    assert set(await asyncio.gather(*waiting)) == {b"sk-1"}
    assert bench.source.reads == 1


async def test_a_key_that_was_taken_away_is_gone(bench: Bench) -> None:
    await bench.key()
    bench.source.credential = None
    bench.now += 4.0
    with pytest.raises(UnavailableError, match="no key is set for upstream 'openai'"):
        await bench.key()
    bench.source.credential = Credential(2, Secret("sk-2"))
    assert await bench.key() == b"sk-2"


async def test_a_source_that_fails_is_not_felt_for_a_quarter_of_an_hour(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.key()
    bench.source.fault = "/run/keys/acme/openai cannot be read"
    for _ in range(8):
        bench.now += 100
        assert await bench.key() == b"sk-1"
    assert [record.message for record in caplog.records if "cannot be read" in record.message] == [
        "the key of upstream openai of acme cannot be read: /run/keys/acme/openai cannot be read"
    ], "said once"
    bench.now += 101
    with pytest.raises(UnavailableError) as caught:
        await bench.key()
    assert "/run" not in str(caught.value)
    assert caught.value.retry_after_s
    bench.source.fault = ""
    assert await bench.key() == b"sk-1"


async def test_a_source_that_hangs_is_waited_for_no_longer_than_two_seconds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.secrets.sources.READ_S", 0.01)
    bench.source.open.clear()
    with pytest.raises(UnavailableError):
        await bench.key()
    bench.source.open.set()
    assert await bench.key() == b"sk-1"
    assert bench.source.reads == 1, "the look that hung served"


async def test_a_401_looks_at_once(bench: Bench) -> None:
    await bench.key()
    bench.source.credential = Credential(2, Secret("sk-2"))
    bench.leases.refused(ACME, "openai", 1)  # just read: it would be read on every request
    assert await bench.key() == b"sk-1"
    bench.now += 3
    bench.leases.refused(ACME, "openai", 7)  # of another version: nothing to do
    assert bench.leases.peek(ACME, "openai", 0) is not None
    bench.leases.refused(ACME, "openai", 1)
    assert await bench.key() == b"sk-2"


async def test_instead_of_a_refused_key_there_is_only_the_one_that_is_there_now(bench: Bench) -> None:
    await bench.key()
    assert await bench.leases.other(ACME, "openai", 1, 0) is None
    bench.source.credential = Credential(2, Secret("sk-2"))
    other = await bench.leases.other(ACME, "openai", 1, 0)
    assert other is not None
    assert other.secret.reveal() == b"sk-2"
    bench.source.credential = None
    assert await bench.leases.other(ACME, "openai", 2, 0) is None


# -- mounted files -------------------------------------------------------------------------------------------


def mount(folder: Path, number: int, key: str) -> None:
    """What a kubelet does with a secret: files in a new folder, then `..data` is swapped in one rename."""
    version = folder / f"..2026_11_21_{number}"
    version.mkdir(parents=True)
    (version / "openai").write_text(key)
    stamp = 1_800_000_000 + number
    os.utime(version / "openai", (stamp, stamp))
    (folder / "..data_tmp").symlink_to(version.name)
    os.replace(folder / "..data_tmp", folder / "..data")
    if not (folder / "openai").is_symlink():
        (folder / "openai").symlink_to("..data/openai")


async def test_a_secret_of_kubernetes_is_followed_through_its_swaps(tmp_path: Path) -> None:
    now = [0.0]
    leases = SourceLeases(MountedKeys(tmp_path), lambda: now[0])
    for number in range(1, 4):
        mount(tmp_path / "acme", number, f"sk-{number}\n")
        now[0] += 4.0
        found = await leases.lease(ACME, "openai", 0)
        assert (found.version, found.secret.reveal()) == ((1_800_000_000 + number) * 1000, f"sk-{number}".encode())


async def test_a_reader_amid_a_thousand_swaps_gets_whole_keys(tmp_path: Path) -> None:
    keys = MountedKeys(tmp_path)
    mount(tmp_path / "acme", 1, "sk-1" + "x" * 500)

    def swap() -> None:
        for number in range(2, 300):
            mount(tmp_path / "acme", number, f"sk-{number}" + "x" * 500)

    swapping = asyncio.ensure_future(asyncio.to_thread(swap))
    seen = set()
    while not swapping.done():
        found = (await keys.get(ACME, "openai")).secret.reveal()
        assert found.endswith(b"x" * 500)
        seen.add(found)
    await swapping
    assert (await keys.get(ACME, "openai")).secret.reveal().startswith(b"sk-299x")
    assert len(seen) > 1


async def test_what_is_no_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "acme" / "openai").mkdir(parents=True)
    with pytest.raises(StoreUnavailableError, match="not a regular file"):
        await MountedKeys(tmp_path).get(ACME, "openai")
    os.mkfifo(tmp_path / "acme" / "pipe")
    with pytest.raises(StoreUnavailableError, match="not a regular file"):
        await MountedKeys(tmp_path).get(ACME, "pipe")  # and nobody waits for a writer


# -- the environment -----------------------------------------------------------------------------------------


def test_the_environment_warns_each_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        EnvironmentKeys({})
        EnvironmentKeys({})
    assert [("development only" in record.message) for record in caplog.records] == [True, True]


def test_no_two_organizations_share_a_variable() -> None:
    assert variable(OrgId("acme"), "openai") == "ORGATE_KEY_ACME__OPENAI"
    assert variable(OrgId("a-b"), "c") != variable(OrgId("ab"), "c")
    assert variable(OrgId("ac-me"), "x") == "ORGATE_KEY_AC_ME__X"
    assert variable(OrgId("ac"), "me-x") == "ORGATE_KEY_AC__ME_X"
