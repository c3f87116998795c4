"""The tiles in a pack: the verifier takes those of the tree that was signed, and no others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.audit import write_pack
from tests.unit.audit.packs import mend_manifest, words


@pytest.fixture
def tiled(tmp_path: Path) -> Path:
    write_pack(tmp_path / "pack", 600, 0, 2)
    return tmp_path / "pack"


def test_a_tile_that_was_changed_is_found_where_it_is(tiled: Path) -> None:
    spoiled = bytearray((tiled / "tile/0/001").read_bytes())
    spoiled[100] ^= 1
    (tiled / "tile/0/001").write_bytes(spoiled)
    found = words(tiled)
    assert "tile/1/000.p/2: does not follow from the tiles below it" in found
    assert "checkpoint: the entries are not those that were signed: the Merkle root differs" in found
    assert "tile/0: its SHA-256 is not the one in the manifest: it was changed" in found
    mend_manifest(tiled)
    assert "does not follow" in words(tiled)
    (tiled / "tile/1/000.p/2").write_bytes(bytes(64))
    assert "does not follow" in words(tiled)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "tile/0/001").unlink(), "tile/0/001: is missing"),
        (lambda f: (f / "tile/1/000.p/2").unlink(), "tile/1/000.p/2: is missing"),
        (lambda f: (f / "tile/0/002.p/88").write_bytes(bytes(32 * 87)), "has not 88 hashes"),
        (lambda f: (f / "tile/0/000").write_bytes(bytes(8193)), "has not 256 hashes"),
        (lambda f: (f / "tile/0/003").write_bytes(b""), "tile/0/003: is not part of a pack"),
        (lambda f: (f / "tile/0/002").write_bytes(b""), "tile/0/002: is not part of a pack"),
        (lambda f: (f / "tile/0/002.p/89").write_bytes(b""), "tile/0/002.p/89: is not part of a pack"),
        (lambda f: (f / "tile/0/x000").mkdir(), "tile/0/x000: is not part of a pack"),
        (lambda f: (f / "tile/2").mkdir(), "tile/2: is not part of a pack"),
        (lambda f: (f / "tile/entries").mkdir(), "tile/entries: is not part of a pack"),
        (lambda f: (f / "tile/a/b/c/d/e/f/g/h/i/j/k").mkdir(parents=True), "tile/a/b/c/d/e/f/g/h/i: is not part"),
        (lambda f: linked(f / "tile/0/000"), "tile/0/000: is not a plain file"),
        (lambda f: piped(f / "tile/0/000"), "tile/0/000: is not a plain file"),
        (lambda f: piped(f / "tile/1/000.p/2"), "tile/1/000.p/2: is not a plain file"),
        (lambda f: linked(f / "tile/1"), "tile/1: is not part of a pack"),
        (lambda f: linked(f / "tile"), "tile: is not part of a pack"),
        (lambda f: (f / "witnesses").write_text("quorum none\n"), "witnesses: is not part of a pack"),
    ],
)
def test_the_tiles_are_those_of_the_tree_and_no_others(
    tiled: Path, change: Callable[[Path], object], says: str
) -> None:
    change(tiled)
    assert says in words(tiled)


def piped(path: Path) -> None:
    """A pipe that nobody writes into: whoever opens it waits for ever."""
    path.unlink()
    os.mkfifo(path)


def linked(path: Path) -> None:
    """Out of the pack, with a link in its place."""
    away = path.parent.parent.parent / "away"
    path.rename(away)
    path.symlink_to(away)
