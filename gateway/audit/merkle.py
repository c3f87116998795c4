"""The Merkle tree of RFC 6962 section 2.1, as a compact range: O(log n) hashes say all there is to know.

Pure. Leaves are entry lines without their newline.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """The roots of the perfect subtrees that cover leaves [0, size), the largest first.

    One subtree for each bit that is set in `size`: this is what a tile log keeps of its right edge, so the
    same state goes on when leaves move into tiles.
    """

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.hashes = list(hashes)
        if size < 0 or len(self.hashes) != size.bit_count() or any(len(h) != 32 for h in self.hashes):
            raise ValueError(f"a tree of {size} leaves has {max(size, 0).bit_count()} subtrees of 32 bytes each")

    def append(self, leaf: bytes) -> None:
        """Add one leaf."""
        self.append_hash(leaf_hash(leaf))

    def append_hash(self, done: bytes) -> None:
        """Add the leaf of this hash; merges as many subtrees as the old size ends in ones."""
        rest = self.size
        while rest & 1:
            done = node_hash(self.hashes.pop(), done)
            rest >>= 1
        self.hashes.append(done)
        self.size += 1

    def root(self) -> bytes:
        """MTH(D[size]); of the empty tree the hash of nothing."""
        if not self.hashes:
            return sha256().digest()
        found = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            found = node_hash(left, found)
        return found

    def copy(self) -> Tree:
        return Tree(self.size, self.hashes)


class HashTree:
    """The hash of every perfect subtree over the leaves so far, in memory: 64 bytes a leaf.

    A `gateway.audit.proofs.Hashes`, for trees that one has whole: of a pack, or in a test.
    """

    __slots__ = ("_levels", "size")

    def __init__(self, hashes: Iterable[bytes] = ()) -> None:
        """`hashes` are those of the leaves."""
        self.size = 0
        self._levels: list[bytearray] = []
        for one in hashes:
            self.append_hash(one)

    def append_hash(self, done: bytes) -> None:
        """Add the leaf of this hash."""
        self._add(0, done)
        level, rest = 0, self.size
        while rest & 1:
            done = node_hash(bytes(self._levels[level][-64:-32]), done)
            level, rest = level + 1, rest >> 1
            self._add(level, done)
        self.size += 1

    def _add(self, level: int, done: bytes) -> None:
        if len(done) != 32:
            raise ValueError("a hash has 32 bytes")
        if level == len(self._levels):
            self._levels.append(bytearray())
        self._levels[level] += done

    def node(self, level: int, index: int) -> bytes:
        """MTH(D[index * 2**level : (index + 1) * 2**level]). Raises LookupError when it is not complete."""
        if not (0 <= level < len(self._levels) and 0 <= index < len(self._levels[level]) // 32):
            raise LookupError(f"a tree of {self.size} leaves has no perfect subtree {index} at level {level}")
        return bytes(self._levels[level][32 * index : 32 * index + 32])
