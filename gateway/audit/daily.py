"""The daily count: once a UTC day and organization an entry `audit.day` that says how many entries there were.

`{"day": "2026-11-21", "start": a, "end": b, "requests": n}`: entries [a, b) are all since the count before (from
0 on at the first), and n of them are of requests. A count ends behind the last entry that says it is of its day or
of one before; a request that began on the day and ended after the count is in the next one. A day of which nothing
stands there but these counts themselves, and what was found out about them, has none.

A count and its entry are one transaction of the control store. Crash before it: the next look makes it. After: it
is in the outbox, and becomes an entry once. A control store that was put back from a copy knows less than the log:
the counts that stand in the log count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import date
from typing import Final, Protocol

import msgspec
from msgspec import Struct, field

from tenants.auditdays import AuditDays, DayEntry
from tenants.ids import OrgId

DAY_MS: Final = 86_400_000
EPOCH: Final = date(1970, 1, 1)
OWN: Final = frozenset({"audit.day", "audit.reconcile"})
"""What the gateway writes about days: no day is counted for these alone, or counting would never end."""


class Lines(Protocol):
    """The part of a log's reader that counting needs (`gateway.audit.reader.LogReader`)."""

    async def size(self, org: OrgId) -> int: ...
    def raw(self, org: OrgId, start: int, end: int) -> AsyncIterator[bytes]: ...


class Glance(Struct, frozen=True):
    """What counting looks at of an entry. `spool`: it is of a request, which a worker's boot served."""

    index: int
    at: int = field(name="@timestamp")
    action: str
    actor: str = ""
    actor_org: str = ""
    target: str = ""
    spool: list[str | int] | None = None
    outcome: str = ""
    model: str = ""
    client: str = ""
    sent: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nanodollars: int = 0
    total_us: int = 0
    detail: msgspec.Raw = msgspec.Raw()

    @property
    def day(self) -> int:
        """Days since 1970-01-01, UTC."""
        return self.at // DAY_MS


class _Counted(Struct, frozen=True):
    """`detail` of a daily count."""

    day: str
    end: int


_glance: Final = msgspec.json.Decoder(Glance)
_counted: Final = msgspec.json.Decoder(_Counted)


def glances(lines: bytes) -> Iterator[Glance]:
    """The entries of whole lines. They were judged when they were written: one that cannot be read is a
    programming error, and raises `msgspec.ValidationError`."""
    return map(_glance.decode, lines.splitlines())


def day_of(text: str) -> int:
    """Days since 1970-01-01 of `2026-11-21`. Raises `ValueError`."""
    found = date.fromisoformat(text)
    if found.isoformat() != text:
        raise ValueError(f"{text[:32]!r} is no day: write {found}")
    return (found - EPOCH).days


class Survey:
    """Goes once over the entries behind a count, and says where the days in them end."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.newest: tuple[int, int] = (-1, 0)
        """Day and end of the newest count that stands in the log."""
        self._requests = 0
        self._ends: dict[int, tuple[int, int]] = {}  # day → (behind its last entry, requests up to there)
        self._busy: set[int] = set()

    def feed(self, lines: bytes) -> None:
        for entry in glances(lines):
            if entry.spool is not None:
                self._requests += 1
            self._ends[entry.day] = entry.index + 1, self._requests
            if entry.action not in OWN:
                self._busy.add(entry.day)
            elif entry.action == "audit.day":
                found = _counted.decode(entry.detail)
                self.newest = max(self.newest, (day_of(found.day), found.end))

    def counts(self, org: OrgId, after: int, upto: int) -> Iterator[DayEntry]:
        """Of days behind `after`, `upto` included."""
        start, counted = self.start, 0
        end, requests = self.start, 0
        for day in sorted(day for day in self._ends if day <= upto):
            end, requests = max((end, requests), self._ends[day])
            if day > after and day in self._busy and end > start:
                yield DayEntry(org, day, start, end, requests - counted)
                start, counted = end, requests


async def count_days(lines: Lines, days: AuditDays, org: OrgId, upto: int) -> int:
    """Make the daily counts of `org` that are missing, up to the day `upto`; how many those were.

    Errors: `tenants.store.StoreError`, and OSError of a log that cannot be read.
    """
    last = await days.last(org)
    day, start = (-1, 0) if last is None else (last.day, last.end)
    if day >= upto:
        return 0
    size = await lines.size(org)
    survey = await _survey(lines, org, start if start <= size else 0, size)
    if survey.newest[0] > day:  # the store is older than the log
        day, start = survey.newest
        survey = await _survey(lines, org, start, size)
    made = 0
    for entry in survey.counts(org, day, upto):
        made += await days.add(entry)
    return made


async def _survey(lines: Lines, org: OrgId, start: int, size: int) -> Survey:
    survey = Survey(start)
    async for piece in lines.raw(org, start, size):
        await asyncio.to_thread(survey.feed, piece)
    return survey
