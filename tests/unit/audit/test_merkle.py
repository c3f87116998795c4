"""The tree of RFC 6962, against the published vectors of the Certificate Transparency reference tests."""

from __future__ import annotations

from hashlib import sha256

import pytest

from gateway.audit.merkle import Tree, leaf_hash, node_hash

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_the_published_roots() -> None:
    tree = Tree()
    assert tree.root().hex() == ROOTS[0]
    for leaf, root in zip(LEAVES, ROOTS[1:], strict=True):
        tree.append(leaf)
        assert tree.root().hex() == root


def test_the_published_hashes_of_a_leaf_and_a_node() -> None:
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert node_hash(b"N123", b"N456").hex() == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"


def test_the_root_is_that_of_the_recursive_definition_at_every_size() -> None:
    def defined(leaves: list[bytes]) -> bytes:
        if len(leaves) < 2:
            return leaf_hash(leaves[0]) if leaves else sha256().digest()
        split = 1 << (len(leaves) - 1).bit_length() - 1
        return node_hash(defined(leaves[:split]), defined(leaves[split:]))

    leaves = [bytes([n]) for n in range(130)]
    tree = Tree()
    for size, leaf in enumerate(leaves, 1):
        tree.append(leaf)
        assert tree.root() == defined(leaves[:size])


def test_a_tree_goes_on_from_its_state_and_a_copy_stands_alone() -> None:
    tree = Tree()
    for leaf in LEAVES[:5]:
        tree.append(leaf)
    copy = Tree(tree.size, tree.hashes)
    other = tree.copy()
    for leaf in LEAVES[5:]:
        copy.append(leaf)
    assert copy.root().hex() == ROOTS[8]
    assert tree.root() == other.root()
    assert tree.root().hex() == ROOTS[5]


@pytest.mark.parametrize(("size", "hashes"), [(1, []), (3, [bytes(32)]), (1, [bytes(31)]), (-1, [bytes(32)])])
def test_a_state_that_is_none_is_refused(size: int, hashes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="subtrees"):
        Tree(size, hashes)
