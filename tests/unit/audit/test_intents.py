"""Intents: what stands in the slots at each moment, groups that are synced together, a disk that refuses."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from gateway.audit import intents
from gateway.audit.intents import SLOTS, FullError, Intents, read
from gateway.audit.record import INTENT_MAX
from gateway.audit.recover import recover
from gateway.audit.segments import GONE, make_folder, sweep
from gateway.audit.sequencer import Sequencer
from gateway.audit.spool import Spool
from gateway.errors import UnavailableError
from gateway.exchange import Outcome, SpooledReceipt, SpoolUp
from tenants.ids import OrgId
from tests.fakes.audit import ACME, GLOBEX, SIGNER, FaultyDisk, intent, receipt
from tests.integration.audit.test_crash import entries
from tests.kit.wait import eventually


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def made(tmp_path: Path, disk: FaultyDisk) -> Intents:
    return Intents(tmp_path, disk)


def test_an_intent_is_there_until_its_slot_is_anothers_or_wiped(made: Intents, tmp_path: Path) -> None:
    first, second = made.put(intent(1)), made.put(intent(2))
    assert read(tmp_path) == (0, {first: intent(1), second: intent(2)})
    made.rewrite(second, intent(2, upstream="gpu", key_version=3))
    made.settle(first, 1)
    assert read(tmp_path)[1] == {first: intent(1), second: intent(2, upstream="gpu", key_version=3)}
    made.wipe()
    assert first in read(tmp_path)[1]  # its receipt is not synced: the slot stays as it is
    made.free(1)
    made.wipe()
    assert read(tmp_path)[0] == 0  # until the wipe is synced
    made.reach(7)
    assert read(tmp_path) == (7, {second: intent(2, upstream="gpu", key_version=3)})
    third = made.put(intent(3))
    assert list(read(tmp_path)[1]) == [second, third]


def test_nothing_of_a_longer_intent_is_left_behind_a_shorter_one(made: Intents, tmp_path: Path) -> None:
    made.settle(made.put(intent(1, client="c" * 200, member="mem_erased")), 1)
    made.free(1)
    made.put(intent(2, client="c"))
    assert b"cc" not in (tmp_path / intents.NAME).read_bytes()


def test_an_intent_of_any_size_fits_its_slot(made: Intents, tmp_path: Path) -> None:
    texts = dict.fromkeys(("client", "client_version", "request_id", "trace_id", "rule", "upstream"), "😀" * 900)
    limits = tuple("x" * 80 for _ in range(8))
    member = "mem_" + "0" * 40
    made.put(intent(1, OrgId("a" * 40), member=member, limits=limits, **texts))
    made.put(intent(2, request_id="\ud800"))
    found = list(read(tmp_path)[1].values())
    assert (found[0].org, found[0].member, found[0].at_us) == ("a" * 40, member, intent(1).at_us)
    assert found[1].request_id == "?"


def test_the_file_grows_when_all_slots_are_taken_up_to_a_bound(
    made: Intents, disk: FaultyDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(SLOTS):
        made.put(intent(n))
    disk.full("allocate")
    with pytest.raises(OSError, match="No space"):
        made.make_room()
    disk.mend()
    for n in range(SLOTS):
        made.put(intent(n))
    assert (tmp_path / intents.NAME).stat().st_size == (2 * SLOTS + 1) * INTENT_MAX
    assert list(read(tmp_path)[1]) == list(range(1, 2 * SLOTS + 1))
    monkeypatch.setattr(intents, "SLOTS_MAX", 2 * SLOTS)
    with pytest.raises(FullError):
        made.put(intent())


def test_a_file_that_cannot_be_made_leaves_nothing(tmp_path: Path, disk: FaultyDisk) -> None:
    disk.full("allocate")
    with pytest.raises(OSError, match="No space"):
        Intents(tmp_path, disk)
    assert list(tmp_path.iterdir()) == []


def test_a_spool_of_before_has_no_intents(tmp_path: Path) -> None:
    assert read(tmp_path) == (0, {})
    (tmp_path / intents.NAME).write_bytes(b"short")
    assert read(tmp_path) == (0, {})
    (tmp_path / intents.NAME).write_bytes(b"\xff" * 3 * INTENT_MAX)
    assert read(tmp_path) == (0, {})


# -- secure ---------------------------------------------------------------------------------------------------


class Slow(FaultyDisk):
    """Each sync waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(100)

    def sync(self, fd: int) -> None:
        self.begun.release()
        assert self.go.acquire(timeout=20)
        super().sync(fd)


async def held(tmp_path: Path) -> tuple[Intents, Slow, asyncio.Task[None]]:
    """Intents with one who waits, in a sync that does not end before it is let go."""
    disk = Slow()
    made = Intents(tmp_path, disk)
    disk.begun.acquire()
    disk.go = threading.Semaphore(0)
    made.put(intent(1))
    waiting = asyncio.create_task(made.secure())
    assert await asyncio.to_thread(disk.begun.acquire, timeout=20)
    return made, disk, waiting


async def test_all_who_come_while_a_sync_runs_share_the_next(tmp_path: Path) -> None:
    made, disk, first = await held(tmp_path)
    others = []
    for n in range(20):
        made.put(intent(n))
        others.append(asyncio.create_task(made.secure()))
    await asyncio.sleep(0)
    disk.go.release()
    await first
    assert not any(other.done() for other in others)
    disk.go.release()
    await asyncio.gather(*others)
    assert disk.calls.count("sync") == 3  # the one that made the file, the first, the group's
    await made.aclose()


async def test_who_is_cancelled_takes_nobody_along(tmp_path: Path) -> None:
    made, disk, first = await held(tmp_path)
    second = asyncio.create_task(made.secure())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    disk.go.release(2)
    await second
    await made.aclose()


async def test_a_sync_that_fails_is_not_made_good_by_one_that_succeeds(made: Intents, disk: FaultyDisk) -> None:
    """What the kernel could not write it may have dropped: a later sync says nothing of it."""
    made.put(intent(1))
    disk.broken("sync")
    for outcome in await asyncio.gather(made.secure(), made.secure(), return_exceptions=True):
        assert isinstance(outcome, OSError)
    disk.mend()
    with pytest.raises(OSError, match="Input/output"):
        await made.secure()
    made.wipe()
    await made.secure()
    assert not made.doubtful
    await made.aclose()


async def test_a_write_that_fails_is_no_intent(made: Intents, disk: FaultyDisk, tmp_path: Path) -> None:
    made.put(intent(1))
    disk.broken("write")
    disk.torn = INTENT_MAX
    with pytest.raises(OSError, match="Input/output"):
        made.put(intent(2))
    with pytest.raises(OSError, match="Input/output"):
        made.wipe()
    disk.mend()
    made.wipe()
    assert list(read(tmp_path)[1]) == [1]


async def test_a_sync_of_somebody_who_left_ends_before_the_file_is_closed(tmp_path: Path) -> None:
    made, disk, first = await held(tmp_path)
    first.cancel()
    closing = asyncio.create_task(made.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    disk.go.release()
    await closing


async def test_nothing_is_synced_that_was_not_written(made: Intents, disk: FaultyDisk) -> None:
    before = disk.calls.count("sync")
    await made.secure()
    assert disk.calls.count("sync") == before
    await made.aclose()


# -- in a spool -----------------------------------------------------------------------------------------------


async def nobody(up: SpoolUp) -> int:
    raise UnavailableError("away")


async def take(up: SpoolUp) -> int:
    return up.receipts[-1].seq


async def test_a_secured_intent_outlives_a_power_cut_with_what_is_known_by_then(tmp_path: Path) -> None:
    disk = FaultyDisk()
    spool = Spool(tmp_path, "boot", 64 * 1024, 1, disk=disk)
    number = spool.admit(intent(1))
    disk.calls.clear()
    await spool.secure(number, intent(1, upstream="gpu", rule="all"))
    assert disk.calls == ["write", "sync"]
    assert read(tmp_path / "boot")[1] == {number: intent(1, upstream="gpu", rule="all")}


@pytest.mark.parametrize("call", ["sync", "write"])
async def test_an_intent_that_cannot_be_secured_is_refused_and_its_request_settles(
    tmp_path: Path, call: str
) -> None:
    disk = FaultyDisk()
    spool = Spool(tmp_path, "boot", 64 * 1024, 1, disk=disk)
    number = spool.admit(intent(1))
    disk.broken(call)
    with pytest.raises(UnavailableError, match=r"cannot be written \(Input/output error"):
        await spool.secure(number, intent(1))
    with pytest.raises(UnavailableError):
        spool.admit(intent(2))
    disk.mend()
    spool.append(receipt(1, outcome=Outcome.REFUSED), number)
    running = asyncio.create_task(spool.run(take))
    await eventually(lambda: spool.healthy, "the disk to be trusted again")
    spool.append(receipt(2), spool.admit(intent(2)))
    spool.stop()
    await running


async def test_a_broken_disk_is_found_whole_again_without_any_receipt(tmp_path: Path) -> None:
    disk = FaultyDisk()
    spool = Spool(tmp_path, "boot", 64 * 1024, 1, disk=disk)
    running = asyncio.create_task(spool.run(take))
    disk.broken("write")
    with pytest.raises(UnavailableError, match="cannot be written"):
        spool.admit(intent(1))
    disk.mend()
    await eventually(lambda: spool.healthy, "the disk to be trusted again")
    spool.stop()
    await running


async def test_too_many_open_requests_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intents, "SLOTS_MAX", SLOTS)
    spool = Spool(tmp_path, "boot", 4 * 1024 * 1024, 1)
    for n in range(SLOTS):
        spool.admit(intent(n))
    with pytest.raises(UnavailableError, match="spool is full"):
        spool.admit(intent())


async def test_a_stream_of_an_hour_holds_no_segment(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "boot", 16 * 1024, 1)
    running = asyncio.create_task(spool.run(take))
    long = spool.admit(intent(0, member="mem_long"))
    for n in range(1, 200):
        spool.append(receipt(n), spool.admit(intent(n)))
        if n % 20 == 0:
            await eventually(lambda: not spool.pending, "all to be entries")
    await eventually(lambda: [*read(tmp_path / "boot")[1]] == [long], "the others to be wiped")
    assert len(list(tmp_path.rglob("*.seg"))) <= 2
    spool.append(receipt(0), long)
    spool.stop()
    await running


# -- recovery -------------------------------------------------------------------------------------------------


def die(spool: Spool) -> None:
    os.close(spool._lock)


async def outcomes(folder: Path) -> dict[str, list[tuple[object, object]]]:
    found = {}
    for org in (ACME, GLOBEX):
        made = [json.loads(line) for line in await entries(folder, org)]
        found[str(org)] = [(entry["request_id"][-2:], entry["outcome"]) for entry in made]
        numbers = [entry["spool"][1] for entry in made]
        assert numbers == sorted(set(numbers))
    return found


async def test_what_a_dead_worker_left_open_becomes_entries_once(tmp_path: Path) -> None:
    """However often recovery begins anew, and wherever it was killed."""
    spool = Spool(tmp_path / "spool", "boot", 16 * 1024, 1)
    numbers = [spool.admit(intent(n, ACME if n % 2 else GLOBEX)) for n in range(6)]
    for n in (1, 4):
        spool.append(receipt(n, ACME if n % 2 else GLOBEX), numbers[n])
    die(spool)
    sequencer = Sequencer(tmp_path / "log", SIGNER)
    await sequencer.open()

    async def killed_after(up: SpoolUp) -> int:
        upto = await sequencer.append_receipts(up)
        if up.receipts[-1].receipt.outcome is Outcome.UNKNOWN:
            raise ConnectionResetError
        return upto

    async def killed_between(up: SpoolUp) -> int:
        """When one organization's log has them, and the other's does not."""
        orphans = up.receipts[-1].receipt.outcome is Outcome.UNKNOWN
        return await killed_after(SpoolUp(up.boot, _of(up, ACME)) if orphans else up)

    for send in (killed_between, killed_after, killed_between, sequencer.append_receipts):
        with pytest.raises(ConnectionResetError) if "killed" in send.__name__ else nullcontext():
            await recover(tmp_path / "spool", send)
    await sequencer.close()
    assert await outcomes(tmp_path / "log") == {
        "acme": [("01", "served"), ("03", "unknown"), ("05", "unknown")],
        "globex": [("04", "served"), ("00", "unknown"), ("02", "unknown")],
    }


def _of(up: SpoolUp, org: OrgId) -> tuple[SpooledReceipt, ...]:
    return tuple(item for item in up.receipts if item.receipt.org == org)


async def test_open_intents_are_found_after_all_receipts_were_wiped(tmp_path: Path) -> None:
    sequencer = Sequencer(tmp_path / "log", SIGNER)
    await sequencer.open()
    spool = Spool(tmp_path / "spool", "boot", 16 * 1024, 1)
    running = asyncio.create_task(spool.run(sequencer.append_receipts))
    spool.admit(intent(7))
    for n in range(5):
        spool.append(receipt(n), spool.admit(intent(n)))
    await eventually(lambda: read(tmp_path / "spool/boot")[0] == 5, "the receipts to be wiped")
    running.cancel()
    die(spool)
    assert await recover(tmp_path / "spool", sequencer.append_receipts) == 1
    await sequencer.close()
    served: Sequence[tuple[object, object]] = [(f"0{n}", "served") for n in range(5)]
    assert (await outcomes(tmp_path / "log"))["acme"] == [*served, ("07", "unknown")]


async def test_what_is_left_of_a_spool_that_was_forgotten_is_swept_away(tmp_path: Path) -> None:
    folder, lock = make_folder(tmp_path, "boot")
    os.close(lock)
    (folder / "00000001.seg").write_bytes(b"mem_1")
    folder.rename(tmp_path / f"{GONE}boot")  # killed right here
    assert await recover(tmp_path, take) == 0
    assert list(tmp_path.iterdir()) == []
    sweep(tmp_path / "no such folder")
    assert await recover(tmp_path, nobody) == 0
