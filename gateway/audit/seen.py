"""What has become an entry of one log already: how a repeat is told from something new. Pure.

A worker's receipts come in order of `seq` within its boot, so the highest seen of each boot says it all. The
outbox counts up too, but begins anew with a new database: a number at or below the last one is only a
suspicion, and the log itself is asked whether it holds that document. So it is with the intents that a dead worker
left: they have no number until they get one here, and when more has been seen of that worker than its spool
vouches for, they may have been here before. Once they are entries nothing new can come of that worker: a receipt
that was on its way when it died, and on no disk, has its intent among them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from gateway.audit.entry import Draft

BOOTS_MAX = 256
"""Boots remembered, those that something came of last: a dead worker's spool is drained before this many others
have lived, and one that cannot be drained is tried again and again."""


class Seen:
    __slots__ = ("begun", "boots", "dead", "outbox")

    def __init__(
        self, outbox: int = 0, boots: Mapping[str, int] | None = None, begun: Mapping[str, int] | None = None
    ) -> None:
        self.outbox = outbox
        self.boots: OrderedDict[str, int] = OrderedDict(boots or {})
        self.begun = dict(begun or {})
        """The first entry of each boot, as far as it is known: none of it stands before that."""
        self.dead: frozenset[str] = frozenset()
        """Boots whose intents have become entries. Not saved: what was on its way ends with this process."""

    def copy(self) -> Seen:
        copied = Seen(self.outbox, self.boots, self.begun)
        copied.dead = self.dead
        return copied

    def suspects(self, drafts: Iterable[Draft]) -> Sequence[Draft]:
        """Changes and intents that may be repeats."""
        return [draft for draft in drafts if self._suspect(draft)]

    def _suspect(self, draft: Draft) -> bool:
        if draft.orphan:
            return draft.seq < self.boots.get(draft.boot, 0)
        return not draft.boot and draft.seq <= self.outbox

    def add(self, draft: Draft, written: set[str], index: int) -> bool:
        """Whether `draft` is new; remembers it as entry `index`. `written`: documents of suspects that were found
        in the log. An orphan that is new is given its number."""
        if draft.orphan:
            if draft.id in written:
                return self._repeat(draft.boot)
            number = max(self.boots.get(draft.boot, 0), draft.seq) + 1
            draft.fields["spool"] = [draft.boot, number]
            self._boot(draft.boot, number, index)
            self.dead |= {draft.boot}
        elif draft.boot:
            if draft.seq <= self.boots.get(draft.boot, 0) or draft.boot in self.dead:
                return self._repeat(draft.boot)
            self._boot(draft.boot, draft.seq, index)
        else:
            if draft.id in written:
                return False
            self.outbox = draft.seq
        return True

    def note(self, entry: Mapping[str, object]) -> None:
        """Remember an entry that is read back from the log."""
        spool, outbox = entry.get("spool"), entry.get("outbox")
        if isinstance(spool, list) and len(spool) == 2 and isinstance(spool[1], int):
            index = entry.get("index")
            self._boot(str(spool[0]), spool[1], index if isinstance(index, int) else 0)
        elif isinstance(outbox, int):
            self.outbox = outbox

    def _repeat(self, boot: str) -> bool:
        if boot in self.boots:
            self.boots.move_to_end(boot)
        return False

    def _boot(self, boot: str, seq: int, index: int) -> None:
        if boot not in self.boots:
            self.begun[boot] = index
        self.boots[boot] = seq
        self.boots.move_to_end(boot)
        while len(self.boots) > BOOTS_MAX:
            gone, _ = self.boots.popitem(last=False)
            self.begun.pop(gone, None)
            self.dead -= {gone}
