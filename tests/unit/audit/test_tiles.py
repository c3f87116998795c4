"""Hash tiles: the addresses of the specification, what each holds, and what becomes of those that are damaged."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit.blobs import FileBlobs
from gateway.audit.merkle import HashTree, leaf_hash
from gateway.audit.proofs import consistency, inclusion, root, verify_consistency, verify_inclusion
from gateway.audit.tiles import Address, TamperedError, Tiles, bundle, parse_path
from gateway.audit.tiletree import TileTree, tile_path
from tests.fakes.audit import FaultyDisk

COUNT = 70_000
"""As in the specification's example: three levels."""
LINES = [b"line %d\n" % n for n in range(COUNT)]
HASHES = [leaf_hash(line[:-1]) for line in LINES]
TREE = HashTree(HASHES)


class Blobs:
    """In memory; counts what it is asked for."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.puts: list[str] = []

    def get(self, path: str) -> bytes | None:
        return self.kept.get(path)

    def put(self, path: str, data: bytes) -> None:
        self.puts.append(path)
        self.kept[path] = data


class Lines:
    """The lines of a log; says which were read."""

    def __init__(self, lines: list[bytes]) -> None:
        self.all = lines
        self.read: list[tuple[int, int]] = []

    def __call__(self, start: int, end: int) -> Iterator[bytes]:
        self.read.append((start, end))
        return iter(self.all[start:end])


def grown(*, size: int = COUNT) -> tuple[Tiles, Blobs, Lines]:
    blobs, lines = Blobs(), Lines(list(LINES))
    tiles = Tiles(blobs, lines)
    tiles.follow(size)
    return tiles, blobs, lines


@pytest.fixture(scope="module")
def whole() -> tuple[Tiles, Blobs, Lines]:
    """Not to be changed."""
    return grown()


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("0/000", Address(0, 0)),
        ("0/x001/x234/067", Address(0, 1_234_067)),
        ("63/999.p/1", Address(63, 999, 1)),
        ("entries/x001/000.p/255", Address(None, 1000, 255)),
        ("10/000.p/10", Address(10, 0, 10)),
    ],
)
def test_an_address_has_one_spelling(path: str, address: Address) -> None:
    assert parse_path(path) == address
    if address.level is not None:
        assert tile_path(*address) == "tile/" + path  # type: ignore[arg-type]


NO_ADDRESS = """\
0 0/ 0/0 0/00 0/0000 0/x000/000 0/x001 0/001/000 0/x001/x000 00/000 64/000 -1/000 0/000.p/0 0/000.p/256 0/000.p/01
0/000.p/ 0/000.p 0/000/ /0/000 0//000 0/../000 entries entries/ data/000 0/٠٠٠ 0/x1000/000 1/000.p/999"""


@pytest.mark.parametrize("path", [*NO_ADDRESS.split(), "", "0/000\n", "0/ 000", f"0/{'x999/' * 1_500}999"])
def test_no_other_spelling_is_an_address(path: str) -> None:
    assert parse_path(path) is None


@given(st.integers(0, 10**15), st.integers(1, 256))
def test_every_address_is_read_as_it_is_spelt(number: int, width: int) -> None:
    assert parse_path(tile_path(7, number, width).removeprefix("tile/")) == Address(7, number, width)


def test_the_specifications_example(whole: tuple[Tiles, Blobs, Lines]) -> None:
    """A tree of 70,000: 273 full tiles and one of 112 at level 0, a full one and one of 17, and one of 1."""
    tiles, blobs, _ = whole
    assert len(blobs.puts) == 273 + 1 == len(set(blobs.puts))
    widths = [len(part) // 32 for part in tiles.state()[1]]
    assert widths == [112, 17, 1]
    assert tiles.tree().root() == root(TREE, COUNT)
    for level, number, width in [(0, 0, 256), (0, 272, 256), (0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1)]:
        places = range(number * 256, number * 256 + width)
        expected = b"".join(TREE.node(8 * level, place) for place in places)
        assert tiles.read(Address(level, number, width), COUNT) == expected
        assert tiles.read(Address(level, number, 1), COUNT) == expected[:32]
        if width < 256:
            assert tiles.read(Address(level, number, width + 1), COUNT) is None
        assert tiles.read(Address(level, number + 1, 1), COUNT) is None or (level, number) in {
            (0, 0),
            (0, 272),
            (1, 0),
        }
    assert tiles.read(Address(3, 0, 1), COUNT) is None
    assert tiles.read(Address(63, 0, 1), COUNT) is None


def test_a_tree_of_one_tile_has_one_hash_above_it() -> None:
    tiles, blobs, _ = grown(size=256)
    assert blobs.puts == ["tile/0/000"]
    assert [len(part) // 32 for part in tiles.state()[1]] == [0, 1]
    assert tiles.read(Address(0, 1, 1), 256) is None
    assert tiles.read(Address(1, 0, 1), 256) == root(TREE, 256)


def test_nothing_beyond_the_size_that_was_signed_is_shown(whole: tuple[Tiles, Blobs, Lines]) -> None:
    tiles = whole[0]
    assert tiles.read(Address(0, 1, 44), 300) == b"".join(HASHES[256:300])
    assert tiles.read(Address(0, 1, 45), 300) is None
    assert tiles.read(Address(1, 0, 2), 300) is None
    assert tiles.read(Address(None, 1, 45), 300) is None


def test_bundles_hold_the_lines_after_their_lengths(whole: tuple[Tiles, Blobs, Lines]) -> None:
    tiles, _, _ = whole
    found = tiles.read(Address(None, 273, 112), COUNT)
    assert found is not None
    lines = []
    while found:
        length = int.from_bytes(found[:2])
        lines.append(found[2 : 2 + length] + b"\n")
        found = found[2 + length :]
    assert lines == LINES[273 * 256 :]
    assert bundle([b"x" * 65_535 + b"\n"])[:2] == b"\xff\xff"


def test_lines_that_are_past_their_retention_are_in_no_bundle_and_their_hashes_still_in_tiles() -> None:
    tiles, _, lines = grown(size=1000)
    lines.all[:300] = []
    kept = Tiles(tiles._blobs, lambda start, end: iter(LINES[max(start, 300) : end]), *tiles.state())
    assert kept.read(Address(None, 0), 1000) is None
    assert kept.read(Address(None, 2), 1000) is not None
    assert kept.read(Address(0, 0), 1000) == b"".join(HASHES[:256])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_proofs_come_out_of_tiles_as_out_of_the_whole_tree(
    whole: tuple[Tiles, Blobs, Lines], data: st.DataObject
) -> None:
    tiles = whole[0]
    size = data.draw(st.one_of(st.integers(1, COUNT), st.sampled_from([256, 257, 65_536, 65_537, COUNT])))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    path, link = inclusion(tiles, index, size), consistency(tiles, old, size)
    assert path == inclusion(TREE, index, size)
    assert link == consistency(TREE, old, size)
    assert verify_inclusion(HASHES[index], index, size, path, root(tiles, size))
    assert verify_consistency(old, root(tiles, old), size, root(tiles, size), link)


def test_a_subtree_that_is_not_whole_is_not_there(whole: tuple[Tiles, Blobs, Lines]) -> None:
    for level, index in ((0, COUNT), (4, COUNT >> 4), (17, 0), (0, -1), (-1, 0)):
        with pytest.raises(LookupError, match="70000 entries"):
            whole[0].node(level, index)


@pytest.mark.parametrize(
    ("start", "end"), [(0, COUNT), (10, 20), (250, 600), (69_900, 10**9), (5, 5), (COUNT, COUNT)]
)
def test_leaves_are_one_stream(whole: tuple[Tiles, Blobs, Lines], start: int, end: int) -> None:
    assert b"".join(whole[0].leaves(start, end)) == b"".join(HASHES[start:end])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 700), max_size=12))
def test_it_does_not_matter_in_what_steps_entries_came_nor_how_often_it_began_anew(steps: list[int]) -> None:
    blobs, lines = Blobs(), Lines(LINES)
    tiles = Tiles(blobs, lines)
    for step in steps:
        tiles.follow(tiles.size + step)
        tiles = Tiles(blobs, lines, *tiles.state())
    size = sum(steps)
    assert tiles.size == size
    assert tiles.tree().root() == root(TREE, size)
    assert blobs.puts == [tile_path(0, n) for n in range(size // 256)]
    assert [start for start, _ in lines.read] == [sum(steps[:n]) for n in range(len(steps))]


def test_an_edge_of_another_size_is_refused() -> None:
    tiles = grown(size=300)[0]
    size, parts = tiles.state()
    for wrong in ((size + 1, parts), (size, parts[:1]), (size, (parts[0][:-1], parts[1])), (-1, (b"",))):
        with pytest.raises(ValueError, match="not the partial tiles"):
            Tiles(Blobs(), Lines([]), *wrong)
    with pytest.raises(ValueError, match="not the partial tiles"):
        TileTree.restored(lambda *tile: None, 0, ())


# -- what is damaged ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["tile/0/000", "tile/0/200", "tile/0/272", "tile/1/000"])
@pytest.mark.parametrize("damage", ["gone", "torn", "empty", "bit", "another's"])
def test_a_tile_that_is_damaged_is_made_anew(path: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    before, blobs, lines = grown()
    right = blobs.kept[path]
    del blobs.kept[path]
    if damage != "gone":
        changed = {
            "torn": right[:-32],
            "empty": b"",
            "bit": bytes([right[0] ^ 1]) + right[1:],
            "another's": bytes(8192),
        }
        blobs.kept[path] = changed[damage]
    tiles = Tiles(blobs, lines, *before.state())
    address = parse_path(path.removeprefix("tile/"))
    assert address is not None
    lines.read.clear()
    with caplog.at_level(logging.WARNING, "gateway.audit.tiles"):
        assert tiles.read(address, COUNT) == right
        assert tiles.read(address, COUNT) == right
    assert blobs.kept[path] == right
    assert lines.read == ([] if address.level else [(address.number * 256, address.number * 256 + 256)])
    assert caplog.messages == [f"audit: {path} was missing or damaged, and was made anew"]


def test_a_tile_that_many_ask_for_is_made_anew_once() -> None:
    before, blobs, lines = grown(size=600)
    del blobs.kept["tile/0/001"]
    blobs.puts.clear()
    tiles = Tiles(blobs, lines, *before.state())
    begin = Barrier(8)

    def ask(_: int) -> bytes | None:
        begin.wait()
        return tiles.read(Address(0, 1), 600)

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(8))) == {b"".join(HASHES[256:512])}
    assert blobs.puts == ["tile/0/001"]


def test_whatever_is_lost_comes_back_from_the_lines() -> None:
    before, blobs, lines = grown()
    kept = dict(blobs.kept)
    blobs.kept.clear()
    tiles = Tiles(blobs, lines, *before.state())
    assert tiles.read(Address(1, 0), COUNT) == kept["tile/1/000"]
    assert b"".join(tiles.leaves(0, COUNT)) == b"".join(HASHES)
    assert blobs.kept == kept


def test_a_tile_and_those_below_it_that_agree_with_each_other_are_not_believed() -> None:
    """Everything but the edge was made for other lines: the edge, whose root is signed, tells."""
    before, blobs, lines = grown()
    right = dict(blobs.kept)
    other = Blobs()
    Tiles(other, Lines([b"another %d\n" % n for n in range(COUNT)])).follow(COUNT)
    blobs.kept = dict(other.kept)
    tiles = Tiles(blobs, lines, *before.state())
    assert tiles.read(Address(1, 0), COUNT) == right["tile/1/000"]
    assert tiles.read(Address(0, 7), COUNT) == right["tile/0/007"]


def test_lines_that_were_changed_make_no_tile() -> None:
    before, blobs, lines = grown(size=600)
    del blobs.kept["tile/0/001"]
    lines.all[300] = b"not what was there\n"
    tiles = Tiles(blobs, lines, *before.state())
    with pytest.raises(TamperedError, match="under tile/0/001 are not those") as caught:
        tiles.read(Address(0, 1), 600)
    assert caught.value.strerror
    assert "tile/0/001" not in blobs.kept
    assert tiles.read(Address(0, 0), 600) == b"".join(HASHES[:256])


def test_lines_that_are_gone_are_missed() -> None:
    tiles = Tiles(Blobs(), Lines(LINES[:10]))
    with pytest.raises(TamperedError, match=r"entries \[0, 20\) only 10 are there"):
        tiles.follow(20)
    assert tiles.size == 0


# -- files ----------------------------------------------------------------------------------------------------


def test_a_tile_is_a_file_at_its_path_for_nobody_else(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "acme")
    assert blobs.get("tile/0/x001/067") is None
    blobs.put("tile/0/x001/067", b"first")
    blobs.put("tile/0/x001/067", b"second")
    place = tmp_path / "acme" / "tile" / "0" / "x001" / "067"
    assert place.read_bytes() == b"second" == blobs.get("tile/0/x001/067")
    assert place.stat().st_mode & 0o777 == 0o600
    assert {folder.stat().st_mode & 0o777 for folder in list(place.parents)[:4]} == {0o700}
    assert [path.name for path in place.parent.iterdir()] == ["067"]


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_tile_that_cannot_be_written_is_written_the_next_time(tmp_path: Path, call: str) -> None:
    disk = FaultyDisk()
    tiles = Tiles(FileBlobs(tmp_path, disk), Lines(LINES))
    tiles.follow(200)
    disk.torn = 100
    disk.full(call)
    with pytest.raises(OSError, match="No space") as caught:
        tiles.follow(600)
    assert caught.value.errno == errno.ENOSPC
    assert tiles.size == 200
    assert tiles.tree().root() == root(TREE, 200)
    disk.mend()
    tiles.follow(600)
    assert tiles.read(Address(0, 1), 600) == b"".join(HASHES[256:512])
