"""Writing a pack: pieces that end anywhere, exports that are killed and go on, and what must not be finished."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from gateway.audit.merkle import leaf_hash
from gateway.audit.pack import PackError, PackWriter, Plan, whole_log
from gateway.audit.verify import verify_pack
from tests.fakes.audit import ACME, SIGNER, lines

COUNT = 600
KEY = str(SIGNER.key(ACME))
MADE, CHAIN = lines(COUNT)
DATA = b"".join(line + b"\n" for line in MADE)
HASHES = b"".join(map(leaf_hash, MADE))
CHECKPOINT = SIGNER.checkpoint(ACME, COUNT, CHAIN.tree.root())
WHOLE = whole_log(ACME, CHECKPOINT, KEY)
PART = Plan(ACME, CHECKPOINT, KEY, 100, 400, {}, "quorum none\n")
SOME = Plan(ACME, CHECKPOINT, KEY, 0, COUNT, {"request_id": [f"req_{n:020}" for n in range(0, COUNT, 7)]})


def wanted(plan: Plan, start: int) -> bytes:
    """What a server sends for a plan from entry `start` on."""
    found = MADE[start : plan.end]
    if plan.filter:
        found = [line for line in found if json.loads(line)["index"] % 7 == 0]
    return b"".join(line + b"\n" for line in found)


def continued(folder: Path, plan: Plan) -> PackWriter:
    return PackWriter.resume(folder) if PackWriter.unfinished(folder) else PackWriter(folder, plan)


@pytest.mark.parametrize("plan", [WHOLE, PART, SOME])
def test_pieces_may_end_anywhere(tmp_path: Path, plan: Plan) -> None:
    data = wanted(plan, plan.start)
    with PackWriter(tmp_path / "pack", plan) as pack:
        for at in range(0, len(data), 777):
            pack.write(data[at : at + 777])
        pack.write(b"")
        if not plan.whole:
            for at in range(0, len(HASHES), 77):
                pack.write_leaves(HASHES[at : at + 77])
        assert (pack.count, pack.leaves) == (data.count(b"\n"), COUNT)
        pack.finish(1)
    verdict = verify_pack(tmp_path / "pack", KEY)
    assert (verdict.faults, verdict.entries) == ([], pack.count)


@pytest.mark.parametrize("plan", [WHOLE, PART, SOME])
def test_an_export_that_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path, plan: Plan) -> None:
    """Whatever is left of a file by kill -9, at every place where one is written."""
    folder = tmp_path / "pack"
    for kill in itertools.count():
        with continued(folder, plan) as pack:
            assert pack.plan == plan
            data, leaves = wanted(plan, pack.next_index), HASHES[32 * pack.leaves :]
            if kill < 3:
                pack.write(data[: len(data) // 2 + 5])
            elif kill < 6 and not plan.whole:
                pack.write(data)
                pack.write_leaves(leaves[:10_000])
            else:
                pack.write(data)
                if not plan.whole:
                    pack.write_leaves(leaves)
                pack.finish(1)
                break
        if kill % 2:  # within a line, and within a tile
            with (folder / "entries.jsonl").open("ab") as file:
                file.write(b'{"torn')
            for tile in list(folder.rglob("tile/0/*"))[-1:]:
                tile.write_bytes(tile.read_bytes()[:4096])
    assert not PackWriter.unfinished(folder)
    assert verify_pack(folder, KEY).faults == []


def test_an_export_that_is_killed_as_it_ends_is_done_again(tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    with PackWriter(folder, WHOLE) as pack:
        pack.write(DATA)
        plan = (folder / "manifest.part").read_bytes()
        pack.finish(1)
    (folder / "manifest.part").write_bytes(plan)  # the last step did not come
    (folder / "manifest.new").write_bytes(b"{")
    assert PackWriter.unfinished(folder)
    assert not verify_pack(folder, KEY).ok
    with PackWriter.resume(folder) as pack:
        assert (pack.next_index, pack.leaves) == (COUNT, COUNT)
        pack.finish(2)
    assert verify_pack(folder, KEY).faults == []


def test_a_pack_that_is_not_finished_says_so(tmp_path: Path) -> None:
    with PackWriter(tmp_path / "pack", WHOLE) as pack:
        pack.write(DATA[:1000])
    (fault,) = verify_pack(tmp_path / "pack", KEY).faults
    assert fault.what == "the export did not end: run it again, with --resume"


def test_a_pack_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("pack", "file", "pack"):
        if name == "pack" and not (tmp_path / name).exists():
            PackWriter(tmp_path / name, WHOLE).__exit__(None, None, None)
            continue
        with pytest.raises(FileExistsError):
            PackWriter(tmp_path / name, WHOLE)


@pytest.mark.parametrize(
    ("plan", "data", "hashes", "says"),
    [
        (WHOLE, DATA[:-1], b"", "cut off"),
        (WHOLE, DATA[: -len(MADE[-1]) - 1], b"", "599 entries arrived, and not the 600"),
        (WHOLE, DATA + MADE[0] + b"\n", b"", "601 entries arrived"),
        (WHOLE, DATA.replace(b'"status":200', b'"status":201', 1), b"", "the Merkle root differs"),
        (PART, wanted(PART, 100), HASHES[:-1], "cut off"),
        (PART, wanted(PART, 100), HASHES[:-32], "599 leaves arrived, and not the 600"),
        (PART, wanted(PART, 101), HASHES, "299 entries arrived, and not the 300"),
        (SOME, b"", HASHES[32:] + HASHES[:32], "the Merkle root differs"),
    ],
)
def test_what_is_not_what_was_signed_makes_no_pack(
    tmp_path: Path, plan: Plan, data: bytes, hashes: bytes, says: str
) -> None:
    with PackWriter(tmp_path / "pack", plan) as pack:
        pack.write(data)
        if not plan.whole:
            pack.write_leaves(hashes)
        with pytest.raises(PackError, match=says):
            pack.finish(1)
    assert not (tmp_path / "pack" / "manifest.json").exists()


@pytest.mark.parametrize(
    "change", [{"end": COUNT + 1}, {"start": 7, "end": 6}, {"start": -1}, {"witnesses": "#" * 65_536}]
)
def test_a_plan_that_cannot_be_is_refused_at_once(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(PackError):
        PackWriter(tmp_path / "pack", WHOLE._replace(**change))  # type: ignore[arg-type]  # of many types
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("manifest.part", b"{", b""),
        ("manifest.part", b'"org"', b'"orgs"'),
        ("manifest.part", b":600", b':"600"'),
        ("manifest.part", b'"end":600', b'"end":601'),
        ("manifest.part", b"\\n600", b"\\nx"),
        ("entries.jsonl", b"", b"zeros\n"),
    ],
)
def test_what_no_export_has_left_is_not_continued(tmp_path: Path, name: str, old: bytes, new: bytes) -> None:
    PackWriter(tmp_path / "pack", SOME).__exit__(None, None, None)
    found = (tmp_path / "pack" / name).read_bytes()
    assert old in found
    (tmp_path / "pack" / name).write_bytes(found.replace(old, new, 1))
    with (
        pytest.raises(PackError, match="remove the folder, and export again"),
        PackWriter.resume(tmp_path / "pack") as pack,
    ):
        assert pack.next_index


def test_a_folder_that_cannot_be_read_back_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PackWriter(tmp_path / "pack", WHOLE).__exit__(None, None, None)
    before = len(os.listdir("/proc/self/fd"))

    def refuse(fd: int, size: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", refuse)
    with pytest.raises(OSError, match="Input/output"):
        PackWriter.resume(tmp_path / "pack")
    monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == before
