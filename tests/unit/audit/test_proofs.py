"""Proofs of RFC 6962 trees: published vectors of the Certificate Transparency tests, and the RFC's recursion."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit.merkle import HashTree, leaf_hash, node_hash
from gateway.audit.proofs import (
    EMPTY_ROOT,
    consistency,
    inclusion,
    root,
    verify_consistency,
    verify_inclusion,
)
from tests.unit.audit.test_merkle import LEAVES, ROOTS

H0 = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
H1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
H2 = "0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7"
H4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
H6 = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f"
H01 = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
H23 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
H45 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
H67 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
H03 = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
H47 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"

INCLUSION = {
    (0, 1): [],
    (0, 8): [H1, H23, H47],
    (3, 8): [H2, H01, H47],
    (5, 8): [H4, H67, H03],
    (7, 8): [H6, H45, H03],
    (2, 3): [H01],
    (1, 5): [H0, H23, H4],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [H1, H23, H47],
    (6, 8): [H45, H67, H03],
    (2, 5): [H23, H4],
}
PUBLISHED = HashTree(leaf_hash(leaf) for leaf in LEAVES)


def unhex(hashes: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in hashes]


def numbered(size: int) -> tuple[list[bytes], HashTree]:
    hashes = [leaf_hash(b"%d" % n) for n in range(size)]
    return hashes, HashTree(hashes)


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it stands there. `leaves` are hashed already."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256().digest()
    k = split(len(leaves))
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    return [*path(m, leaves[:k]), mth(leaves[k:])] if m < k else [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """RFC 6962 section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_the_published_paths(index: int, size: int) -> None:
    expected = unhex(INCLUSION[index, size])
    assert inclusion(PUBLISHED, index, size) == expected
    assert verify_inclusion(leaf_hash(LEAVES[index]), index, size, expected, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_the_published_consistency_proofs(old: int, new: int) -> None:
    expected = unhex(CONSISTENCY[old, new])
    assert consistency(PUBLISHED, old, new) == expected
    assert verify_consistency(old, bytes.fromhex(ROOTS[old]), new, bytes.fromhex(ROOTS[new]), expected)


def test_every_proof_of_every_small_tree_is_the_recursions_and_verifies() -> None:
    hashes, tree = numbered(40)
    roots = [mth(hashes[:size]) for size in range(41)]
    for size in range(41):
        assert root(tree, size) == roots[size]
        for index in range(size):
            proof = inclusion(tree, index, size)
            assert proof == path(index, hashes[:size])
            assert verify_inclusion(hashes[index], index, size, proof, roots[size])
        for old in range(size + 1):
            proof = consistency(tree, old, size)
            assert proof == (subproof(old, hashes[:size], True) if old else [])
            assert verify_consistency(old, roots[old], size, roots[size], proof)


sizes = st.one_of(st.integers(1, 20), st.integers(1, 1_100), st.sampled_from([255, 256, 257, 511, 512, 513, 1024]))
HASHES, TREE = numbered(1_100)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_larger_trees_too(data: st.DataObject) -> None:
    size = data.draw(sizes)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    assert root(TREE, size) == mth(HASHES[:size])
    assert inclusion(TREE, index, size) == path(index, HASHES[:size])
    assert consistency(TREE, old, size) == subproof(old, HASHES[:size], True)


@st.composite
def spoilt(draw: st.DrawFn, proof: list[bytes]) -> list[bytes]:
    """The proof with one thing wrong."""
    kinds = ["added"] + (["bit", "gone", "short", "long"] if proof else [])
    kinds += ["swapped"] if len(proof) > 1 else []
    kind, at = draw(st.sampled_from(kinds)), draw(st.integers(0, max(len(proof) - 1, 0)))
    changed = list(proof)
    match kind:
        case "added":
            changed.insert(draw(st.integers(0, len(proof))), draw(st.sampled_from([bytes(32), *proof])))
        case "bit":
            bit = draw(st.integers(0, 255))
            changed[at] = (int.from_bytes(changed[at]) ^ 1 << bit).to_bytes(32)
        case "gone":
            del changed[at]
        case "short":
            changed[at] = changed[at][:-1]
        case "long":
            changed[at] += b"\0"
        case "swapped":
            other = (at + 1) % len(changed)
            changed[at], changed[other] = changed[other], changed[at]
    return changed


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_proof_with_anything_wrong_in_it_shows_nothing(data: st.DataObject) -> None:
    size = data.draw(sizes)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    top, before = root(TREE, size), root(TREE, old)
    assert not verify_inclusion(HASHES[index], index, size, data.draw(spoilt(inclusion(TREE, index, size))), top)
    assert not verify_consistency(old, before, size, top, data.draw(spoilt(consistency(TREE, old, size))))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_proof_shows_nothing_of_anything_else(data: st.DataObject) -> None:
    size = data.draw(sizes.filter(lambda n: n > 1))
    index = data.draw(st.integers(0, size - 1))
    proof, top = inclusion(TREE, index, size), root(TREE, size)
    other = data.draw(st.integers(0, size - 1).filter(lambda n: n != index))
    assert not verify_inclusion(HASHES[other], index, size, proof, top)
    assert not verify_inclusion(HASHES[index], other, size, proof, top)
    assert not verify_inclusion(HASHES[index], index, size, proof, root(TREE, size - 1))

    old = data.draw(st.integers(1, size - 1))
    link = consistency(TREE, old, size)
    stranger = leaf_hash(b"a stranger")
    assert not verify_consistency(old, stranger, size, top, link)
    assert not verify_consistency(old, root(TREE, old), size, stranger, link)
    assert not verify_consistency(old + 1, root(TREE, old), size, top, link)


def test_a_log_that_was_cut_and_went_on_differently_cannot_be_linked() -> None:
    """Whatever proof the server makes for it: the old root commits to what is gone."""
    rewritten = HashTree([*HASHES[:50], leaf_hash(b"not what was there"), *HASHES[51:100]])
    old_root, new_root = root(TREE, 60), root(rewritten, 100)
    for proof in (consistency(TREE, 60, 100), consistency(rewritten, 60, 100), [], [old_root]):
        assert not verify_consistency(60, old_root, 100, new_root, proof)
    assert verify_consistency(50, root(TREE, 50), 100, new_root, consistency(rewritten, 50, 100))


def test_the_empty_tree_begins_every_tree() -> None:
    assert verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    assert verify_consistency(0, EMPTY_ROOT, 5, root(TREE, 5), [])
    assert not verify_consistency(0, HASHES[0], 5, root(TREE, 5), [])
    assert not verify_consistency(0, EMPTY_ROOT, 5, root(TREE, 5), [HASHES[0]])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5), (7, 5)])
def test_no_path_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="has no leaf"):
        inclusion(TREE, index, size)
    assert not verify_inclusion(HASHES[0], index, size, [], HASHES[0])


@pytest.mark.parametrize(("old", "new"), [(6, 5), (-1, 5)])
def test_no_tree_shrinks(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="can become"):
        consistency(TREE, old, new)
    assert not verify_consistency(old, HASHES[0], new, HASHES[0], [])


def test_a_hash_of_another_length_is_none() -> None:
    assert not verify_inclusion(HASHES[0][:31], 0, 1, [], HASHES[0][:31])
    assert not verify_consistency(3, b"", 3, b"", [])


@pytest.mark.parametrize(("level", "index"), [(0, 5), (1, 2), (3, 0), (0, -1), (-1, 0)])
def test_what_is_not_whole_has_no_hash(level: int, index: int) -> None:
    with pytest.raises(LookupError, match="a tree of 5 leaves"):
        numbered(5)[1].node(level, index)


def test_a_hash_tree_takes_hashes_only() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        HashTree([b"a line, not its hash"])
