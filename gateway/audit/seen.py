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
from collections.abc import Iterable, Mapping

from gateway.audit.entry import Draft

BOOTS_MAX = 256
"""Boots remembered: a dead worker's spool is drained at once, not after this many others have lived."""


class Seen:
    __slots__ = ("boots", "dead", "outbox")

    def __init__(self, outbox: int = 0, boots: Mapping[str, int] | None = None) -> None:
        self.outbox = outbox
        self.boots: OrderedDict[str, int] = OrderedDict(boots or {})
        self.dead: frozenset[str] = frozenset()
        """Boots whose intents have become entries. Not saved: what was on its way ends with this process."""

    def copy(self) -> Seen:
        copied = Seen(self.outbox, self.boots)
        copied.dead = self.dead
        return copied

    def suspects(self, drafts: Iterable[Draft]) -> set[str]:
        """Document ids of changes and intents that may be repeats."""
        return {draft.id for draft in drafts if self._suspect(draft)}

    def _suspect(self, draft: Draft) -> bool:
        if draft.orphan:
            return draft.seq < self.boots.get(draft.boot, 0)
        return not draft.boot and draft.seq <= self.outbox

    def add(self, draft: Draft, written: set[str]) -> bool:
        """Whether `draft` is new; remembers it. `written`: suspects that were found in the log. An orphan that is
        new is given its number."""
        if draft.orphan:
            if draft.id in written:
                return False
            number = max(self.boots.get(draft.boot, 0), draft.seq) + 1
            draft.fields["spool"] = [draft.boot, number]
            self._boot(draft.boot, number)
            self.dead |= {draft.boot}
        elif draft.boot:
            if draft.seq <= self.boots.get(draft.boot, 0) or draft.boot in self.dead:
                return False
            self._boot(draft.boot, draft.seq)
        else:
            if draft.id in written:
                return False
            self.outbox = draft.seq
        return True

    def note(self, entry: Mapping[str, object]) -> None:
        """Remember an entry that is read back from the log."""
        spool, outbox = entry.get("spool"), entry.get("outbox")
        if isinstance(spool, list) and len(spool) == 2 and isinstance(spool[1], int):
            self._boot(str(spool[0]), spool[1])
        elif isinstance(outbox, int):
            self.outbox = outbox

    def _boot(self, boot: str, seq: int) -> None:
        self.boots[boot] = seq
        self.boots.move_to_end(boot)
        while len(self.boots) > BOOTS_MAX:
            self.dead -= {self.boots.popitem(last=False)[0]}
