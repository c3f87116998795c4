"""The worker's spool: room before promise, order, retries, a disk that fails, and what recovery finds."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import record
from gateway.audit.record import RECORD_MAX, decode, encode
from gateway.audit.recover import recover
from gateway.audit.segments import take_over
from gateway.audit.spool import Spool
from gateway.errors import UnavailableError
from gateway.exchange import Outcome, Receipt, SpooledReceipt, SpoolUp
from tenants.ids import OrgId
from tests.fakes.audit import FaultyDisk, intent, receipt
from tests.kit.wait import eventually

SIZE = 4 * RECORD_MAX


class Sequencer:
    """Takes what a spool sends, in order and once; away until told."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.calls = 0
        self.away: Exception | None = None
        self.called = asyncio.Event()
        self.most = 10**9

    async def send(self, up: SpoolUp) -> int:
        self.calls += 1
        self.called.set()
        if self.away:
            raise self.away
        taken = [item.seq for item in up.receipts][: self.most]
        self.seqs += [seq for seq in taken if seq > (self.seqs[-1] if self.seqs else 0)]
        return taken[-1]


def fill(spool: Spool, count: int, **changes: object) -> None:
    for n in range(count):
        spool.append(receipt(n, **changes), spool.admit(intent(n)))  # type: ignore[arg-type]  # fields of a receipt


def settle(spool: Spool, made: Receipt) -> None:
    """The request that was admitted first."""
    spool.append(made, min(spool._intents._places))


class Taken:
    """Takes all that is sent, repeats too."""

    def __init__(self) -> None:
        self.items: list[SpooledReceipt] = []

    async def send(self, up: SpoolUp) -> int:
        self.items += up.receipts
        return up.receipts[-1].seq


def wiped(folder: Path) -> bool:
    return not any(b"".join(path.read_bytes() for path in folder.rglob("*.seg")))


def well(spool: Spool) -> bool:
    return spool.healthy


async def finish(spool: Spool, send: Callable[[SpoolUp], object]) -> None:
    spool.stop()
    await spool.run(send)  # type: ignore[arg-type]  # the fake's method


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


# -- records --------------------------------------------------------------------------------------------------


def test_records_read_back_until_the_first_that_is_torn() -> None:
    made = [SpooledReceipt(n, receipt(n)) for n in range(1, 4)]
    data = b"".join(map(encode, made))
    assert [item for item, _ in decode(data + bytes(64))] == made
    assert [item.seq for item, _ in decode(data[:-1])] == [1, 2]
    spoiled = bytearray(data)
    spoiled[len(encode(made[0])) + 20] ^= 1
    assert [item.seq for item, _ in decode(bytes(spoiled))] == [1]


def test_a_receipt_of_any_size_fits_a_record() -> None:
    texts: dict[str, Any] = dict.fromkeys(("model", "error", "rule", "client", "limit"), "😀" * 9000)
    huge = receipt(1, OrgId("ü" * 5000), **texts)
    everything: dict[str, Any] = {
        n: "😀" * 9000 for n in huge.__struct_fields__ if isinstance(getattr(huge, n), str)
    }
    del everything["action"], everything["outcome"], everything["org"]
    for one in (huge, receipt(1, **everything), receipt(1, model="\ud800")):
        data = encode(SpooledReceipt(2**60, one))
        assert len(data) <= RECORD_MAX
        ((read, end),) = decode(data)
        assert end == len(data)
        assert read.seq == 2**60
        assert read.receipt.status == 200


# -- room -----------------------------------------------------------------------------------------------------


def test_every_admitted_request_has_room_on_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "boot", SIZE, 1, segments_max=3)
    for _ in range(12):
        spool.admit(intent())
    with pytest.raises(UnavailableError, match="spool is full") as caught:
        spool.admit(intent())
    assert caught.value.retry_after_s
    for n in range(12):
        settle(spool, receipt(n, model="x" * 5000))
    assert all(path.stat().st_blocks * 512 >= SIZE for path in tmp_path.rglob("*.seg"))
    assert spool.pending == 12


def test_a_full_disk_refuses_at_admission_and_never_at_settlement(tmp_path: Path) -> None:
    disk = FaultyDisk()
    spool = Spool(tmp_path, "boot", SIZE, 1, disk=disk)
    disk.full("allocate")
    for _ in range(4):
        spool.admit(intent())
    with pytest.raises(UnavailableError, match=r"no reserve on disk \(No space left"):
        spool.admit(intent())
    assert files(tmp_path / "boot") == ["00000001.seg", "intents", "lock"]
    for n in range(4):
        settle(spool, receipt(n))
    disk.mend()
    spool.admit(intent())


def test_a_spool_that_gets_no_first_segment_says_so(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.full("allocate")
    with pytest.raises(OSError, match="No space"):
        Spool(tmp_path, "boot", SIZE, 1, disk=disk)
    with pytest.raises(ValueError, match="one record"):
        Spool(tmp_path, "boot2", RECORD_MAX - 1, 1)


def test_appending_without_admission_is_a_mistake_that_is_heard(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "boot", SIZE, 1)
    with pytest.raises(RuntimeError, match="without admit"):
        spool.append(receipt(), 1)


def test_files_are_private(tmp_path: Path) -> None:
    Spool(tmp_path / "spools", "boot", SIZE, 1)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "spools").rglob("*")}
    assert modes == {"boot": 0o700, "00000001.seg": 0o600, "intents": 0o600, "lock": 0o600}


# -- forwarding -----------------------------------------------------------------------------------------------


async def test_receipts_arrive_in_order_and_nothing_is_left(tmp_path: Path) -> None:
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    fill(spool, 100)
    await finish(spool, there.send)
    assert there.seqs == list(range(1, 101))
    assert files(tmp_path) == []


async def test_stopping_waits_for_what_was_admitted(tmp_path: Path) -> None:
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    fill(spool, 1)
    spool.admit(intent())
    spool.stop()
    with pytest.raises(UnavailableError, match="shutting down"):
        spool.admit(intent())
    running = asyncio.create_task(spool.run(there.send))
    await there.called.wait()
    there.called.clear()
    settle(spool, receipt(2))
    await there.called.wait()
    await running
    assert there.seqs == [1, 2]
    assert files(tmp_path) == []


async def test_segments_go_as_their_receipts_are_acknowledged(tmp_path: Path) -> None:
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    running = asyncio.create_task(spool.run(there.send))
    for n in range(200):
        fill(spool, 1)
        if n % 20 == 0:
            there.called.clear()
            await there.called.wait()
    assert len(list(tmp_path.rglob("*.seg"))) <= 6
    spool.stop()
    await running
    assert there.seqs == list(range(1, 201))


async def test_what_is_an_entry_is_wiped_from_the_segment_in_use(tmp_path: Path) -> None:
    """A receipt names its member, who may be erased the day after: an idle worker must not keep them."""
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    running = asyncio.create_task(spool.run(there.send))

    def on_disk() -> bytes:
        return b"".join(path.read_bytes() for path in (tmp_path / "boot").iterdir())

    for n in range(20):  # more than the segment has room for, were it not begun anew
        member = f"mem_0{n:04}"
        number = spool.admit(intent(n, member=member))
        assert member.encode() in on_disk()
        spool.append(receipt(n, member=member), number)
        await eventually(lambda: b"mem_" not in on_disk(), "the segment and the intent to be wiped")
    assert files(tmp_path / "boot") == ["00000001.seg", "intents", "lock"]
    spool.stop()
    await running
    assert there.seqs == list(range(1, 21))


async def test_a_crash_after_the_segment_was_begun_anew_loses_and_repeats_nothing(tmp_path: Path) -> None:
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    fill(spool, 3)
    running = asyncio.create_task(spool.run(there.send))
    await eventually(lambda: wiped(tmp_path), "the segment to be wiped")
    running.cancel()
    fill(spool, 2)
    os.close(spool._lock)  # kill -9: the kernel lets go of it
    assert await recover(tmp_path, there.send) == 2
    assert there.seqs == [1, 2, 3, 4, 5]


async def test_a_segment_that_cannot_be_wiped_is_begun_anew_all_the_same(tmp_path: Path) -> None:
    """Else what comes behind a part that was wiped would be lost to recovery. Old records behind are repeats."""

    class Unwiped(FaultyDisk):
        def write(self, fd: int, data: bytes, offset: int) -> None:
            if offset == 0 and not any(data) and os.readlink(f"/proc/self/fd/{fd}").endswith(".seg"):
                refused.set()
                super().write(fd, data[:40], offset)
                raise OSError(5, "Input/output error")
            super().write(fd, data, offset)

    refused = threading.Event()
    spool, there = Spool(tmp_path, "boot", SIZE, 1, disk=Unwiped()), Sequencer()
    fill(spool, 3)
    running = asyncio.create_task(spool.run(there.send))
    await eventually(refused.is_set, "the segment to be wiped in vain")
    running.cancel()
    fill(spool, 1)
    os.close(spool._lock)
    await recover(tmp_path, there.send)
    assert there.seqs == [1, 2, 3, 4]


async def test_a_sequencer_that_is_away_is_asked_again(tmp_path: Path) -> None:
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    there.away = UnavailableError("away")
    running = asyncio.create_task(spool.run(there.send))
    fill(spool, 7)
    await there.called.wait()
    there.called.clear()
    await there.called.wait()
    assert there.calls >= 2
    assert spool.pending == 7
    there.away = None
    spool.stop()
    await running
    assert there.seqs == list(range(1, 8))


async def test_what_is_acknowledged_in_part_is_sent_again_from_there(tmp_path: Path) -> None:
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    there.most = 3
    fill(spool, 10)
    await finish(spool, there.send)
    assert there.seqs == list(range(1, 11))
    assert there.calls == 4


async def test_large_backlogs_go_in_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.audit.spool.BATCH_BYTES", RECORD_MAX)
    monkeypatch.setattr("gateway.audit.spool.RECENT_BYTES", 0)
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    fill(spool, 30)
    await finish(spool, there.send)
    assert there.seqs == list(range(1, 31))
    assert there.calls > 1


async def test_what_is_sent_at_once_is_not_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    fill(spool, 20, model="\ud800")  # cut on disk, and sent as it is there

    def pread(fd: int, size: int, at: int) -> bytes:
        raise AssertionError

    monkeypatch.setattr("gateway.audit.spool.os.pread", pread)
    there.most = 7
    sent: list[SpooledReceipt] = []

    async def send(up: SpoolUp) -> int:
        sent.extend(up.receipts)
        return await there.send(up)

    await finish(spool, send)
    assert there.seqs == list(range(1, 21))
    assert {item.receipt.model for item in sent} == {"?"}


async def test_a_sequencer_that_was_away_gets_all_in_order_from_disk_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.audit.spool.RECENT_BYTES", 8 * 200)
    monkeypatch.setattr("gateway.audit.spool.RETRY_S", (0.01,))
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    there.away = UnavailableError("not yet")
    running = asyncio.create_task(spool.run(there.send))
    for _ in range(10):
        fill(spool, 3)
        there.called.clear()
        await there.called.wait()
    there.away = None
    fill(spool, 2)
    spool.stop()
    await running
    assert there.seqs == list(range(1, 33))


async def test_a_spare_is_made_before_it_is_needed(tmp_path: Path) -> None:
    disk = FaultyDisk()
    spool, there = Spool(tmp_path, "boot", SIZE, 1, disk=disk), Sequencer()
    running = asyncio.create_task(spool.run(there.send))
    fill(spool, 3, model="x" * 500, error="x" * 400, rule="x" * 400, limit="x" * 400)
    await there.called.wait()
    assert len(list(tmp_path.rglob("*.seg"))) == 2
    disk.full("allocate")
    for _ in range(4):
        spool.admit(intent())
    for n in range(4):
        settle(spool, receipt(n))
    spool.stop()
    await running
    assert there.seqs == list(range(1, 8))


async def test_no_spare_on_a_full_disk_is_not_the_end(tmp_path: Path) -> None:
    disk = FaultyDisk()
    spool, there = Spool(tmp_path, "boot", SIZE, 1, disk=disk), Sequencer()
    fill(spool, 4, model="x" * 500, error="x" * 400, rule="x" * 400, limit="x" * 400)
    disk.full("allocate")
    await finish(spool, there.send)
    assert there.seqs == [1, 2, 3, 4]


# -- recovery -------------------------------------------------------------------------------------------------


async def test_the_spool_of_a_living_worker_is_left_alone(tmp_path: Path) -> None:
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    fill(spool, 3)
    assert await recover(tmp_path, there.send) == 0
    assert there.seqs == []
    await finish(spool, there.send)
    assert there.seqs == [1, 2, 3]


def die(spool: Spool) -> None:
    """What the kernel does to a killed process: its descriptors, and with them its locks, go."""
    os.close(spool._lock)


async def test_a_dead_workers_spool_is_drained_and_removed(tmp_path: Path) -> None:
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    fill(spool, 50)
    die(spool)
    assert await recover(tmp_path, there.send) == 50
    assert there.seqs == list(range(1, 51))
    assert files(tmp_path) == []
    assert await recover(tmp_path, there.send) == 0


async def test_a_torn_record_was_never_acknowledged_and_its_intent_stands_for_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "boot", SIZE, 1)
    fill(spool, 3)
    die(spool)
    (path,) = tmp_path.rglob("*.seg")
    end = [end for _, end in decode(path.read_bytes())][-1]
    with path.open("r+b") as file:
        file.seek(end - 5)
        file.write(bytes(5))
    taken = Taken()
    assert await recover(tmp_path, taken.send) == 3
    assert [(item.seq, item.intent, item.receipt.outcome) for item in taken.items] == [
        (1, 1, Outcome.SERVED),
        (2, 2, Outcome.SERVED),
        (2, 3, Outcome.UNKNOWN),
    ]


async def test_nothing_is_removed_that_the_sequencer_refused(tmp_path: Path) -> None:
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    fill(spool, 3)
    die(spool)
    there.away = UnavailableError("full")
    with pytest.raises(UnavailableError):
        await recover(tmp_path, there.send)
    there.away, there.most = None, 2
    with pytest.raises(OSError, match="stopped at 2 of 3"):
        await recover(tmp_path, there.send)
    there.most = 9
    assert await recover(tmp_path, there.send) == 3
    assert there.seqs == [1, 2, 3]


async def test_folders_that_are_not_spools_are_passed_over(tmp_path: Path) -> None:
    there = Sequencer()
    assert await recover(tmp_path / "nowhere", there.send) == 0
    (tmp_path / "empty").mkdir()
    (tmp_path / ".made").mkdir()
    (tmp_path / "file").write_text("")
    assert take_over(tmp_path / "empty") is None
    assert await recover(tmp_path, there.send) == 0


async def test_an_empty_spool_is_removed(tmp_path: Path) -> None:
    die(Spool(tmp_path, "boot", SIZE, 1))
    assert await recover(tmp_path, Sequencer().send) == 0
    assert files(tmp_path) == []


def test_the_largest_cut_receipt_was_reckoned_right() -> None:
    assert record.CUT_TEXT * 13 < RECORD_MAX
