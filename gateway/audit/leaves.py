"""The hash tiles of a pack, read once and in order: the hash of each leaf, and the roots that follow from them.

Everything above the tiles of leaves is computed again and held against what the pack has, so that a pack with
another tree in it than the one of its root is found out, wherever it differs.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

from gateway.audit.manifest import FaultAt, Manifest
from gateway.audit.tiletree import HASH, TILE_BYTES, WIDTH, TileTree, tile_path

_ABSENT = "is missing: the pack is not complete"


class Leaves:
    """`roots`: of the sizes that were asked for, once so many leaves have been read. A pack of format 1 has no
    tiles: its leaves are its lines."""

    def __init__(self, folder: Path, manifest: Manifest, sizes: Iterable[int], fault: FaultAt) -> None:
        self.roots: dict[int, bytes] = {}
        self._folder = folder
        self._manifest = manifest
        self._fault = fault
        self._sizes = sorted(set(sizes), reverse=True)
        self._levels = [sha256() for _ in manifest.tiles]
        self._tiled = manifest.format > 1
        self._tree = TileTree(self._hold if self._tiled else _nowhere)
        self._tile = b""
        self._from = 0
        self._broken = False
        self._remember()

    def judge(self, index: int, leaf: bytes) -> str | None:
        """What is wrong with this hash as that of leaf `index`, in words. Asked for rising indexes."""
        if not self._tiled:
            self._tree.add(leaf)
            self._remember()
            return None
        if index >= self._manifest.size:
            return "is beyond the end of the log"
        while index >= self._tree.size and not self._broken:
            self._read()
        at = (index - self._from) * HASH
        if self._broken or self._tile[at : at + HASH] == leaf:
            return None
        return "is not what the log holds at this place: its hash is not the one in the tiles"

    def finish(self, progress: Callable[[int, int], None]) -> bytes | None:
        """Read the rest; the root of the whole tree, None when the tiles do not make one."""
        size = self._manifest.size
        while self._tiled and self._tree.size < size and not self._broken:
            self._read()
            progress(self._tree.size, size)
        return None if self._broken else self._root(size, progress)

    def _root(self, size: int, progress: Callable[[int, int], None]) -> bytes | None:
        root = self._tree.finish()
        for level, (part, hashed) in enumerate(zip(self._manifest.tiles, self._levels, strict=True)):
            if hashed.hexdigest() != part.sha256:
                self._fault(f"tile/{level}", "its SHA-256 is not the one in the manifest: it was changed")
        progress(size, size)
        return None if self._broken else root

    def _read(self) -> None:
        """The next tile of leaves. One that is missing or cut off is no tree's: nothing after it is looked at."""
        self._from = self._tree.size
        width = min(self._manifest.size - self._from, WIDTH)
        found = self._file(0, self._from // WIDTH, width)
        if found is None:
            self._broken = True
            return
        self._tile = found
        self._levels[0].update(found)
        done = 0
        while self._sizes and self._sizes[-1] <= self._from + width:
            cut = (self._sizes[-1] - self._from) * HASH
            self._tree.add(found[done:cut])
            self._remember()
            done = cut
        self._tree.add(found[done:])

    def _remember(self) -> None:
        while self._sizes and self._sizes[-1] == self._tree.size:
            self.roots[self._sizes.pop()] = self._tree.tree().root()

    def _hold(self, level: int, number: int, hashes: bytes) -> None:
        """A tile as it follows from those below it, against the one that is there."""
        if not level:
            return  # it is the one that was read
        found = self._file(level, number, len(hashes) // HASH)
        if found is None:
            self._broken = True
        else:
            self._levels[level].update(found)
            if found != hashes:
                self._fault(
                    tile_path(level, number, len(hashes) // HASH), "does not follow from the tiles below it"
                )

    def _file(self, level: int, number: int, width: int) -> bytes | None:
        path = tile_path(level, number, width)
        place = self._folder / path
        try:
            if not stat.S_ISREG(place.lstat().st_mode):  # a pipe without a writer would never open
                self._fault(path, "is not a plain file")
                return None
            with place.open("rb") as file:
                found = file.read(TILE_BYTES + 1)
        except FileNotFoundError:
            self._fault(path, _ABSENT)
            return None
        if len(found) != width * HASH:
            self._fault(path, f"has not {width} hashes of {HASH} bytes: it was cut off or added to")
            return None
        return found


def _nowhere(level: int, number: int, hashes: bytes) -> None:
    """Packs of format 1 have no tiles."""
