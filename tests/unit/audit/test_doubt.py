"""What a sync that failed leaves in doubt: no later one that succeeds makes it certain, and no race does."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.audit import intents
from gateway.audit.intents import Intents, read
from gateway.audit.recover import recover
from gateway.audit.sequencer import Sequencer
from gateway.audit.spool import Spool
from gateway.errors import UnavailableError
from gateway.exchange import SpoolUp
from tests.fakes.audit import SIGNER, FaultyDisk, intent, receipt
from tests.kit.wait import eventually
from tests.unit.audit.test_gaps import LARGE
from tests.unit.audit.test_intents import die, outcomes
from tests.unit.audit.test_spool import SIZE

PAGE = 4096


class Dropping(FaultyDisk):
    """Pages that a failed sync should have written are nowhere but in the cache, which calls them clean."""

    def __init__(self) -> None:
        super().__init__()
        self.stable: dict[str, bytearray] = {}
        self._dirty: dict[str, set[int]] = {}
        self.dropping = ""
        self.dropped = threading.Event()

    def allocate(self, fd: int, size: int) -> None:
        super().allocate(fd, size)
        stable = self.stable.setdefault(_name(fd), bytearray())
        stable.extend(bytes(size - len(stable)))

    def write(self, fd: int, data: bytes, offset: int) -> None:
        super().write(fd, data, offset)
        pages = range(offset - offset % PAGE, offset + len(data), PAGE) if data else ()
        self._dirty.setdefault(_name(fd), set()).update(pages)

    def sync(self, fd: int) -> None:
        name = _name(fd)
        dirty = self._dirty.pop(name, set())
        if self.dropping and name.endswith(self.dropping):
            self.dropping = ""
            self.dropped.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(fd)
        for at in dirty:
            page = os.pread(fd, PAGE, at)
            self.stable[name][at : at + len(page)] = page

    def cut(self, folder: Path) -> None:
        """The power goes."""
        for path in folder.iterdir():
            if path.name in self.stable:
                path.write_bytes(self.stable[path.name])


def _name(fd: int) -> str:
    return Path(os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")).name


class Between(FaultyDisk):
    """Calls somebody just before, or just after, the next write."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], object] | None = None
        self.after: Callable[[], object] | None = None

    def write(self, fd: int, data: bytes, offset: int) -> None:
        before, self.before = self.before, None
        if before:
            before()
        super().write(fd, data, offset)
        after, self.after = self.after, None
        if after:
            after()


def test_a_sync_just_before_a_write_is_not_taken_for_one_after_it(tmp_path: Path) -> None:
    disk = Between()
    made = Intents(tmp_path, disk)
    for change in (lambda: made.put(intent(1)), lambda: made.rewrite(1, intent(1, upstream="gpu"))):
        disk.before = lambda: _in_thread(made.sync)
        change()
        disk.calls.clear()
        made.sync()
        assert disk.calls == ["sync"]
    made.settle(1, 1)
    made.free(1)
    disk.before = lambda: _in_thread(made.sync)
    made.wipe()
    disk.calls.clear()
    made.sync()
    assert disk.calls == ["sync"]


def test_a_sync_that_fails_just_after_a_wipe_leaves_it_in_doubt(tmp_path: Path) -> None:
    disk = Between()
    made = Intents(tmp_path, disk)
    made.settle(made.put(intent(1)), 1)
    made.free(1)

    def fail() -> None:
        disk.broken("sync")
        with pytest.raises(OSError, match="Input/output"):
            made.sync()
        disk.mend()

    disk.after = lambda: _in_thread(fail)
    made.wipe()
    assert made.doubtful
    with pytest.raises(OSError, match="Input/output"):
        made.sync()
    made.wipe()
    assert not made.doubtful


def test_what_a_failed_sync_should_have_wiped_is_wiped_again(tmp_path: Path) -> None:
    disk = Dropping()
    made = Intents(tmp_path, disk)
    for n in range(4):
        made.settle(made.put(intent(n)), n + 1)
    made.sync()
    made.free(4)
    made.wipe()
    disk.dropping = intents.NAME
    with pytest.raises(OSError, match="Input/output"):
        made.sync()
    made.wipe()
    made.sync()
    disk.cut(tmp_path)
    assert read(tmp_path) == (0, {})


def _in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def test_no_two_sync_the_file_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel tells one of them that what both wrote is lost."""

    class Asked(FaultyDisk):
        def sync(self, fd: int) -> None:
            held.append(made._synced.locked())
            super().sync(fd)

    monkeypatch.setattr(intents, "SLOTS", 1)
    disk = FaultyDisk()
    made = Intents(tmp_path, disk)
    held: list[bool] = []
    made._disk = Asked()
    made.put(intent(1))
    made.put(intent(2))
    made.sync()
    assert held == [True, True]


class Away:
    """A sequencer that takes up to a receipt and no more."""

    def __init__(self) -> None:
        self.upto = 0
        self.asked = 0

    async def send(self, up: SpoolUp) -> int:
        self.asked += 1
        taken = [item.seq for item in up.receipts if item.seq <= self.upto]
        if not taken:
            raise UnavailableError("away")
        return taken[-1]


async def test_a_receipt_whose_sync_failed_has_its_intent_until_it_is_an_entry(tmp_path: Path) -> None:
    """The next sync succeeds, with nothing of it; then a mended file of intents has to hold its intent."""
    disk, away = Dropping(), Away()
    spool = Spool(tmp_path / "spool", "boot", SIZE, 1, disk=disk)
    number, other = spool.admit(intent(1)), spool.admit(intent(2))
    await spool.secure(number, intent(1))
    disk.dropping = ".seg"
    spool.append(receipt(1), number)
    running = asyncio.create_task(spool.run(away.send))
    await eventually(disk.dropped.is_set, "the receipt to be dropped")
    asked = away.asked
    await eventually(lambda: away.asked > asked + 1, "a sync that succeeds")
    disk.dropping = intents.NAME
    with pytest.raises(UnavailableError):
        await spool.secure(other, intent(2))
    await eventually(lambda: not spool._intents.doubtful, "the intents to be written afresh")
    await spool._intents.secure()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    disk.cut(tmp_path / "spool" / "boot")
    await _judge(tmp_path, spool, [("01", "unknown"), ("02", "unknown")])


async def test_a_receipt_behind_what_a_sync_dropped_has_its_intent_until_it_is_an_entry(tmp_path: Path) -> None:
    """Recovery cannot read past the gap, however well what is behind it was synced."""
    disk, away = Dropping(), Away()
    spool = Spool(tmp_path / "spool", "boot", 4 * SIZE, 1, disk=disk)
    numbers = [spool.admit(intent(n)) for n in range(4)]
    for n, number in enumerate(numbers):
        await spool.secure(number, intent(n))
    disk.dropping = ".seg"
    for n in range(3):  # more than a page
        spool.append(receipt(n, **LARGE), numbers[n])  # type: ignore[arg-type]  # fields of a receipt
    running = asyncio.create_task(spool.run(away.send))
    await eventually(disk.dropped.is_set, "the receipts to be dropped")
    spool.append(receipt(3), numbers[3])
    away.upto = 3
    await eventually(lambda: spool.healthy, "the disk to be trusted again")
    asked = away.asked
    await eventually(lambda: away.asked > asked + 1, "the other to be synced")
    for n in range(4, 8):
        await spool.secure(spool.admit(intent(n)), intent(n))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    disk.cut(tmp_path / "spool" / "boot")
    await _judge(tmp_path, spool, [(f"0{n}", "unknown") for n in range(3, 8)])


async def test_a_sync_for_more_slots_that_fails_is_everybodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intents, "SLOTS", 2)
    disk = Dropping()
    spool = Spool(tmp_path / "spool", "boot", 2 * SIZE, 1, disk=disk)
    number = spool.admit(intent(1))
    spool.admit(intent(2))
    disk.dropping = intents.NAME
    with pytest.raises(UnavailableError, match="cannot be written"):
        spool.admit(intent(3))
    with pytest.raises(UnavailableError):
        await spool.secure(number, intent(1))
    spool._intents.wipe()
    await spool.secure(number, intent(1))
    disk.cut(tmp_path / "spool" / "boot")
    await _judge(tmp_path, spool, [("01", "unknown"), ("02", "unknown")])


async def _judge(folder: Path, spool: Spool, wanted: list[tuple[str, str]]) -> None:
    die(spool)
    sequencer = Sequencer(folder / "log", SIGNER)
    await sequencer.open()
    await recover(folder / "spool", sequencer.append_receipts)
    await sequencer.close()
    found = (await outcomes(folder / "log"))["acme"]
    assert [one for one in found if one in wanted] == wanted
