"""Who reads the audit log is in it: one entry `audit.read` for each reader and question, not one for each page.

The guard asks before any handler runs, for every operation that reads the log: a new endpoint cannot forget it.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from tenants.ids import OrgId
from tenants.roles import Operation
from tenants.store import Actor, OrgStore

READS: Final = frozenset({Operation.AUDIT_READ, Operation.AUDIT_EXPORT})
NOTED: Final = "noted"
"""Key of a handler's `opt`: it writes an entry of its own, or shows nothing that is anybody's (the checkpoint and
the key, which are meant to be published)."""

AGAIN_S: Final = 3_600
"""Whoever goes on reading the same is written down once in so long."""

REMEMBERED: Final = 4_096
TEXT_MAX: Final = 128
FILTERS_MAX: Final = 16
_PLACES: Final = frozenset({"after", "limit", "wait_s", "start", "end", "index", "size", "old", "new"})
"""Where in the log, and how much of it at once: pages of one question."""
_NAME: Final = re.compile(r"[a-z_]{1,32}")
_EMAIL: Final = re.compile(r"[^\s,@]+@[^\s,@]*")
_WHAT: Final = re.compile(r"/audit/([a-z_-]{1,32})")

Question = tuple[OrgId, OrgId, str, str, tuple[tuple[str, str], ...]]


class ReadNotes:
    """What has been written down lately. Forgotten when the process ends: then it is written once more."""

    def __init__(self) -> None:
        self._noted: OrderedDict[Question, float] = OrderedDict()
        self._turn = asyncio.Lock()

    async def note(
        self, store: OrgStore, by: Actor, path: str, query: Iterable[tuple[str, str]], now: float
    ) -> None:
        """Write down that `by` reads the log of `store`, unless that was done within `AGAIN_S`.

        Durable when it returns: what cannot be written down is not read. `now`: Unix seconds. Errors: as
        `OrgStore.note`.
        """
        found = _WHAT.search(path)
        what = found[1] if found else "log"
        question = (store.org, by.org, by.member, what, filters(query))
        async with self._turn:
            at = self._noted.get(question)
            if at is not None and at <= now < at + AGAIN_S:
                return
            await store.note("audit.read", what, by, dict(question[4]))
            self._noted[question] = now
            self._noted.move_to_end(question)
            while len(self._noted) > REMEMBERED:
                self._noted.popitem(last=False)


def filters(query: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """What was asked for, in one order, without what says which page of it."""
    asked = [
        (name, kept(value)) for name, value in query if value and name not in _PLACES and _NAME.fullmatch(name)
    ]
    return tuple(sorted(asked)[:FILTERS_MAX])


def kept(text: str) -> str:
    """`text` as an entry may hold it: what stays for years, and cannot be erased, has no e-mail address in it that
    somebody typed where a member's id was asked for."""
    return _EMAIL.sub("(e-mail)", text[:TEXT_MAX])
