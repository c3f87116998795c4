"""Copies one organization's log from a store to another, and declares it good only when all of it was read
back.

Both are opened as a server would, so that none can write either meanwhile. A copy that was broken off goes on
where it was: what the target has already must be the beginning of what the source has, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from gateway.audit.canonical import CanonicalError, parse
from gateway.audit.chain import Chain, ChainError
from gateway.audit.log_store import LogStore
from gateway.audit.merkle import Tree
from gateway.audit.note import NoteError, VerifierKey, open_note, parse_checkpoint
from gateway.audit.tiletree import WIDTH, tile_path
from tenants.ids import OrgId

BATCH = 256


class CopyError(Exception):
    """The copy is not good, in words. Nothing was taken away from the source."""


def opened(store: LogStore, advance: Callable[[int], None] = lambda _: None) -> LogStore:
    """As a server opens it: read whole, ready to be written."""
    for count, _ in enumerate(store.replay(store.begin, {}), store.begin + 1):
        if not count % BATCH:
            advance(count)
    store.ready()
    return store


def copy_log(
    source: LogStore,
    target: LogStore,
    org: OrgId,
    key: VerifierKey,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Copy what `target` has not; how many entries that was. Both are `opened`. Raises `CopyError`, OSError."""
    size, root, note = _signed(source, org, key)
    if not target.size and source.begin:
        target.adopt(source.begin, source.base())
    if target.size > source.size or target.begin > source.size:
        raise CopyError(
            f"the target has {target.size} entries already, the source {source.size}: that is another log"
        )
    _same(source, target, advance)
    had = target.size
    lines = source.lines(had, source.size)
    while batch := [line[:-1] for line in islice(lines, BATCH)]:
        target.append(batch)
        advance(target.size)
    for path in _tiles(size):
        found = source.blobs.get(path)
        if found is not None and target.blobs.get(path) != found:
            target.blobs.put(path, found)
    if _root(target, org, size) != root:
        raise CopyError("what was written reads back with another root than the one that is signed")
    target.save(note, b"")
    return target.size - had


def _signed(source: LogStore, org: OrgId, key: VerifierKey) -> tuple[int, bytes, bytes]:
    """Size and root that are signed, and the note."""
    note = source.checkpoint()
    if not note:
        if source.size:
            raise CopyError("it has no checkpoint: start the server and stop it, so that it signs one")
        return 0, Tree().root(), note
    try:
        said = parse_checkpoint(open_note(note.decode(), key))
    except (NoteError, UnicodeDecodeError) as error:
        raise CopyError(f"its checkpoint does not hold: {error}") from None
    if said.size > source.size:
        raise CopyError(
            f"it has {source.size} entries, and {said.size} were signed: it is damaged, keep it as evidence"
        )
    if said.size != source.size:
        raise CopyError(
            f"it has {source.size} entries, and {said.size} are signed: start the server and stop it, so that it"
            " signs all of them"
        )
    if _root(source, org, said.size) != said.root:
        raise CopyError("its entries are not those that were signed: keep it as evidence")
    return said.size, said.root, note


def _same(source: LogStore, target: LogStore, advance: Callable[[int], None]) -> None:
    start = max(source.begin, target.begin)
    pairs = zip(source.lines(start, target.size), target.lines(start, target.size), strict=True)
    for index, (one, other) in enumerate(pairs, start):
        if one != other:
            raise CopyError(f"the target has another entry {index} already: that is another log")
        if not index % BATCH:
            advance(index)


def _root(store: LogStore, org: OrgId, size: int) -> bytes:
    """Of the first `size` entries, each line judged as the next one of the chain."""
    chain = _beginning(store)
    try:
        for line in store.lines(store.begin, size):
            chain.accept(line[:-1], org)
    except ChainError as error:
        raise CopyError(str(error)) from None
    return chain.tree.root() if chain.size == size else b""


def _beginning(store: LogStore) -> Chain:
    if not store.begin:
        return Chain()
    try:
        base = parse(store.base())
        tree = Tree(int(base["size"]), [bytes.fromhex(h) for h in base["tree"]])  # type: ignore[call-overload, attr-defined]
    except (CanonicalError, KeyError, TypeError, ValueError):
        raise CopyError("what its dropped entries came to cannot be read") from None
    return Chain(tree, str(base["last"]))


def _tiles(size: int) -> Iterator[str]:
    """The paths of all full tiles of a tree of `size` entries."""
    level, full = 0, size // WIDTH
    while full:
        yield from (tile_path(level, number) for number in range(full))
        level, full = level + 1, full // WIDTH
