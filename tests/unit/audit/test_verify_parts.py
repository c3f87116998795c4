"""Parts of a log, and the entries that match a filter: what the offline verifier proves of them, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.audit.chain import Chain
from gateway.audit.merkle import Tree, leaf_hash
from gateway.audit.pack import PackWriter, Plan
from gateway.audit.verify import verify_pack
from tests.fakes.audit import ACME, SIGNER, lines, write_old_pack, write_pack
from tests.unit.audit.packs import KEY, mend_manifest, words


@pytest.mark.parametrize(("start", "end"), [(0, 5), (3, 9), (4, 12), (6, 6), (250, 270), (300, 300)])
def test_a_part_is_proved_by_the_tiles(tmp_path: Path, start: int, end: int) -> None:
    write_pack(tmp_path / "pack", 300 if end > 12 else 12, start, end)
    verdict = verify_pack(tmp_path / "pack", KEY)
    assert (verdict.faults, verdict.entries, verdict.start, verdict.end) == ([], end - start, start, end)
    path = tmp_path / "pack" / "entries.jsonl"
    if end - start > 2:
        found = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*found[:1], *found[2:]]))
        mend_manifest(tmp_path / "pack", end=end - 1, count=end - start - 1)
        assert "entries are missing or out of order before it" in words(tmp_path / "pack")


@pytest.mark.parametrize(("start", "end"), [(0, 5), (3, 9), (4, 12)])
def test_an_old_pack_of_a_part_proves_nothing(tmp_path: Path, start: int, end: int) -> None:
    write_old_pack(tmp_path / "pack", 12, start, end)
    assert words(tmp_path / "pack").startswith("checkpoint: signs ")


def test_a_filter_leaves_out_and_says_that_nothing_proves_what(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack", 300, wanted={"prompt_tokens": 7, "action": "completion.create"})
    mend_manifest(tmp_path / "pack", filter={"action": ["completion.create", "chat.create"], "model": "code"})
    verdict = verify_pack(tmp_path / "pack", KEY)
    assert (verdict.faults, verdict.entries, verdict.filtered) == ([], 1, True)
    assert "cannot show what was left out" in verdict.unproven[0]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"action": "key.write"}, "its `action` is another"),
        ({"outcome": ["refused", "cancelled_by_client"]}, "its `outcome` is another"),
        ({"nothing": ""}, "its `nothing` is another"),
        ({"index": "3"}, "its `index` is another"),
        ({"since": 1_763_690_001}, "its `since` is another"),
        ({"until": 1_763_690_000}, "its `until` is another"),
        ({"since": "1"}, "its filter says nothing with 'since'"),
        ({"until": True}, "its filter says nothing with 'until'"),
        ({"action": []}, "its filter says nothing with 'action'"),
        ({"action": [1]}, "its filter says nothing with 'action'"),
        ({"action": 1}, "its filter says nothing with 'action'"),
        ([], "its filter is no object"),
    ],
)
def test_a_filter_that_lies_is_found(tmp_path: Path, wanted: object, says: str) -> None:
    write_pack(tmp_path / "pack", 5, wanted={"model": "code"})
    assert words(tmp_path / "pack") == ""
    mend_manifest(tmp_path / "pack", filter={"since": 1_763_690_000, "until": 1_763_690_001})
    assert words(tmp_path / "pack") == ""
    mend_manifest(tmp_path / "pack", filter=wanted)
    assert says in words(tmp_path / "pack")


def filtered(folder: Path, picked: list[bytes], **changes: object) -> Path:
    """A pack with a filter that holds these lines of a log of 300."""
    write_pack(folder, 300, wanted={"model": "nothing has it"})
    (folder / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in picked))
    mend_manifest(folder, filter={"model": "code"}, count=len(picked), **changes)
    return folder


def test_entries_that_match_are_each_proved_at_their_place(tmp_path: Path) -> None:
    made, _ = lines(300)
    assert words(filtered(tmp_path / "some", [made[n] for n in (0, 1, 2, 255, 256, 299)])) == ""
    assert words(filtered(tmp_path / "none", [])) == ""
    assert "expected 5" in words(filtered(tmp_path / "back", [made[4], made[3]]))
    assert "was repeated" in words(filtered(tmp_path / "twice", [made[4], made[4]]))
    assert "its index is 20, expected 5" in words(filtered(tmp_path / "end", [made[4], made[20]], end=10))
    assert "was repeated" in words(filtered(tmp_path / "start", [made[4]], start=7))
    forged = made[20].replace(b'"status":200', b'"status":503')
    assert words(filtered(tmp_path / "forged", [made[4], forged])) == (
        "entries.jsonl line 2 (entry 20): is not what the log holds at this place: its hash is not the one in the "
        "tiles"
    )
    assert "`prev` is not the hash" in words(filtered(tmp_path / "linked", [forged, made[21]]))
    broken = words(filtered(tmp_path / "broken", [made[1], b"{}x", made[3]]))
    assert broken.startswith("entries.jsonl line 2: the line is not JSON")


def test_an_entry_without_a_time_matches_no_time(tmp_path: Path) -> None:
    """The operator can sign such a line too; the schema is not the verifier's to judge, the filter is."""
    line = Chain().seal({"org": "acme"})
    tree = Tree()
    tree.append(line)
    plan = Plan("acme", SIGNER.checkpoint(ACME, 1, tree.root()), KEY, 0, 1, {"since": 0})
    with PackWriter(tmp_path / "pack", plan) as pack:
        pack.write(line + b"\n")
        pack.write_leaves(leaf_hash(line))
        pack.finish(1)
    assert words(tmp_path / "pack").endswith("(entry 0): does not match the filter: its `since` is another")
