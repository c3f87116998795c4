"""All hash tiles of a tree from its leaf hashes, which come once and in order (C2SP tlog-tiles).

Pure, standard library only, and flat: of each level it keeps less than one tile. Whoever writes tiles gives them
to disk; whoever verifies holds them against those that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

from gateway.audit.merkle import Tree

HASH = 32
WIDTH = 256
"""Hashes in a full tile."""
TILE_BYTES = HASH * WIDTH

Emit = Callable[[int, int, bytes], None]
"""Called with a tile: level, number within the level, hashes."""


class TileTree:
    """`emit` gets each full tile once, those of one level in order, a tile before the one above it; the partial
    ones come with `finish`."""

    __slots__ = ("_emit", "_next", "_open", "size")

    def __init__(self, emit: Emit) -> None:
        self.size = 0
        self._emit = emit
        self._open: list[bytearray] = [bytearray()]
        self._next = [0]

    @classmethod
    def restored(cls, emit: Emit, size: int, parts: Sequence[bytes]) -> TileTree:
        """Go on where a tree of `size` leaves stood, whose `parts` these were. Raises ValueError when they are of
        another size."""
        made = cls(emit)
        made.size = size
        made._open = [bytearray(part) for part in parts]
        made._next = [size >> 8 * (level + 1) for level in range(len(parts))]
        if size < 0 or [len(part) for part in parts] != [HASH * width for width in _widths(size)]:
            raise ValueError(f"these are not the partial tiles of a tree of {size} leaves")
        return made

    def parts(self) -> tuple[bytes, ...]:
        """The partial tile of each level, b'' where there is none: with `size`, all there is to know."""
        return tuple(map(bytes, self._open))

    def add(self, hashes: bytes) -> None:
        """Add leaf hashes, one or many, each whole."""
        if len(hashes) % HASH:
            raise ValueError(f"{len(hashes)} bytes are not whole hashes of {HASH} bytes")
        self.size += len(hashes) // HASH
        at = 0
        while at < len(hashes):
            room = TILE_BYTES - len(self._open[0])
            self._put(0, hashes[at : at + room])
            at += room

    def tree(self) -> Tree:
        """The tree over the leaves so far."""
        found: list[bytes] = []
        for hashes in reversed(self._open):
            at, width = 0, len(hashes) // HASH
            for bit in (128, 64, 32, 16, 8, 4, 2, 1):
                if width & bit:
                    found.append(subtree(bytes(hashes[at : at + bit * HASH])))
                    at += bit * HASH
        return Tree(self.size, found)

    def finish(self) -> bytes:
        """Emit the partial tiles; the root."""
        for level, hashes in enumerate(self._open):
            if hashes:
                self._emit(level, self._next[level], bytes(hashes))
        return self.tree().root()

    def _put(self, level: int, hashes: bytes) -> None:
        if level == len(self._open):
            self._open.append(bytearray())
            self._next.append(0)
        held = self._open[level]
        held += hashes
        if len(held) < TILE_BYTES:
            return
        tile = bytes(held)
        held.clear()
        self._emit(level, self._next[level], tile)
        self._next[level] += 1
        self._put(level + 1, subtree(tile))


def _widths(size: int) -> Iterator[int]:
    """How many hashes the partial tile of each level has."""
    yield size % WIDTH
    while size := size // WIDTH:
        yield size % WIDTH


def tile_path(level: int, number: int, width: int = WIDTH) -> str:
    """`tile/<L>/<N>[.p/<W>]`."""
    groups = f"{number % 1000:03}"
    while number := number // 1000:
        groups = f"x{number % 1000:03}/{groups}"
    return f"tile/{level}/{groups}" + (f".p/{width}" if width < WIDTH else "")


def subtree(hashes: bytes) -> bytes:
    """MTH over 2**n hashes that stand next to each other (RFC 6962 section 2.1)."""
    level = [hashes[at : at + HASH] for at in range(0, len(hashes), HASH)]
    while len(level) > 1:
        level = [
            sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=True)
        ]
    return level[0]
