"""What the control process remembers of each day of an organization's audit log, to count it twice.

Of the control process alone: no worker reads any of it. A day is a UTC day, as days since 1970-01-01.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from tenants.budgets import BudgetUse
from tenants.ids import OrgId


class DayEntry(Struct, frozen=True):
    """The daily count of a log: entries [`start`, `end`) are all since the one before, `requests` of them are of
    requests. `at`: Unix seconds."""

    org: OrgId
    day: int
    start: int
    end: int
    requests: int
    at: int = 0


class Tally(Struct, frozen=True):
    """What one worker's boot counted of the requests that began on one day. `at`: when it last said so, Unix
    seconds; `ended`: it said so as its last word."""

    org: OrgId
    day: int
    boot: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    nanodollars: int
    at: int = 0
    ended: bool = False


class Verdict(Struct, frozen=True):
    """How a day's reconciliation ended. `differences`: figures that differ and nothing explains; `told`: whether
    the webhook was told of these."""

    org: OrgId
    day: int
    differences: int
    at: int = 0
    told: bool = False


class AuditDays(Protocol):
    """Durable when a call returns; one writer, the control process, is assumed."""

    async def last(self, org: OrgId) -> DayEntry | None:
        """The newest daily count of a log."""

    async def around(self, org: OrgId, day: int) -> tuple[int, int | None]:
        """Where in the log to look for entries of `day`: from the beginning of the count before it up to the end
        of the one after it (None: the log's)."""

    async def add(self, entry: DayEntry) -> bool:
        """Write it and the audit entry `audit.day` in one transaction; False, and nothing is written, when that
        day has been counted."""

    async def put(self, tallies: Sequence[Tally]) -> None:
        """Write what workers counted. What stands there is only ever raised."""

    async def tallies(self, org: OrgId, first: int, last: int) -> tuple[Tally, ...]:
        """Of days `first` to `last`, both included."""

    async def verdict(self, org: OrgId, day: int) -> Verdict | None: ...

    async def judged(self, verdict: Verdict, detail: Mapping[str, str | int | bool]) -> None:
        """Write it, with the audit entry `audit.reconcile` when it says something else than before."""

    async def told(self, org: OrgId, day: int) -> None:
        """The webhook knows, or is not told any more."""

    async def ended(self, org: OrgId, after: int, upto: int) -> tuple[BudgetUse, ...]:
        """Budgets of the whole organization whose window ended in (`after`, `upto`], Unix seconds."""

    async def prune(self, before: int) -> None:
        """Forget the tallies and verdicts of days before then. Daily counts stay with the log."""
