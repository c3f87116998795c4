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
        """Add one leaf; merges as many subtrees as the old size ends in ones."""
        done, rest = leaf_hash(leaf), self.size
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
