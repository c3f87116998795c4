"""How many receipts wait, from the files of spools alone."""

from __future__ import annotations

from pathlib import Path

from gateway.audit.record import RECORD_MAX
from gateway.audit.segments import remove_folder
from gateway.audit.spool import Spool
from gateway.audit.waiting import Waiting
from tests.unit.audit.test_spool import fill

SIZE = 4 * RECORD_MAX


def test_receipts_of_all_spools_are_counted_and_each_once(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path / "spools")
    assert waiting.count() == 0  # no worker has ever been here
    one, two = (Spool(tmp_path / "spools", boot, SIZE, 1) for boot in ("one", "two"))
    assert waiting.count() == 0
    fill(one, 30)
    fill(two, 3)
    assert waiting.count() == 33
    fill(two, 4)
    assert waiting.count() == waiting.count() == 37 == one.pending + two.pending
    remove_folder(tmp_path / "spools/one")
    assert waiting.count() == 7
