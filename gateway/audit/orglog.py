"""One organization's log: drafts become lines of its chain, durable in a `LogStore`, signed in checkpoints.

Synchronous: the sequencer calls it in a thread, one call at a time per log. Order of one commit, and what a
crash at each step leaves:

1. entries are sealed against the chain as it was last made durable (memory only). Crash: nothing.
2. the store makes their lines durable. Crash before that: nothing, or whole lines that were never acknowledged
   and count from the next start on (the sender will repeat them and be recognised). What each store leaves in
   between is written there.
3. the chain and what was seen move on in memory; then the sender is told. Crash: it was not told, repeats, is
   recognised.
4. at most 10 s later the checkpoint is replaced, then the state, which only saves reading the log from its
   beginning. Crash between: the next start reads from the older state.

Nothing durable is ever rewritten, so no two entries can claim one place.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from gateway.audit.canonical import CanonicalError, canonical, parse
from gateway.audit.chain import Chain, ChainError, line_hash
from gateway.audit.entry import Draft
from gateway.audit.line import spell
from gateway.audit.log_store import LogStore
from gateway.audit.merkle import Tree
from gateway.audit.note import Checkpoint, NoteError, parse_checkpoint
from gateway.audit.seen import Seen
from gateway.audit.signer import Signer
from tenants.ids import OrgId

LOOK_BACK = 16_384
"""Lines that a search for a repeat reads at a time, the newest first."""
_DOCUMENT = re.compile(rb'"_document_id":"([^"]*)"')


class OrgLog:
    def __init__(self, store: LogStore, org: OrgId, signer: Signer) -> None:
        """Recover what the store has. Raises `DamagedError`, OSError."""
        self.org = org
        self.store = store
        self._signer = signer
        self._chain = Chain()
        self._seen = Seen()
        self._signed_size = 0
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
            if seen.add(draft, known)
        ]
        if lines:
            self.store.append(lines)
        self._chain, self._seen = chain, seen
        return len(lines)

    def _written(self, suspects: set[str]) -> set[str]:
        """Which of these document ids are in the log already. Reads all of it: asked only after a crash."""
        found: set[str] = set()
        end = self.store.size
        while found != suspects and end > self.store.begin:
            start = max(end - LOOK_BACK, self.store.begin)
            for line in self.store.lines(start, end):
                if (match := _DOCUMENT.search(line)) and (document := match[1].decode()) in suspects:
                    found.add(document)
            end = start
        return found

    # -- checkpoints ----------------------------------------------------------------------------------------

    def checkpoint(self) -> str:
        """A signed note over everything durable."""
        chain = self._chain
        return self._signer.checkpoint(self.org, chain.size, chain.tree.root())

    @property
    def behind(self) -> bool:
        """Whether entries have come since the checkpoint was saved."""
        return self._signed_size < self._chain.size

    def save_checkpoint(self) -> None:
        """Save the checkpoint, then the state that saves reading all at the next start."""
        chain, seen = self._chain, self._seen
        note = self._signer.checkpoint(self.org, chain.size, chain.tree.root())
        state: dict[str, object] = {
            **self.store.place(),
            "size": chain.size,
            "last": chain.last,
            "tree": [h.hex() for h in chain.tree.hashes],
            "outbox": seen.outbox,
            "boots": [[boot, seq] for boot, seq in seen.boots.items()],
        }
        state["sha256"] = line_hash(canonical(state))
        self.store.save(note.encode(), canonical(state))
        self._signed_size = chain.size

    # -- recovery -------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Find where the log stands. What a torn write left is cut off; anything else that is wrong is refused."""
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
        if signed:
            self._signed_size = signed.size
        self.store.ready()

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
        with suppress(CanonicalError, KeyError, TypeError, ValueError):
            state = parse(self.store.state())
            if state.pop("sha256") != line_hash(canonical(state)):
                return {}
            boots: OrderedDict[str, int] = OrderedDict((str(b), int(s)) for b, s in state["boots"])  # type: ignore[attr-defined]
            tree = Tree(int(state["size"]), [bytes.fromhex(h) for h in state["tree"]])  # type: ignore[call-overload, attr-defined]
            chain, seen = Chain(tree, str(state["last"])), Seen(int(state["outbox"]), boots)  # type: ignore[call-overload]
            place = {name: int(state[name]) for name in self.store.place()}  # type: ignore[call-overload]
            self._chain, self._seen = chain, seen
            return place
        return {}
