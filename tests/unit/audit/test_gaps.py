"""A spool that lacks what was sent: however the disk failed its worker, no request becomes two entries."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.audit import intents, orglog
from gateway.audit.canonical import canonical
from gateway.audit.chain import line_hash
from gateway.audit.entry import Draft, from_receipt
from gateway.audit.files import FileLog
from gateway.audit.orglog import OrgLog
from gateway.audit.record import INTENT_MAX, decode
from gateway.audit.recover import recover
from gateway.audit.seen import BOOTS_MAX, Seen
from gateway.audit.segments import folders
from gateway.audit.sequencer import Sequencer
from gateway.audit.spool import Spool
from gateway.errors import UnavailableError
from gateway.exchange import SpooledReceipt, SpoolUp
from tenants.ids import OrgId
from tests.fakes.audit import ACME, GLOBEX, SIGNER, intent, receipt
from tests.kit.wait import eventually
from tests.unit.audit.test_intents import die, outcomes
from tests.unit.audit.test_spool import SIZE
from tests.unit.audit.test_spool_disk import Worn


@pytest.fixture
async def sequencer(tmp_path: Path) -> AsyncIterator[Sequencer]:
    made = Sequencer(tmp_path / "log", SIGNER)
    await made.open()
    yield made
    await made.close()


LARGE = {"model": "x" * 500, "error": "x" * 400, "rule": "x" * 400, "limit": "x" * 400}
"""Four of such receipts fill a segment."""


class Torn(Worn):
    """Once `worn` no segment takes anything, and of the intents only one sector gets through at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.worn = False
        self.refused = 0

    def write(self, fd: int, data: bytes, offset: int) -> None:
        if self.worn and len(data) > INTENT_MAX and os.readlink(f"/proc/self/fd/{fd}").endswith(intents.NAME):
            self.refused += 1
            super().write(fd, data[:INTENT_MAX], offset)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().write(fd, data, offset)


async def test_a_wipe_that_is_torn_vouches_for_nothing(tmp_path: Path, sequencer: Sequencer) -> None:
    """Receipts went out from memory and stand in no segment; of the wipe of their intents a part got through."""
    disk = Torn()
    spool = Spool(tmp_path / "spool", "boot", SIZE, 1, disk=disk)
    numbers = [spool.admit(intent(n)) for n in range(6)]
    disk.worn = True
    for n, number in enumerate(numbers):
        spool.append(receipt(n, **LARGE), number)  # type: ignore[arg-type]  # fields of a receipt
    running = asyncio.create_task(spool.run(sequencer.append_receipts))
    await eventually(lambda: disk.refused > 1, "the intents to be wiped in vain")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    die(spool)
    await recover(tmp_path / "spool", sequencer.append_receipts)
    assert (await outcomes(tmp_path / "log"))["acme"] == [(f"0{n}", "served") for n in range(6)]


async def test_nothing_is_admitted_while_intents_cannot_be_wiped(tmp_path: Path, sequencer: Sequencer) -> None:
    disk = Torn()
    spool = Spool(tmp_path / "spool", "boot", SIZE, 1, disk=disk)
    for n in range(6):
        spool.append(receipt(n), spool.admit(intent(n)))
    disk.worn = True
    running = asyncio.create_task(spool.run(sequencer.append_receipts))
    await eventually(lambda: disk.refused > 0, "the intents to be wiped in vain")
    well: list[bool] = []

    def again() -> bool:
        well.append(spool.healthy)
        return disk.refused > 3

    await eventually(again, "them to be wiped in vain again")
    assert not any(well)
    disk.worn = False
    await eventually(lambda: spool.healthy, "the disk to be trusted again")
    spool.stop()
    await running
    assert (await outcomes(tmp_path / "log"))["acme"] == [(f"0{n}", "served") for n in range(6)]


@pytest.mark.parametrize("org", [ACME, GLOBEX])
async def test_a_receipt_that_was_sent_and_is_lost_stays_what_it_was(
    tmp_path: Path, sequencer: Sequencer, org: OrgId
) -> None:
    """A power cut takes any sector that was not synced: the last record of a segment, and none of the next."""
    spool = Spool(tmp_path / "spool", "boot", SIZE, 1)
    whose = {3: org}
    numbers = [spool.admit(intent(n, whose.get(n, ACME))) for n in range(9)]
    for n in range(8):
        spool.append(receipt(n, whose.get(n, ACME), **LARGE), numbers[n])
    first, *others = sorted((tmp_path / "spool").rglob("*.seg"))
    kept = [(item, end) for item, end in decode(first.read_bytes())]
    sent = [item for item, _ in kept] + [item for path in others for item, _ in decode(path.read_bytes())]
    assert [item.seq for item in sent] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert kept[-1][0].seq == 4
    await sequencer.append_receipts(SpoolUp("boot", tuple(sent)))
    first.write_bytes(first.read_bytes()[: kept[-2][1]].ljust(SIZE, b"\0"))
    die(spool)
    await recover(tmp_path / "spool", sequencer.append_receipts)
    found = await outcomes(tmp_path / "log")
    assert found[org].count(("03", "served")) == 1
    everybody = sorted(found["acme"] + (found["globex"] if org is GLOBEX else []))
    assert everybody == [*[(f"0{n}", "served") for n in range(8)], ("08", "unknown")]


async def test_what_was_on_its_way_when_its_worker_died_is_no_second_entry(
    tmp_path: Path, sequencer: Sequencer
) -> None:
    """The disk took neither of two receipts; the sequencer reads the message with them after the recovery."""
    disk = Worn()
    disk.worn = False
    spool = Spool(tmp_path / "spool", "boot", SIZE, 1, disk=disk)
    numbers = [spool.admit(intent(n)) for n in range(2)]
    disk.worn = True
    late = []
    for n, number in enumerate(numbers):
        spool.append(receipt(n), number)
        late.append(SpooledReceipt(n + 1, receipt(n), number))
    late.append(SpooledReceipt(9, receipt(1), numbers[1]))
    die(spool)
    assert await recover(tmp_path / "spool", sequencer.append_receipts) == 2
    assert await sequencer.append_receipts(SpoolUp("boot", tuple(late))) == 9
    assert (await outcomes(tmp_path / "log"))["acme"] == [("00", "unknown"), ("01", "unknown")]


def test_the_dead_are_remembered_for_as_long_as_their_boots() -> None:
    seen = Seen()
    unknown = SpooledReceipt(0, intent(1).unsettled(), 1)
    assert seen.add(from_receipt(unknown.receipt, "dead", 0, intent=1), set(), 0)
    late = from_receipt(receipt(1), "dead", 7, intent=1)
    assert not seen.copy().add(late, set(), 1)
    for n in range(BOOTS_MAX):
        assert seen.add(from_receipt(receipt(2), f"boot-{n}", 1), set(), n + 1)
    assert not seen.dead
    assert seen.begun == {f"boot-{n}": n + 1 for n in range(BOOTS_MAX)}


async def test_a_record_for_a_segment_that_came_meanwhile_waits_for_the_next_sync(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "boot", SIZE, 1)
    before = tuple(spool._segments)
    spool._segments.append(spool._allocate())
    spool._stuck.update({(1, 0): b"old", (2, 0): b"new"})
    spool._write_back(before, ())
    assert spool._stuck == {(2, 0): b"new"}
    spool._write_back(tuple(spool._segments), ())
    assert [path.read_bytes()[:3] for path in sorted(tmp_path.rglob("*.seg"))] == [b"old", b"new"]
    assert not spool._stuck


# -- how much of the log is read ------------------------------------------------------------------------------


class Counting(OrgLog):
    """How many lines were looked at."""

    def __init__(self, folder: Path) -> None:
        super().__init__(FileLog(folder), ACME, SIGNER)
        self.read = 0
        lines = self.store.lines

        def counted(start: int, end: int) -> Iterator[bytes]:
            self.read += end - start
            return lines(start, end)

        self.store.lines = counted  # type: ignore[method-assign]


def served(boot: str, seqs: range) -> list[Draft]:
    return [from_receipt(receipt(n), boot, n, intent=n) for n in seqs]


def orphan(boot: str, sure: int, number: int) -> Draft:
    return from_receipt(intent(number).unsettled(), boot, sure, intent=number)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    """A hundred entries of another worker, some of one that is about to die, and the other's again."""
    monkeypatch.setattr(orglog, "LOOK_BACK", 4)
    log = Counting(tmp_path / "acme")
    log.append(served("other", range(1, 101)))
    log.append(served("boot", range(1, 9)))
    log.append(served("other", range(101, 111)))
    log.append(served("boot", range(9, 12)))
    return log


def test_the_log_is_not_read_for_intents_of_a_spool_without_gaps(log: Counting) -> None:
    assert log.append([orphan("boot", 11, 12)]) == 1
    assert log.read == 0


def test_the_log_is_read_back_to_the_last_receipt_before_the_gap(log: Counting) -> None:
    assert log.append([orphan("boot", 8, number) for number in (9, 10, 50)]) == 1
    assert log.read == 16
    assert log.append([orphan("boot", 8, number) for number in (9, 10, 50)]) == 0


def test_the_log_is_read_back_to_the_first_entry_of_the_worker_and_no_further(log: Counting) -> None:
    assert log.append([orphan("boot", 0, number) for number in (2, 11, 50)]) == 1
    assert log.read == 21
    log.save_checkpoint()
    log.close()
    again = Counting(log.store.folder)  # type: ignore[attr-defined]  # it is one of files
    assert again.append([orphan("boot", 0, number) for number in (2, 11, 50, 51)]) == 1
    assert again.read == 22


def test_a_state_of_before_does_not_say_where_a_worker_began(log: Counting) -> None:
    log.save_checkpoint()
    state = json.loads(log.store.state())
    del state["begun"], state["sha256"]
    state["sha256"] = line_hash(canonical(state))
    log.store.save(log.store.checkpoint(), canonical(state))
    log.close()
    again = Counting(log.store.folder)  # type: ignore[attr-defined]  # it is one of files
    assert again.append([orphan("boot", 0, number) for number in (2, 11, 50)]) == 1
    assert again.read == 121


# -- spools that wait -----------------------------------------------------------------------------------------


async def test_a_spool_that_cannot_be_drained_holds_no_other_up(tmp_path: Path, sequencer: Sequencer) -> None:
    for name in ("first", "second"):
        spool = Spool(tmp_path / "spool", name, SIZE, 1)
        spool.append(receipt(len(name)), spool.admit(intent(len(name))))
        die(spool)

    async def refused(up: SpoolUp) -> int:
        if up.boot == "first":
            raise UnavailableError("the audit log cannot be written now")
        return await sequencer.append_receipts(up)

    with pytest.raises(UnavailableError):
        await recover(tmp_path / "spool", refused)
    assert [path.name for path in folders(tmp_path / "spool")] == ["first"]
    assert (await outcomes(tmp_path / "log"))["acme"] == [("06", "served")]


def test_the_oldest_spools_are_drained_first(tmp_path: Path) -> None:
    for at, name in enumerate(("c", "a", "b"), 1):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
        os.utime(tmp_path / name / "lock", (at, at))
    (tmp_path / "going").mkdir()
    assert [path.name for path in folders(tmp_path)] == ["going", "c", "a", "b"]


def test_a_boot_that_repeats_itself_is_not_forgotten() -> None:
    """Its spool cannot be drained to its end, and is tried again while others come and go."""
    seen = Seen()
    (draft,), lost = served("waits", range(1, 2)), orphan("waits", 1, 2)
    assert seen.add(draft, set(), 0)
    assert seen.add(lost, set(), 1)
    for n in range(2 * BOOTS_MAX):
        assert seen.add(served(f"boot-{n}", range(1, 2))[0], set(), n + 2)
        assert not seen.add(draft, set(), n + 3)
        assert not seen.add(lost, {lost.id}, n + 3)
