"""The hash tiles of one organization's log (C2SP tlog-tiles): kept as entries come, made anew when they are lost.

All of it follows from the lines. Full tiles are kept as `Blobs`, 32 bytes an entry; the partial ones at the
right edge are in memory and in the log's state. Nothing that is kept is believed: a full tile is held against its
hash in the tile above it, up to the edge, whose root is the one that checkpoints sign. Order of one step, and what
a crash leaves:

1. the lines are durable. Crash: `follow` reads them again.
2. each tile that has become full is put. Crash: the next start puts the same bytes in the same place.
3. the edge moves on in memory; the log's state that is saved later has it.

A tile that is missing, torn or changed costs whoever asks for it the time of reading its lines again.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from errno import EIO
from typing import NamedTuple

from gateway.audit.blobs import Blobs
from gateway.audit.merkle import Tree, leaf_hash
from gateway.audit.tiletree import HASH, TILE_BYTES, WIDTH, TileTree, subtree, tile_path

log = logging.getLogger(__name__)

BATCH = 16 * WIDTH
"""Lines of one step: at most so many are read in vain when a tile cannot be put."""
KEPT = 16
"""Full tiles that were verified and are remembered: 128 KiB a log that is read."""

_PATH = re.compile(r"(entries|[0-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/)*)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
PATH_MAX = 64
"""Characters of a tile's path: the largest tree that anybody asks about has 2**53 entries."""

Lines = Callable[[int, int], Iterator[bytes]]
"""The lines of entries [start, end), each with its newline."""


class Address(NamedTuple):
    """Which tile; `level` is None for an entry bundle. `width`: how many of its 256 places, from the first on."""

    level: int | None
    number: int
    width: int = WIDTH


class TamperedError(OSError):
    """Lines are not those that the tree was made of, or are gone: no tile can be made of them."""

    def __init__(self, what: str) -> None:
        super().__init__(EIO, what)


def parse_path(path: str) -> Address | None:
    """Read what follows `tile/`: `<L>/<N>[.p/<W>]` or `entries/<N>[.p/<W>]`. None unless in its one spelling."""
    found = _PATH.fullmatch(path)
    if found is None or len(path) > PATH_MAX:
        return None
    level = None if found[1] == "entries" else int(found[1])
    number, width = int(found[2].replace("x", "").replace("/", "") + found[3]), int(found[4] or WIDTH)
    spelt = tile_path(0, number, width).removeprefix("tile/0/")
    return Address(level, number, width) if path == f"{found[1]}/{spelt}" else None


def bundle(lines: Iterable[bytes]) -> bytes:
    """An entry bundle: each line, without its newline, after its length (16 bits, big-endian)."""
    return b"".join(len(line[:-1]).to_bytes(2) + line[:-1] for line in lines)


class Tiles:
    """A `gateway.audit.proofs.Hashes` over the first `size` entries. One thread follows, any number read."""

    def __init__(self, blobs: Blobs, lines: Lines, size: int = 0, parts: Sequence[bytes] = (b"",)) -> None:
        """`size` and `parts` are what an earlier one had. Raises ValueError when they do not belong together."""
        self._blobs = blobs
        self._lines = lines
        self._edge = TileTree.restored(self._put, size, parts)
        self._verified: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._turn = threading.Lock()
        self._mending = threading.Lock()
        """Held while a tile is made anew: many may ask for it."""

    @property
    def size(self) -> int:
        return self._edge.size

    def tree(self) -> Tree:
        """The right edge, as the chain knows it."""
        return self._edge.tree()

    def state(self) -> tuple[int, tuple[bytes, ...]]:
        """`size` and `parts` to go on from."""
        edge = self._edge
        return edge.size, edge.parts()

    # -- following the lines --------------------------------------------------------------------------------

    def follow(self, end: int) -> None:
        """Take in the entries up to `end`. Raises OSError: what was taken in by then stays so."""
        while self.size < end:
            edge = TileTree.restored(self._put, *self.state())
            edge.add(self._hashes(self.size, min(self.size + BATCH, end)))
            self._edge = edge

    def _put(self, level: int, number: int, hashes: bytes) -> None:
        self._blobs.put(tile_path(level, number), hashes)

    def _hashes(self, start: int, end: int) -> bytes:
        found = b"".join([leaf_hash(line[:-1]) for line in self._lines(start, end)])
        if len(found) != HASH * (end - start):
            raise TamperedError(f"of the lines of entries [{start}, {end}) only {len(found) // HASH} are there")
        return found

    # -- reading --------------------------------------------------------------------------------------------

    def read(self, at: Address, size: int) -> bytes | None:
        """The tile or bundle; None unless a tree of `size` entries has all of it, and its lines are kept still.
        Raises OSError."""
        start, end = at.number * WIDTH, at.number * WIDTH + at.width
        if end > min(size, self.size) >> 8 * (at.level or 0):
            return None
        if at.level is None:
            lines = list(self._lines(start, end))
            return bundle(lines) if len(lines) == at.width else None
        return self._tile(at.level, at.number)[: HASH * at.width]

    def node(self, level: int, index: int) -> bytes:
        """MTH(D[index * 2**level : (index + 1) * 2**level]). Raises LookupError beyond `size`, OSError."""
        if level < 0 or index < 0 or (index + 1) << level > self.size:
            raise LookupError(f"{self.size} entries have no perfect subtree {index} at level {level}")
        tiles, inside = divmod(level, 8)
        number, at = divmod(index << inside, WIDTH)
        return subtree(self._tile(tiles, number)[HASH * at : HASH * (at + (1 << inside))])

    def leaves(self, start: int, end: int) -> Iterator[bytes]:
        """The hashes of entries [start, end), 32 bytes each, a tile at a time. As far as there are any."""
        at, end = start, min(end, self.size)
        while at < end:
            number, skip = divmod(at, WIDTH)
            taken = min(end - at, WIDTH - skip)
            yield self._tile(0, number)[HASH * skip : HASH * (skip + taken)]
            at += taken

    def _tile(self, level: int, number: int) -> bytes:
        """All of it that there is."""
        edge = self._edge
        if number == edge.size >> 8 * (level + 1):
            return edge.parts()[level]
        with self._turn:
            if (found := self._verified.get((level, number))) is not None:
                self._verified.move_to_end((level, number))
                return found
        wanted = self._tile(level + 1, number // WIDTH)[HASH * (number % WIDTH) :][:HASH]
        found = self._sound(level, number, wanted)
        if found is None:
            with self._mending:
                found = self._sound(level, number, wanted) or self._remade(level, number, wanted)
        with self._turn:
            self._verified[level, number] = found
            while len(self._verified) > KEPT:
                self._verified.popitem(last=False)
        return found

    def _sound(self, level: int, number: int, wanted: bytes) -> bytes | None:
        """The tile that is kept, if it is the one whose hash is wanted."""
        found = self._blobs.get(tile_path(level, number))
        return found if found is not None and len(found) == TILE_BYTES and subtree(found) == wanted else None

    # -- making a tile anew ---------------------------------------------------------------------------------

    def _remade(self, level: int, number: int, wanted: bytes) -> bytes:
        """First from the tiles below, which are there as a rule; if those are wrong, from the lines alone."""
        for trusting in (True, False):
            made = self._made(level, number, trusting)
            if subtree(made) == wanted:
                log.warning("audit: %s was missing or damaged, and was made anew", tile_path(level, number))
                self._blobs.put(tile_path(level, number), made)
                return made
        raise TamperedError(f"the lines under {tile_path(level, number)} are not those that the log was made of")

    def _made(self, level: int, number: int, trusting: bool) -> bytes:
        places = range(number * WIDTH, (number + 1) * WIDTH)
        if not level:
            return self._hashes(places.start, places.stop)
        return b"".join([subtree(self._below(level - 1, child, trusting)) for child in places])

    def _below(self, level: int, number: int, trusting: bool) -> bytes:
        path = tile_path(level, number)
        found = self._blobs.get(path) if trusting else None
        if found is None or len(found) != TILE_BYTES:
            found = self._made(level, number, trusting)
            self._blobs.put(path, found)
        return found
