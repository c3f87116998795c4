"""One organization's log: drafts become lines of its chain, durable in a `LogStore`, signed in checkpoints.

Synchronous: the sequencer calls it in a thread, one call at a time per log. Order of one commit, and what a
crash at each step leaves:

1. entries are sealed against the chain as it was last made durable (memory only). Crash: nothing.
2. the store makes their lines durable. Crash before that: nothing, or whole lines that were never acknowledged
   and count from the next start on (the sender will repeat them and be recognised). What each store leaves in
   between is written there.
3. the chain and what was seen move on in memory; then the sender is told. Crash: it was not told, repeats, is
   recognised.
4. at most 10 s later the hash tiles follow, then the checkpoint is replaced, then the state, which only saves
   reading the log from its beginning. Crash before the last: the next start reads from the older state, and
   puts the tiles since then once more.

Nothing durable is ever rewritten, so no two entries can claim one place.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from gateway.audit.canonical import CanonicalError, canonical, parse
from gateway.audit.chain import Chain, ChainError, line_hash
from gateway.audit.entry import Draft
from gateway.audit.line import spell
from gateway.audit.log_store import LogStore
from gateway.audit.merkle import Tree
from gateway.audit.note import Checkpoint, NoteError, parse_checkpoint, split_note
from gateway.audit.proofs import EMPTY_ROOT
from gateway.audit.seen import Seen
from gateway.audit.signer import Signer
from gateway.audit.tiles import TamperedError, Tiles
from tenants.ids import OrgId

FOLLOW_MAX = 65_536
"""Entries whose tiles are made at a time: a second's work at most."""
LOOK_BACK = 16_384
"""Lines that a search for a repeat reads at a time, the newest first."""
_DOCUMENT = re.compile(rb'"_document_id":"([^"]*)"')


class OrgLog:
    def __init__(self, store: LogStore, org: OrgId, signer: Signer) -> None:
        """Recover what the store has. Raises `DamagedError`, OSError."""
        self.org = org
        self.store = store
        self.tiles = Tiles(store.blobs, store.lines)
        self._signer = signer
        self._chain = Chain()
        self._seen = Seen()
        self._note = ""
        self.signed_size = 0
        """How many entries the checkpoint is over: for each of them there are tiles."""
        self._recover()

    @property
    def size(self) -> int:
        """How many entries are durable: what readers may see."""
        return self.store.size

    def lines(self, start: int, end: int) -> Iterator[bytes]:
        """As `LogStore.lines`."""
        return self.store.lines(start, end)

    def close(self) -> None:
        self.store.close()

    # -- append ---------------------------------------------------------------------------------------------

    def append(self, drafts: Sequence[Draft]) -> int:
        """Make entries of the drafts that are none yet, durable when it returns; how many those were.

        Raises OSError: then none of them counts, and the same call may be made again.
        """
        chain, seen = self._chain.copy(), self._seen.copy()
        known = self._written(seen.suspects(drafts))
        lines = [
            chain.seal(draft.fields, spell if draft.boot else canonical)
            for draft in drafts
            if seen.add(draft, known, chain.size)
        ]
        if lines:
            self.store.append(lines)
        self._chain, self._seen = chain, seen
        return len(lines)

    def _written(self, suspects: Sequence[Draft]) -> set[str]:
        """Which of these are in the log already: their documents. Asked only after a crash, and no commit is made
        meanwhile; reads the log back from its end.

        For intents, all of one dead worker, as far as that worker's numbers are higher than theirs: in a log they
        rise, and theirs is the last before which its spool lacks nothing. For changes to the log's beginning, if
        one is not found: a new database counts from 1 again.
        """
        found: set[str] = set()
        if not suspects:
            return found
        wanted = {draft.id for draft in suspects}
        boot, sure = suspects[0].boot, suspects[0].seq
        begin = max(self.store.begin, self._seen.begun.get(boot, 0))
        number = re.compile(rb'"spool":\["%s",(\d+)\]' % re.escape(boot.encode()))
        passed, end = False, self.store.size
        while found != wanted and end > begin and not passed:
            start = max(end - LOOK_BACK, begin)
            for line in self.store.lines(start, end):
                if (match := _DOCUMENT.search(line)) and (document := match[1].decode()) in wanted:
                    found.add(document)
                if (match := number.search(line)) and int(match[1]) <= sure:
                    passed = True
            end = start
        return found

    # -- checkpoints ----------------------------------------------------------------------------------------

    def checkpoint(self) -> str:
        """The newest signed note that was saved; '' when entries have come and none was saved yet."""
        return self._note or ("" if self._chain.size else self._signer.checkpoint(self.org, 0, EMPTY_ROOT))

    @property
    def behind(self) -> bool:
        """Whether entries have come since the checkpoint was saved, or tiles are missing for those it is
        over."""
        return min(self.signed_size, self.tiles.size) < self._chain.size

    @property
    def trailing(self) -> bool:
        """Whether tiles are missing for so many entries that a checkpoint would take a while."""
        return self.store.size - self.tiles.size > FOLLOW_MAX

    def follow(self) -> None:
        """Make the tiles of the next `FOLLOW_MAX` entries that are durable. May go on beside `append`. Raises
        OSError."""
        self.tiles.follow(min(self.store.size, self.tiles.size + FOLLOW_MAX))

    def save_checkpoint(self) -> str:
        """Make the tiles, save the checkpoint over them, then the state that saves reading all at the next
        start. Returns the note. Raises OSError: the checkpoint may be saved nevertheless, and is over what is
        durable."""
        chain, seen = self._chain, self._seen
        self.tiles.follow(chain.size)
        if self.tiles.tree().hashes != chain.tree.hashes:
            raise TamperedError("the lines that were just written are not those that are read now")
        note = self._signer.checkpoint(self.org, chain.size, chain.tree.root())
        state = _state(chain, seen, self.tiles.state()[1], self.store.place())
        self.store.save(note.encode(), state)
        self._note, self.signed_size = note, chain.size
        return note

    def cosigned(self, note: str) -> bool:
        """Save `note` in place of the checkpoint: the same text and signature, others' under it. False, and
        nothing happens, when another was saved meanwhile. Raises `NoteError` for no note, OSError."""
        split_note(note)
        if not self._note or not note.startswith(self._fresh()):
            return False
        self.store.save(note.encode(), self.store.state())
        self._note = note
        return True

    def _fresh(self) -> str:
        """The checkpoint as it was signed: Ed25519 gives the same bytes again."""
        return self._note[: self._note.index("\n", self._note.index("\n\n") + 2) + 1]

    # -- retention ------------------------------------------------------------------------------------------

    def expire(self, before_ms: int) -> int:
        """Drop lines of entries older than `before_ms`, as far as whole segments allow; the first that is kept.

        Their tiles stay, so that roots and proofs of later entries hold. A crash at any step leaves a log that
        is whole from its beginning, the old one or the new one. Raises OSError.
        """
        begin = self.store.due(before_ms)
        if begin <= self.store.begin or begin > self.tiles.size:
            return self.store.begin
        for _ in self.tiles.leaves(self.store.begin, begin):
            pass  # each is verified, and made anew if it has to be: afterwards that cannot be done any more
        self.store.drop(begin, self._base(begin))
        return begin

    def _base(self, begin: int) -> bytes:
        """The state of a log of `begin` entries, as far as it follows from the tiles and the line after
        them."""
        prev = parse(next(self.store.lines(begin, begin + 1))[:-1])["prev"]
        parts, level = [], 0
        while not level or begin >> 8 * level:
            places = range(begin >> 8 * (level + 1) << 8, begin >> 8 * level)
            parts.append(b"".join([self.tiles.node(8 * level, place) for place in places]))
            level += 1
        tree = Tiles(self.store.blobs, self.store.lines, begin, parts).tree()
        return _state(Chain(tree, str(prev)), Seen(), parts, {})

    # -- recovery -------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Find where the log stands. What a torn write left is cut off; anything else that is wrong is
        refused."""
        signed = self._read_checkpoint()
        place = self._read_state()
        lines = self.store.replay(self._chain.size, place)
        self._check_signed(signed)
        for line in lines:
            try:
                entry = self._chain.accept(line, self.org)
            except ChainError as error:
                raise self.store.damaged(str(error)) from None
            self._seen.note(entry)
            self._check_signed(signed)
        if signed and signed.size > self._chain.size:
            what = f"it holds {self._chain.size} entries, but {signed.size} were signed in the checkpoint"
            raise self.store.damaged(what)
        self.store.ready()
        if signed:
            saved = self.store.checkpoint().decode()
            # One that an earlier key or another origin signed is made afresh, as one that is behind.
            if saved.startswith(self._signer.checkpoint(self.org, signed.size, signed.root)):
                self._note, self.signed_size = saved, signed.size

    def _check_signed(self, signed: Checkpoint | None) -> None:
        if signed and signed.size == self._chain.size and signed.root != self._chain.tree.root():
            raise self.store.damaged(f"its first {signed.size} entries are not those that were signed")

    def _read_checkpoint(self) -> Checkpoint | None:
        saved = self.store.checkpoint()
        if not saved:
            return None
        try:
            text, gap, _ = saved.decode("utf-8").partition("\n\n")
            return parse_checkpoint(text + gap[:1])
        except (NoteError, UnicodeDecodeError) as error:
            raise self.store.damaged(f"its checkpoint: {error}") from None

    def _read_state(self) -> Mapping[str, int]:
        """Where to begin reading. A state that is missing or unreadable costs time only: begin at the start."""
        place = self._take_state(self.store.state(), self.store.place())
        if self._chain.size >= self.store.begin:
            return place
        self._take_state(self.store.base(), {})
        if self._chain.size != self.store.begin:
            raise self.store.damaged(f"what its first {self.store.begin} entries came to is not known any more")
        return {}

    def _take_state(self, saved: bytes, places: Mapping[str, int]) -> Mapping[str, int]:
        """Go on from `saved`, if it can be read; what of it says where that stands in the store."""
        with suppress(CanonicalError, KeyError, TypeError, ValueError):
            state = parse(saved)
            if state.pop("sha256") != line_hash(canonical(state)):
                return {}
            boots: OrderedDict[str, int] = OrderedDict((str(b), int(s)) for b, s in state["boots"])  # type: ignore[attr-defined]
            tree = Tree(int(state["size"]), [bytes.fromhex(h) for h in state["tree"]])  # type: ignore[call-overload, attr-defined]
            begun = dict(zip(boots, map(int, state.get("begun", ())), strict=False))  # type: ignore[call-overload]
            chain, seen = Chain(tree, str(state["last"])), Seen(int(state["outbox"]), boots, begun)  # type: ignore[call-overload]
            place = {name: int(state[name]) for name in places}  # type: ignore[call-overload]
            self._chain, self._seen = chain, seen
            self._read_tiles(state)
            return place
        return {}

    def _read_tiles(self, state: Mapping[str, object]) -> None:
        """Where tiles go on. A state without them, or with others, costs time only: all are made anew."""
        with suppress(KeyError, TypeError, ValueError):
            parts = [b64decode(part) for part in state["tiles"]]  # type: ignore[attr-defined]
            tiles = Tiles(self.store.blobs, self.store.lines, self._chain.size, parts)
            if tiles.tree().hashes == self._chain.tree.hashes:
                self.tiles = tiles


def _state(chain: Chain, seen: Seen, tiles: Sequence[bytes], place: Mapping[str, int]) -> bytes:
    """All that a start has to know of a log up to here, one line of canonical JSON with its own hash in it."""
    state: dict[str, object] = {
        **place,
        "size": chain.size,
        "last": chain.last,
        "tree": [h.hex() for h in chain.tree.hashes],
        "tiles": [b64encode(part).decode() for part in tiles],
        "outbox": seen.outbox,
        "boots": [[boot, seq] for boot, seq in seen.boots.items()],
        "begun": [seen.begun.get(boot, 0) for boot in seen.boots],
    }
    state["sha256"] = line_hash(canonical(state))
    return canonical(state)
