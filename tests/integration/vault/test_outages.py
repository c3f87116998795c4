"""A quarter of an hour without Vault, on a clock of its own: leases over the real client over a socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.errors import UnavailableError
from gateway.secret import Secret
from gateway.secrets.lease import KeyLeases
from gateway.secrets.vault import VaultKeys
from tenants.ids import OrgId
from tests.fakes.vault import FakeVault
from tests.kit.vault import vault_place

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
STEP_S = 30


class Worker:
    """Leases on a clock that the test turns, over a Vault on the real one."""

    def __init__(self, keys: VaultKeys, fake: FakeVault) -> None:
        self.keys = keys
        self.fake = fake
        self.now = 1_000.0
        self.leases = KeyLeases(keys, lambda: self.now, lambda: 0.5)

    async def settled(self) -> None:
        """Every renewal that was begun has ended, well or not."""
        while readings := [held.reading for held in self.leases._leases.values() if held.reading is not None]:
            await asyncio.wait(readings)


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    """Acme's key is leased and globex's is not."""
    with vault_place("fake", tmp_path) as place:
        assert place.fake is not None
        keys = place.keys(place.prepare(ACME, GLOBEX, timeout_s=0.7))
        made = Worker(keys, place.fake)
        for org in (ACME, GLOBEX):
            await keys.put(org, "openai", Secret(f"sk-{org}"))
        await made.leases.lease(ACME, "openai", 1)
        yield made
        await keys.aclose()


@contextmanager
def sealed(fake: FakeVault) -> Iterator[None]:
    fake.sealed = True
    yield
    fake.sealed = False


@contextmanager
def standby(fake: FakeVault) -> Iterator[None]:
    fake.condition = "standby"
    yield
    fake.condition = "active"


@contextmanager
def down(fake: FakeVault) -> Iterator[None]:
    fake.status = 502
    yield
    fake.status = 0


@contextmanager
def garbled(fake: FakeVault) -> Iterator[None]:
    fake.body = b"<html>"
    yield
    fake.body = None


@contextmanager
def restarted(fake: FakeVault) -> Iterator[None]:
    fake.forget_tokens()
    with sealed(fake):
        yield


@contextmanager
def slow(fake: FakeVault) -> Iterator[None]:
    with fake.held():
        yield


@pytest.mark.parametrize("outage", [sealed, standby, down, garbled, restarted, slow])
async def test_whoever_holds_a_key_feels_nothing_for_a_quarter_of_an_hour(
    worker: Worker, outage: Callable[[FakeVault], Iterator[None]]
) -> None:
    asked = failed = 0
    with outage(worker.fake):  # type: ignore[attr-defined]  # a context manager's function
        for _ in range(15 * 60 // STEP_S - 1):
            worker.now += STEP_S
            for _ in range(20):
                asked += 1
                failed += worker.leases.peek(ACME, "openai", 1) is None  # and no request has waited
            await worker.settled()
        assert (asked, failed) == (580, 0)
        worker.now += STEP_S
        assert worker.leases.peek(ACME, "openai", 1) is None
        with pytest.raises(UnavailableError):
            await worker.leases.lease(ACME, "openai", 1)
    worker.now += 2
    assert (await worker.leases.lease(ACME, "openai", 1)).secret.reveal() == b"sk-acme"


@pytest.mark.parametrize("outage", [sealed, standby, down, garbled, slow])
async def test_whoever_holds_none_is_told_when_to_come_again(
    worker: Worker, outage: Callable[[FakeVault], Iterator[None]]
) -> None:
    with outage(worker.fake):  # type: ignore[attr-defined]  # a context manager's function
        before = len(worker.fake.seen)
        for _ in range(50):
            with pytest.raises(UnavailableError) as caught:
                await worker.leases.lease(GLOBEX, "openai", 1)
            assert caught.value.retry_after_s == 2
            assert worker.fake.address not in caught.value.message
        assert len(worker.fake.seen) - before <= 2  # the others did not ask again
    worker.now += 2
    assert (await worker.leases.lease(GLOBEX, "openai", 1)).secret.reveal() == b"sk-globex"


async def test_a_key_that_is_held_costs_no_call_on_a_request_s_path(worker: Worker) -> None:
    for _ in range(20):
        worker.now += 55
        before = len(worker.fake.seen)
        for _ in range(100):
            assert worker.leases.peek(ACME, "openai", 1) is not None
        await worker.settled()
        assert len(worker.fake.seen) - before == 1


async def test_sealed_in_the_middle_of_a_renewal(worker: Worker) -> None:
    worker.now += 61
    worker.fake.open.clear()
    assert worker.leases.peek(ACME, "openai", 1) is not None
    worker.fake.sealed = True
    worker.fake.open.set()
    await worker.settled()
    assert worker.leases.peek(ACME, "openai", 1) is not None


async def test_a_clock_that_is_set_back_changes_nothing(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert (await worker.keys.get(ACME, "openai")).version == 1
