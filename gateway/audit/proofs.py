"""Inclusion and consistency proofs of RFC 6962 section 2.1, verified as RFC 9162 sections 2.1.3.2 and 2.1.4.2 say.

Pure. Making a proof looks up O(log size) hashes of perfect subtrees; where they are kept is `Hashes`' to say.
Verifying needs nothing but the proof. Hashes are SHA-256, 32 bytes each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Protocol

from gateway.audit.merkle import node_hash

HASH_BYTES = 32
EMPTY_ROOT = sha256().digest()
"""MTH({}): the root of the tree without leaves."""


class Hashes(Protocol):
    """Whatever knows the hashes of a tree's perfect subtrees."""

    def node(self, level: int, index: int) -> bytes:
        """MTH(D[index * 2**level : (index + 1) * 2**level]). Asked only of subtrees that are complete within the
        size that a proof is made for; raises LookupError for what is not there."""


def root(leaves: Hashes, size: int) -> bytes:
    """MTH(D[0:size])."""
    return _range(leaves, 0, size) if size else EMPTY_ROOT


def inclusion(leaves: Hashes, index: int, size: int) -> list[bytes]:
    """PATH(index, D[0:size]), from the leaf's sibling up. Raises ValueError unless 0 <= index < size."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    start, end = 0, size
    proof = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_range(leaves, middle, end))
            end = middle
        else:
            proof.append(_range(leaves, start, middle))
            start = middle
    return proof[::-1]


def consistency(leaves: Hashes, old: int, new: int) -> list[bytes]:
    """PROOF(old, D[0:new]); empty when `old` is 0 or `new`. Raises ValueError unless 0 <= old <= new."""
    if not 0 <= old <= new:
        raise ValueError(f"no tree of {old} leaves can become one of {new}")
    if not old:
        return []
    start, end = 0, new
    proof = []
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_range(leaves, middle, end))
            end = middle
        else:
            proof.append(_range(leaves, start, middle))
            start = middle
    if start:  # else what is left is the old tree itself, whose root the verifier has
        proof.append(_range(leaves, start, end))
    return proof[::-1]


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that leaf `index` of the tree with this size and root has this hash."""
    if not 0 <= index < size or not _whole(leaf_hash, *proof):
        return False
    fn, sn = index, size - 1
    found = leaf_hash
    for sibling in proof:
        if not sn:
            return False
        if fn & 1 or fn == sn:
            found = node_hash(sibling, found)
            fn, sn = _up(fn, sn)
        else:
            found = node_hash(found, sibling)
        fn, sn = fn >> 1, sn >> 1
    return not sn and found == root


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the tree (new, new_root) begins with all of the tree (old, old_root).

    The empty tree is the beginning of every tree, shown by an empty proof.
    """
    if not 0 <= old <= new or not _whole(old_root, new_root, *proof):
        return False
    if old == new:
        return not proof and old_root == new_root
    if not old:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    before = after = path[0]
    for sibling in path[1:]:
        if not sn:
            return False
        if fn & 1 or fn == sn:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            fn, sn = _up(fn, sn)
        else:
            after = node_hash(after, sibling)
        fn, sn = fn >> 1, sn >> 1
    return not sn and before == old_root and after == new_root


def _up(fn: int, sn: int) -> tuple[int, int]:
    """Climb over levels without a sibling (RFC 9162: "until either LSB(fn) is set or fn is 0")."""
    while fn and not fn & 1:
        fn, sn = fn >> 1, sn >> 1
    return fn, sn


def _whole(*hashes: bytes) -> bool:
    """Two hashes next to each other have one meaning only if each has its length."""
    return all(len(one) == HASH_BYTES for one in hashes)


def _split(count: int) -> int:
    """The largest power of two smaller than `count`, which is 2 or more."""
    return 1 << (count - 1).bit_length() - 1


def _range(leaves: Hashes, start: int, end: int) -> bytes:
    """MTH(D[start:end]), where `start` is a multiple of a power of two that is not less than the length."""
    hashes = [leaves.node(level, index) for level, index in _perfect(start, end)]
    found = hashes.pop()
    while hashes:
        found = node_hash(hashes.pop(), found)
    return found


def _perfect(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The perfect subtrees that make up [start, end), the largest first: (level, index) of each."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level
