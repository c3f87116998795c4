"""The worker's spool on a disk that breaks: nothing is lost, nothing is out of order, and it says so."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from gateway.audit.record import decode
from gateway.audit.spool import Spool
from gateway.errors import UnavailableError
from tests.fakes.audit import FaultyDisk, intent, receipt
from tests.kit.wait import eventually
from tests.unit.audit.test_spool import SIZE, Sequencer, files, fill, settle, well


async def test_a_write_that_fails_loses_nothing_and_refuses_what_comes_next(tmp_path: Path) -> None:
    disk = FaultyDisk()
    spool, there = Spool(tmp_path, "boot", SIZE, 1, disk=disk), Sequencer()
    fill(spool, 1)
    spool.admit(intent())
    spool.admit(intent())
    disk.broken("write")
    disk.torn = 11
    settle(spool, receipt(2))
    settle(spool, receipt(3))
    assert not well(spool)
    with pytest.raises(UnavailableError, match=r"cannot be written \(Input/output error"):
        spool.admit(intent())
    disk.mend()
    running = asyncio.create_task(spool.run(there.send))
    await there.called.wait()
    assert there.seqs == [1, 2, 3]
    spool.stop()
    await running
    assert well(spool)


async def test_while_the_disk_stays_broken_receipts_are_sent_from_memory(tmp_path: Path) -> None:
    disk = FaultyDisk()
    spool, there = Spool(tmp_path, "boot", SIZE, 1, disk=disk), Sequencer()
    running = asyncio.create_task(spool.run(there.send))
    spool.admit(intent())
    disk.broken("write")
    settle(spool, receipt(1))
    await there.called.wait()
    assert there.seqs == [1]
    assert not well(spool)
    disk.mend()
    while not well(spool):
        await asyncio.sleep(0)
    fill(spool, 1)
    spool.stop()
    await running
    assert there.seqs == [1, 2]


class Worn(FaultyDisk):
    """Writes to segments fail while it is `worn`; intents are kept elsewhere."""

    worn = True

    def write(self, fd: int, data: bytes, offset: int) -> None:
        if self.worn and os.readlink(f"/proc/self/fd/{fd}").endswith(".seg"):
            raise OSError(5, "Input/output error")
        super().write(fd, data, offset)


@pytest.mark.parametrize("recent", [0, 10**6])
async def test_what_no_segment_took_is_sent_and_needs_none_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    monkeypatch.setattr("gateway.audit.spool.RECENT_BYTES", recent)
    disk = Worn()
    spool, there = Spool(tmp_path, "boot", SIZE, 1, disk=disk), Sequencer()
    for n in range(7):
        spool.admit(intent(n))
    for n in range(7):
        settle(spool, receipt(n, model="x" * 500, error="x" * 400, rule="x" * 400, limit="x" * 400))
    running = asyncio.create_task(spool.run(there.send))
    await eventually(lambda: "00000001.seg" not in files(tmp_path / "boot"), "the first segment to be forgotten")
    assert there.seqs == [1, 2, 3, 4, 5, 6, 7]
    assert not well(spool)
    disk.worn = False
    await eventually(lambda: well(spool), "the disk to be trusted again")
    spool.stop()
    await running


async def test_records_behind_a_failed_write_reach_the_disk_in_order(tmp_path: Path) -> None:
    disk = FaultyDisk()
    spool = Spool(tmp_path, "boot", SIZE, 1, disk=disk)
    for _ in range(3):
        spool.admit(intent())
    settle(spool, receipt(1))
    disk.broken("write")
    settle(spool, receipt(2))
    disk.mend()
    settle(spool, receipt(3))
    (path,) = tmp_path.rglob("*.seg")
    assert [item.seq for item, _ in decode(path.read_bytes())] == [1]
    there = Sequencer()
    there.away = OSError()
    running = asyncio.create_task(spool.run(there.send))
    await there.called.wait()
    assert [item.seq for item, _ in decode(path.read_bytes())] == [1, 2, 3]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_records_that_were_sent_from_memory_need_no_disk_any_more(tmp_path: Path) -> None:
    disk = FaultyDisk()
    spool, there = Spool(tmp_path, "boot", SIZE, 1, disk=disk), Sequencer()
    for _ in range(7):
        spool.admit(intent())
    disk.broken("write")
    for n in range(7):
        settle(spool, receipt(n, model="x" * 500, error="x" * 400, rule="x" * 400, limit="x" * 400))
    running = asyncio.create_task(spool.run(there.send))
    await there.called.wait()
    assert there.seqs == [1, 2, 3, 4, 5, 6, 7]
    assert not well(spool)
    disk.mend()
    while not well(spool):
        await asyncio.sleep(0)
    assert "00000001.seg" not in files(tmp_path)
    spool.stop()
    await running


async def test_a_spare_that_comes_too_late_is_not_used(tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    class Slow(FaultyDisk):
        def allocate(self, fd: int, size: int) -> None:
            if threading.current_thread() is not threading.main_thread():
                started.set()
                go_on.wait(5)
            super().allocate(fd, size)

    spool, there = Spool(tmp_path, "boot", SIZE, 1, disk=Slow()), Sequencer()
    fill(spool, 3, model="x" * 500, error="x" * 400, rule="x" * 400, limit="x" * 400)
    running = asyncio.create_task(spool.run(there.send))
    await asyncio.to_thread(started.wait, 5)
    fill(spool, 3)
    go_on.set()
    spool.stop()
    await running
    assert there.seqs == [1, 2, 3, 4, 5, 6]


async def test_a_failed_sync_refuses_until_the_sequencer_has_everything(tmp_path: Path) -> None:
    disk = FaultyDisk()
    spool, there = Spool(tmp_path, "boot", SIZE, 1, disk=disk), Sequencer()
    there.away = OSError()
    fill(spool, 1)
    disk.broken("sync")
    running = asyncio.create_task(spool.run(there.send))
    await there.called.wait()
    with pytest.raises(UnavailableError):
        spool.admit(intent())
    disk.mend()
    there.called.clear()
    await there.called.wait()
    assert not well(spool)
    there.away = None
    while not well(spool):
        await asyncio.sleep(0)
    assert there.seqs == [1]
    spool.stop()
    await running


async def test_a_record_that_reads_back_broken_is_said_and_not_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.audit.spool.RECENT_BYTES", 0)
    spool, there = Spool(tmp_path, "boot", SIZE, 1), Sequencer()
    fill(spool, 2)
    real = os.pread
    broken = [True]

    def pread(fd: int, size: int, at: int) -> bytes:
        if broken[0]:
            raise OSError(5, "Input/output error")
        return real(fd, size, at)

    monkeypatch.setattr("gateway.audit.spool.os.pread", pread)
    running = asyncio.create_task(spool.run(there.send))
    while well(spool):
        await asyncio.sleep(0)
    assert there.calls == 0
    broken[0] = False
    await there.called.wait()
    spool.stop()
    await running
    assert there.seqs == [1, 2]
