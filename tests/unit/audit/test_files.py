"""One log's files: groups, rotation, recovery, and what is refused."""

from __future__ import annotations

import errno
import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.audit.chain import GENESIS
from gateway.audit.entry import Draft, from_change, from_receipt
from gateway.audit.files import FileLog
from gateway.audit.log_store import DamagedError
from gateway.audit.note import open_note, parse_checkpoint
from gateway.audit.orglog import OrgLog
from gateway.audit.seen import BOOTS_MAX, Seen
from tests.fakes.audit import ACME, SIGNER, FaultyDisk, change, receipt

KEY = SIGNER.key(ACME)


def drafts(*seqs: int, boot: str = "boot") -> list[Draft]:
    return [from_receipt(receipt(n), boot, n) for n in seqs]


def opened(folder: Path, disk: FaultyDisk | None = None, segment_bytes: int = 10**6) -> OrgLog:
    return OrgLog(FileLog(folder, disk=disk, segment_bytes=segment_bytes), ACME, SIGNER)


def firsts(log: OrgLog) -> list[int]:
    assert isinstance(log.store, FileLog)
    return list(log.store.firsts.values())


def entries(folder: Path) -> list[dict[str, object]]:
    """Every line on disk, its chain checked by hand."""
    found: list[dict[str, object]] = []
    prev = GENESIS
    for path in sorted(folder.glob("log-*.jsonl")):
        for line in path.read_bytes().splitlines():
            entry = json.loads(line)
            assert entry["index"] == len(found)
            assert entry["prev"] == prev
            prev = sha256(line).hexdigest()
            found.append(entry)
    return found


def seqs(folder: Path) -> list[int]:
    return [entry["spool"][1] if "spool" in entry else -entry["outbox"] for entry in entries(folder)]  # type: ignore[index, operator]  # as the schema says


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "orgs" / "acme"


def test_nothing_is_made_before_the_first_entry(folder: Path) -> None:
    log = opened(folder)
    assert log.append([]) == 0
    assert not folder.exists()
    assert log.append(drafts(1, 2)) == 2
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "log-00000000.jsonl").stat().st_mode & 0o777 == 0o600
    assert seqs(folder) == [1, 2]


def test_repeats_change_nothing_also_after_a_restart(folder: Path) -> None:
    log = opened(folder)
    log.append(drafts(1, 2))
    assert log.append(drafts(1, 2, 3)) == 1
    log.append([from_change(change(1))])
    assert log.append([from_change(change(1)), from_change(change(2))]) == 1
    log.close()
    log = opened(folder)
    assert log.append([*drafts(3, 4), from_change(change(2)), from_change(change(3))]) == 2
    log.save_checkpoint()
    log.close()
    log = opened(folder)
    assert log.append([*drafts(3, 4), from_change(change(2)), from_change(change(3))]) == 0
    assert log.append(drafts(1, boot="other")) == 1
    assert seqs(folder) == [1, 2, 3, -1, -2, 4, -3, 1]


def test_a_database_that_begins_anew_loses_no_change(folder: Path) -> None:
    log = opened(folder)
    log.append([from_change(change(n)) for n in range(1, 6)])
    anew = [from_change(change(n, at=2_000_000_000)) for n in (1, 2)]
    assert log.append(anew) == 2
    assert log.append([*anew, from_change(change(3, at=2_000_000_000))]) == 1
    assert seqs(folder) == [-1, -2, -3, -4, -5, -1, -2, -3]


def test_segments_rotate_and_the_chain_runs_through(folder: Path) -> None:
    log = opened(folder, segment_bytes=2000)
    for n in range(1, 21):
        log.append(drafts(n))
        if n == 10:
            log.save_checkpoint()
    assert len(list(folder.glob("log-*"))) > 3
    log.close()
    again = opened(folder, segment_bytes=2000)
    assert firsts(again) == firsts(log)
    assert (again.size, again.store.place()) == (20, log.store.place())
    again.append(drafts(20, 21))
    (folder / "state.json").unlink()
    again.close()
    assert firsts(opened(folder, segment_bytes=2000)) == firsts(again)
    assert seqs(folder) == list(range(1, 22))


def test_the_checkpoint_is_over_what_is_there(folder: Path) -> None:
    log = opened(folder)
    log.append(drafts(1, 2, 3))
    assert log.behind
    log.save_checkpoint()
    text = (folder / "checkpoint").read_text()
    assert text == log.checkpoint()
    assert parse_checkpoint(open_note(text, KEY)).size == 3
    log.close()
    assert not opened(folder).behind


# -- a disk that fails ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "sync"])
@pytest.mark.parametrize("torn", [0, 100, 700, 100_000])
@pytest.mark.parametrize("restart", [False, True])
def test_a_failed_commit_counts_for_nothing_and_can_be_made_again(
    folder: Path, call: str, torn: int, restart: bool
) -> None:
    disk = FaultyDisk()
    log = opened(folder, disk)
    log.append(drafts(1, 2))
    disk.torn = torn
    disk.full(call)
    with pytest.raises(OSError, match="No space") as caught:
        log.append(drafts(3, 4, 5))
    assert caught.value.errno == errno.ENOSPC
    assert log.size == 2
    disk.mend()
    if restart:
        log.close()
        log = opened(folder, disk)
        log.append(drafts(3, 4, 5))
    else:
        assert parse_checkpoint(open_note(log.save_checkpoint(), KEY)).size == 2
        log.append(drafts(3, 4, 5, 6))
    log.append(drafts(6, 7))
    assert seqs(folder) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("call", ["truncate", "sync"])
def test_a_rotation_that_fails_can_be_made_again(folder: Path, call: str) -> None:
    disk = FaultyDisk()
    log = opened(folder, disk, segment_bytes=1000)
    log.append(drafts(1))
    for _ in range(2):
        disk.broken(call)
        with pytest.raises(OSError, match="Input/output"):
            log.append(drafts(2, 3))
        disk.mend()
    log.append(drafts(2, 3))
    log.close()
    log = opened(folder, segment_bytes=1000)
    log.append(drafts(3, 4))
    assert seqs(folder) == [1, 2, 3, 4]


def test_a_write_in_doubt_is_cut_off_before_the_next_segment_begins(folder: Path) -> None:
    disk = FaultyDisk()
    log = opened(folder, disk, segment_bytes=2000)
    log.append(drafts(1))
    disk.torn = 10_000
    disk.broken("write")
    with pytest.raises(OSError, match="Input/output"):
        log.append(drafts(2))
    disk.mend()
    log.append(drafts(2, 3, 4, 5, 6))
    log.close()
    assert opened(folder).size == 6
    assert seqs(folder) == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_that_cannot_be_written_stays_behind(folder: Path) -> None:
    disk = FaultyDisk()
    log = opened(folder, disk)
    log.append(drafts(1))
    log.save_checkpoint()
    before = (folder / "checkpoint").read_bytes()
    log.append(drafts(2))
    disk.full("write")
    with pytest.raises(OSError, match="No space"):
        log.save_checkpoint()
    assert (folder / "checkpoint").read_bytes() == before
    assert log.behind


# -- recovery -------------------------------------------------------------------------------------------------


def spoil(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def test_a_torn_last_line_is_cut_off_and_a_whole_one_never(folder: Path) -> None:
    log = opened(folder)
    log.append(drafts(1, 2, 3))
    log.close()
    path = folder / "log-00000000.jsonl"
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines()[2]) + 1):
        path.write_bytes(whole[:-cut])
        log = opened(folder)
        assert log.size == 2
        log.append(drafts(3))
        log.close()
        assert path.read_bytes() == whole
    path.write_bytes(whole + bytes(4096))  # a hole at the end of a file, after a power cut
    assert opened(folder).size == 3
    assert path.read_bytes() == whole


def test_lines_of_a_killed_process_are_synced_before_they_count(folder: Path) -> None:
    log = opened(folder)
    log.append(drafts(1))
    log.close()
    disk = FaultyDisk()
    opened(folder, disk)
    assert disk.calls == ["sync"]


def test_an_empty_segment_that_a_crash_left_is_gone_on_in(folder: Path) -> None:
    log = opened(folder, segment_bytes=1000)
    log.append(drafts(1))
    log.close()
    (folder / "log-00000001.jsonl").write_bytes(b"")
    log = opened(folder, segment_bytes=1000)
    log.append(drafts(2))
    log.save_checkpoint()
    log.close()
    assert firsts(opened(folder)) == [0, 1]
    assert seqs(folder) == [1, 2]


def test_a_folder_that_a_crash_left_without_a_segment_is_an_empty_log(folder: Path) -> None:
    folder.mkdir(parents=True)
    assert opened(folder).append(drafts(1)) == 1
    assert seqs(folder) == [1]


def test_a_log_shorter_than_what_was_durable_is_damaged(folder: Path) -> None:
    log = opened(folder)
    log.append(drafts(1, 2))
    log.save_checkpoint()
    log.close()
    path = folder / "log-00000000.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(DamagedError, match="shorter than the"):
        opened(folder)


def test_a_write_that_gets_through_in_part_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:100], offset))
    log = opened(folder)
    log.append(drafts(1, 2))
    log.close()
    assert opened(folder).size == 2


@pytest.mark.parametrize(
    "state",
    [b"", b"{}", b"no", b'{"sha256":"0"}', b'{"a":1}'],
)
def test_a_state_that_is_broken_costs_a_full_read_only(folder: Path, state: bytes) -> None:
    log = opened(folder)
    log.append(drafts(1, 2))
    log.save_checkpoint()
    log.close()
    (folder / "state.json").write_bytes(state)
    assert opened(folder).append(drafts(2, 3)) == 1


def test_a_state_that_was_changed_is_not_believed(folder: Path) -> None:
    log = opened(folder)
    log.append(drafts(1, 2))
    log.save_checkpoint()
    log.close()
    spoil(folder / "state.json", b'["boot",2]', b'["boot",1]')
    log = opened(folder)
    assert log.append(drafts(2, 3)) == 1
    assert seqs(folder) == [1, 2, 3]


@pytest.mark.parametrize("forget_state", [False, True])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "log-00000000.jsonl").write_bytes(b"x\n"), "not JSON|shorter|broken"),
        (lambda f: (f / "log-00000001.jsonl").unlink(), "missing"),
        (lambda f: (f / "log-00000002.jsonl").unlink(), "missing|were signed"),
        (lambda f: (f / "log-00000002.jsonl").write_bytes(b""), "first line is broken|were signed"),
        (lambda f: (f / "log-00000001.jsonl").write_bytes(b"{}"), "cut off|index"),
        (lambda f: spoil(f / "checkpoint", b"\n6\n", b"\n9\n"), "9 were signed"),
        (lambda f: spoil(f / "checkpoint", b"\n6\n", b"\n06\n"), "plain decimal"),
        (lambda f: (f / "checkpoint").write_bytes(b"\xff"), "utf-8"),
        (lambda f: [p.unlink() for p in f.glob("log-*")], "missing|were signed"),
    ],
)
def test_what_lost_or_changed_entries_is_not_written_on(
    folder: Path, damage: object, says: str, forget_state: bool
) -> None:
    log = opened(folder, segment_bytes=1300)
    for n in range(1, 7):
        log.append(drafts(n))
    log.save_checkpoint()
    log.close()
    assert len(firsts(log)) == 3
    damage(folder)  # type: ignore[operator]  # a lambda of the table above
    if forget_state:
        (folder / "state.json").unlink()
    with pytest.raises(DamagedError, match=says) as caught:
        opened(folder, segment_bytes=1300)
    assert "restore this folder" in str(caught.value)


def test_a_changed_entry_is_found_when_all_is_read(folder: Path) -> None:
    log = opened(folder)
    log.append(drafts(1, 2))
    log.save_checkpoint()
    log.close()
    spoil(folder / "log-00000000.jsonl", b'"status":200', b'"status":201')
    (folder / "state.json").unlink()
    with pytest.raises(DamagedError, match="not the hash of the entry before"):
        opened(folder)


def test_entries_behind_the_state_are_judged_against_the_checkpoint(folder: Path) -> None:
    log = opened(folder)
    log.append(drafts(1))
    log.save_checkpoint()
    state = (folder / "state.json").read_bytes()
    log.append(drafts(2))
    log.save_checkpoint()
    log.close()
    (folder / "state.json").write_bytes(state)
    assert opened(folder).size == 2
    spoil(folder / "log-00000000.jsonl", b'"prompt_tokens":2', b'"prompt_tokens":7')
    with pytest.raises(DamagedError, match="not those that were signed"):
        opened(folder)


def test_a_first_line_without_an_index_is_damage(folder: Path) -> None:
    log = opened(folder, segment_bytes=600)
    log.append(drafts(1))
    log.append(drafts(2))
    log.save_checkpoint()
    log.close()
    spoil(folder / "log-00000000.jsonl", b'"index":0', b'"indexes":0')
    with pytest.raises(DamagedError, match="no index"):
        opened(folder)


def test_seen_remembers_the_latest_boots_only() -> None:
    seen = Seen()
    for n in range(BOOTS_MAX + 5):
        assert seen.add(drafts(1, boot=f"b{n}")[0], set(), n)
    assert len(seen.boots) == BOOTS_MAX
    assert "b4" not in seen.boots
    seen.note({"org": "acme"})
    seen.note({"spool": ["b9"], "org": "acme"})
    assert seen.outbox == 0
