"""The sequencer and its reader: exactly once, health, checkpoints, pages, waiting, raw lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.audit import files as files_module
from gateway.audit import reader as reader_module
from gateway.audit import sequencer as sequencer_module
from gateway.audit.log_store import DamagedError
from gateway.audit.note import open_note, parse_checkpoint
from gateway.audit.reader import LogReader
from gateway.audit.sequencer import Sequencer
from gateway.audit.signer import KEY_NAME, load_signer
from gateway.errors import UnavailableError
from gateway.exchange import SpooledReceipt, SpoolUp
from tenants.ids import OrgId
from tests.fakes.audit import ACME, GLOBEX, SIGNER, FaultyDisk, Keys, Outbox, change, receipt, up


@pytest.fixture
async def sequencer(tmp_path: Path) -> AsyncIterator[Sequencer]:
    made = Sequencer(tmp_path, SIGNER)
    await made.open()
    yield made
    await made.close()


def well(sequencer: Sequencer) -> bool:
    return sequencer.healthy


async def read(sequencer: Sequencer, org: OrgId = ACME) -> list[int]:
    lines = b"".join([piece async for piece in LogReader(sequencer).raw(org, 0, 10**9)]).splitlines()
    entries = [json.loads(line) for line in lines]
    return [entry["spool"][1] if "spool" in entry else -entry["outbox"] for entry in entries]


# -- receipts and changes -------------------------------------------------------------------------------------


async def test_each_receipt_is_one_entry_of_its_own_organization(sequencer: Sequencer, tmp_path: Path) -> None:
    mixed = SpoolUp("boot", tuple(SpooledReceipt(n, receipt(n, ACME if n % 2 else GLOBEX)) for n in range(1, 7)))
    assert await sequencer.append_receipts(mixed) == 6
    assert await sequencer.append_receipts(mixed) == 6
    assert await read(sequencer) == [1, 3, 5]
    assert await read(sequencer, GLOBEX) == [2, 4, 6]
    assert sorted(path.name for path in (tmp_path / "orgs").iterdir()) == ["acme", "globex"]
    assert await sequencer.append_receipts(SpoolUp("boot", ())) == 0


async def test_many_workers_at_once_make_one_chain(sequencer: Sequencer) -> None:
    ups = [up(f"w{w}", *range(1 + 5 * k, 6 + 5 * k)) for k in range(4) for w in range(8)]
    await asyncio.gather(*map(sequencer.append_receipts, ups), *map(sequencer.append_receipts, ups[:8]))
    assert len(await read(sequencer)) == 160
    assert parse_checkpoint(open_note(await LogReader(sequencer).checkpoint(ACME), SIGNER.key(ACME))).size == 160


async def test_what_was_sequenced_is_known_after_a_restart(tmp_path: Path) -> None:
    first = Sequencer(tmp_path, SIGNER)
    await first.open()
    await first.append_receipts(up("boot", 1, 2))
    second = Sequencer(tmp_path, SIGNER)  # the first was killed: no close
    await second.open()
    await second.append_receipts(up("boot", 1, 2, 3))
    assert await read(second) == [1, 2, 3]
    await second.close()


async def test_changes_are_forgotten_in_the_outbox_once_durable(sequencer: Sequencer) -> None:
    store = Outbox(change(1), change(2, org=GLOBEX), change(3))
    assert await sequencer.drain_once(store) == 3
    assert store.done == 3
    assert await sequencer.drain_once(store) == 0
    assert await read(sequencer) == [-1, -3]


async def test_a_crash_before_the_outbox_forgets_makes_no_second_entry(tmp_path: Path) -> None:
    first = Sequencer(tmp_path, SIGNER)
    await first.open()
    store = Outbox(change(1), change(2))
    await first.drain_once(Outbox(*store.changes))
    second = Sequencer(tmp_path, SIGNER)
    await second.open()
    store.changes.append(change(3))
    assert await second.drain_once(store) == 3
    assert await read(second) == [-1, -2, -3]
    await second.close()


async def test_the_outbox_is_emptied_as_it_fills_and_a_store_that_fails_is_asked_again(
    sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencer_module, "RETRY_S", 0.001)
    monkeypatch.setattr(sequencer_module, "OUTBOX_S", 60)
    failed = asyncio.Event()

    class Flaky(Outbox):
        async def outbox(self, limit: int = 500) -> tuple[object, ...]:  # type: ignore[override]  # fails at first
            if not failed.is_set():
                failed.set()
                raise RuntimeError("the database is locked")
            return await super().outbox(limit)

    store = Flaky(change(1))
    draining = asyncio.create_task(sequencer.drain_outbox(store))  # type: ignore[arg-type]  # as above
    reader = LogReader(sequencer)
    assert await reader.wait(ACME, 0, 5)
    store.changes.append(change(2))
    sequencer.nudge()
    assert await reader.wait(ACME, 1, 5)
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)
    assert failed.is_set()


# -- health ---------------------------------------------------------------------------------------------------


async def test_a_full_disk_acknowledges_nothing_and_is_told_to_readiness(tmp_path: Path) -> None:
    disk = FaultyDisk()
    sequencer = Sequencer(tmp_path, SIGNER, disk=disk)
    await sequencer.open()
    await sequencer.append_receipts(up("boot", 1))
    disk.full("write")
    disk.torn = 300
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await sequencer.append_receipts(up("boot", 2, 3))
    assert not well(sequencer)
    assert sequencer.reason == "audit log of acme: No space left on device"
    assert await read(sequencer) == [1]
    disk.mend()
    await sequencer.append_receipts(up("boot", 2, 3))
    assert well(sequencer)
    assert await read(sequencer) == [1, 2, 3]
    await sequencer.close()


async def test_a_batch_that_failed_in_one_log_repeats_nothing_in_another(tmp_path: Path) -> None:
    disk = FaultyDisk()
    sequencer = Sequencer(tmp_path, SIGNER, disk=disk)
    await sequencer.open()
    await sequencer.append_receipts(up("boot", 1))
    real = disk.truncate
    (tmp_path / "orgs" / "globex").write_text("in the way")  # a folder cannot be made there
    mixed = SpoolUp("boot", (SpooledReceipt(2, receipt(2)), SpooledReceipt(3, receipt(3, GLOBEX))))
    with pytest.raises(UnavailableError):
        await sequencer.append_receipts(mixed)
    assert await read(sequencer) == [1, 2]
    (tmp_path / "orgs" / "globex").unlink()
    assert await sequencer.append_receipts(mixed) == 3
    assert await read(sequencer) == [1, 2]
    assert await read(sequencer, GLOBEX) == [3]
    assert real == disk.truncate
    await sequencer.close()


async def test_a_checkpoint_that_cannot_be_written_is_unhealthy(tmp_path: Path) -> None:
    disk = FaultyDisk()
    sequencer = Sequencer(tmp_path, SIGNER, disk=disk)
    await sequencer.open()
    await sequencer.append_receipts(up("boot", 1))
    disk.broken("sync")
    await sequencer.save_checkpoints()
    await sequencer.save_checkpoints()
    assert "Input/output error" in sequencer.reason
    disk.mend()
    await sequencer.append_receipts(up("boot", 2))
    assert well(sequencer)
    await sequencer.close()


async def test_a_damaged_log_is_not_opened(tmp_path: Path) -> None:
    sequencer = Sequencer(tmp_path, SIGNER)
    await sequencer.open()
    await sequencer.append_receipts(up("boot", 1, 2))
    await sequencer.close()
    (tmp_path / "orgs" / "acme" / "log-00000000.jsonl").unlink()
    with pytest.raises(DamagedError):
        await Sequencer(tmp_path, SIGNER).open()


async def test_a_folder_of_no_organization_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "orgs" / "Not An Org").mkdir(parents=True)
    sequencer = Sequencer(tmp_path, SIGNER)
    await sequencer.open()
    await sequencer.append_receipts(up("boot", 1))
    await sequencer.close()


async def test_a_cancelled_caller_leaves_a_whole_commit(sequencer: Sequencer) -> None:
    appending = asyncio.create_task(sequencer.append_receipts(up("boot", 1, 2)))
    await asyncio.sleep(0)
    appending.cancel()
    await asyncio.gather(appending, return_exceptions=True)
    await sequencer.append_receipts(up("boot", 1, 2, 3))
    assert await read(sequencer) == [1, 2, 3]


async def test_any_other_fault_is_not_hidden(sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wrong(org: OrgId) -> None:
        raise DamagedError(Path("x"), "it was changed")

    monkeypatch.setattr(sequencer, "_log", wrong)
    with pytest.raises(DamagedError):
        await sequencer.append_receipts(up("boot", 1))


async def test_closing_waits_for_commits_and_writes_checkpoints(tmp_path: Path) -> None:
    sequencer = Sequencer(tmp_path, SIGNER)
    await sequencer.open()
    appending = asyncio.create_task(sequencer.append_receipts(up("boot", 1)))
    await asyncio.sleep(0)
    await sequencer.close()
    assert await appending == 1
    text = (tmp_path / "orgs" / "acme" / "checkpoint").read_text()
    assert parse_checkpoint(open_note(text, SIGNER.key(ACME))).size == 1


async def test_checkpoints_are_written_as_entries_come(
    sequencer: Sequencer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a log beside one whose disk hangs."""
    written: asyncio.Queue[OrgId] = asyncio.Queue()
    sequencer.published = lambda org, note: written.put_nowait(org)
    monkeypatch.setattr(sequencer_module, "CHECKPOINT_S", 0.001)
    await sequencer.append_receipts(up("boot", 1))
    await sequencer.append_receipts(up("boot", 2, org=GLOBEX))
    async with (await sequencer.opened(ACME)).signing:
        running = asyncio.create_task(sequencer.run())
        assert await written.get() == GLOBEX
        assert (tmp_path / "orgs" / "globex" / "checkpoint").exists()
        assert not (tmp_path / "orgs" / "acme" / "checkpoint").exists()
    assert await written.get() == ACME
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (tmp_path / "orgs" / "acme" / "checkpoint").exists()


async def test_the_key_is_made_once_and_kept() -> None:
    keys = Keys()
    first, second = await load_signer("h", keys), await load_signer("h", keys)
    assert first.key(ACME) == second.key(ACME)
    assert list(keys.kept) == [KEY_NAME]
    assert len(keys.kept[KEY_NAME].reveal()) == 32


# -- reading --------------------------------------------------------------------------------------------------


async def test_pages_go_on_where_the_last_one_ended(sequencer: Sequencer) -> None:
    await sequencer.append_receipts(up("boot", *range(1, 26)))
    reader, found, after = LogReader(sequencer), [], 0
    while True:
        items, following = await reader.entries(ACME, after=after, limit=10)
        found += [item["index"] for item in items]
        if following == after:
            break
        after = following
    assert found == list(range(25))
    assert after == 25
    assert await reader.entries(ACME, after=99) == ([], 99)
    assert await reader.size(ACME) == 25


async def test_filters(sequencer: Sequencer) -> None:
    await sequencer.append_receipts(up("boot", *range(1, 6)))
    await sequencer.drain_once(Outbox(change(1, at=1_763_690_100)))
    reader = LogReader(sequencer)

    async def indexes(**filters: str | int) -> list[object]:
        items, _ = await reader.entries(ACME, **filters)  # type: ignore[arg-type]  # a filter a test
        return [item["index"] for item in items]

    assert await indexes(action="member.create") == [5]
    assert await indexes(actor="mem_owner") == [5]
    assert await indexes(actor="nobody") == []
    first = (await reader.entries(ACME, limit=1))[0][0]
    for field in ("outcome", "model", "client"):
        assert await indexes(**{field: str(first[field])}) == [0, 1, 2, 3, 4]
        assert await indexes(**{field: "other"}) == []
    assert await indexes(since=1_763_690_050_000) == [5]
    assert await indexes(until=1_763_690_050_000) == [0, 1, 2, 3, 4]
    assert await indexes(action="completion.create", limit=2, after=3) == [3, 4]


async def test_a_scan_that_finds_little_says_where_to_go_on(
    sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "SCAN_MAX", 4)
    await sequencer.append_receipts(up("boot", *range(1, 10)))
    assert await LogReader(sequencer).entries(ACME, actor="nobody") == ([], 4)
    assert await LogReader(sequencer).entries(ACME, actor="nobody", after=8) == ([], 9)


async def test_any_range_of_lines_is_found_across_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "STRIDE", 3)
    monkeypatch.setattr(reader_module, "PIECE_BYTES", 1000)
    sequencer = Sequencer(tmp_path, SIGNER, segment_bytes=5000)
    await sequencer.open()
    reader = LogReader(sequencer)
    for n in range(1, 60):
        await sequencer.append_receipts(up("boot", n))
        assert (await reader.entries(ACME, after=n - 1))[0][0]["index"] == n - 1
    assert len(list((tmp_path / "orgs" / "acme").glob("log-*"))) > 3
    whole = b"".join(path.read_bytes() for path in sorted((tmp_path / "orgs" / "acme").glob("log-*")))
    lines = whole.splitlines(keepends=True)
    for start, end in [(0, 59), (0, 0), (7, 8), (20, 41), (58, 59), (59, 70), (3, 1000), (-5, 2)]:
        got = [piece async for piece in reader.raw(ACME, start, end)]
        assert b"".join(got) == b"".join(lines[max(start, 0) : end])
    await sequencer.close()


async def test_waiting_ends_when_the_entry_comes_or_the_time_is_over(sequencer: Sequencer) -> None:
    reader = LogReader(sequencer)
    waiting = asyncio.create_task(reader.wait(ACME, 1, 30))
    await sequencer.append_receipts(up("boot", 1))
    await asyncio.sleep(0)
    assert not waiting.done()
    await sequencer.append_receipts(up("boot", 2))
    assert await waiting
    assert await reader.wait(ACME, 0, 0)
    assert not await reader.wait(ACME, 2, 0.001)


async def test_an_organization_without_entries_has_an_empty_log(sequencer: Sequencer, tmp_path: Path) -> None:
    reader = LogReader(sequencer)
    assert await reader.entries(GLOBEX) == ([], 0)
    note = await reader.checkpoint(GLOBEX)
    assert parse_checkpoint(open_note(note, SIGNER.key(GLOBEX))).size == 0
    assert reader.verifier_key(GLOBEX) == str(SIGNER.key(GLOBEX))
    assert not (tmp_path / "orgs" / "globex").exists()
