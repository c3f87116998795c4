"""The hash chain of one organization's log: each entry holds the SHA-256 of the line before it.

Pure, standard library only: the sequencer makes chains with it and the offline verifier judges them. The
chain shows an order without gaps to anyone who reads the lines; the Merkle root that goes along commits to
the same lines in a form that a checkpoint can sign and a proof can be made for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import NamedTuple

from gateway.audit.canonical import LINE_MAX, CanonicalError, canonical, parse
from gateway.audit.merkle import Tree

SCHEMA = 1
GENESIS = "0" * 64
"""`prev` of the first entry."""


class Fault(NamedTuple):
    """Something wrong, in words: `where` names a file, a line or an entry, `what` says what is wrong there."""

    where: str
    what: str


class ChainError(ValueError):
    """A line does not continue the chain. `index` is the entry that was expected there."""

    def __init__(self, index: int, what: str) -> None:
        super().__init__(f"entry {index}: {what}")
        self.index = index
        self.what = what


def line_hash(line: bytes) -> str:
    return sha256(line).hexdigest()


class Chain:
    """Where the log of one organization stands: how many entries, the hash of the last, the tree over all."""

    __slots__ = ("last", "tree")

    def __init__(self, tree: Tree | None = None, last: str = GENESIS) -> None:
        self.tree = Tree() if tree is None else tree
        self.last = last

    @property
    def size(self) -> int:
        return self.tree.size

    def copy(self) -> Chain:
        return Chain(self.tree.copy(), self.last)

    def seal(
        self, fields: Mapping[str, object], spell: Callable[[Mapping[str, object]], bytes] = canonical
    ) -> bytes:
        """Make `fields` the next entry: add its place, return its line. Raises `CanonicalError`.

        `spell` is another way to the same bytes as `canonical`.
        """
        line = spell({**fields, "schema": SCHEMA, "index": self.size, "prev": self.last})
        if len(line) > LINE_MAX:
            raise CanonicalError(f"the line has {len(line)} bytes, more than {LINE_MAX}")
        self._append(line)
        return line

    def accept(self, line: bytes, org: str) -> dict[str, object]:
        """Append a line that was sealed before, and return its entry; raises `ChainError` if it is not next."""
        try:
            entry = parse(line)
        except CanonicalError as error:
            raise ChainError(self.size, str(error)) from None
        for what in judge(entry, org=org, index=self.size, prev=self.last):
            raise ChainError(self.size, what)
        self._append(line)
        return entry

    def _append(self, line: bytes) -> None:
        self.tree.append(line)
        self.last = line_hash(line)


def judge(entry: Mapping[str, object], *, org: str, index: int, prev: str | None) -> list[str]:
    """What is wrong with an entry at this place; nothing when all is well. `prev` None: not known."""
    faults = []
    if entry.get("schema") != SCHEMA or type(entry.get("schema")) is not int:
        faults.append(f"its schema is {entry.get('schema')!r}, this verifier knows {SCHEMA}")
    if entry.get("org") != org:
        faults.append(f"it belongs to another organization than {org!r}")
    found = entry.get("index")
    if type(found) is not int:
        faults.append("it has no index")
    elif found > index:
        faults.append(f"its index is {found}, expected {index}: entries are missing or out of order before it")
    elif found < index:
        faults.append(f"its index is {found}, expected {index}: an entry was repeated, inserted or moved")
    if prev is not None and entry.get("prev") != prev:
        faults.append("its `prev` is not the hash of the entry before it: one of the two was changed")
    return faults
