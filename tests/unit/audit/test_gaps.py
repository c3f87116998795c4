"""A spool that lacks what was sent: however the disk failed its worker, no request becomes two entries."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.audit import intents
from gateway.audit.entry import from_receipt
from gateway.audit.record import INTENT_MAX, decode
from gateway.audit.recover import recover
from gateway.audit.seen import BOOTS_MAX, Seen
from gateway.audit.sequencer import Sequencer
from gateway.audit.spool import Spool
from gateway.exchange import SpooledReceipt, SpoolUp
from tenants.ids import OrgId
from tests.fakes.audit import ACME, GLOBEX, SIGNER, intent, receipt
from tests.kit.wait import eventually
from tests.unit.audit.test_intents import die, outcomes
from tests.unit.audit.test_spool import SIZE, Worn


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
    assert seen.add(from_receipt(unknown.receipt, "dead", 0, intent=1), set())
    late = from_receipt(receipt(1), "dead", 7, intent=1)
    assert not seen.copy().add(late, set())
    for n in range(BOOTS_MAX):
        assert seen.add(from_receipt(receipt(2), f"boot-{n}", 1), set())
    assert not seen.dead


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
