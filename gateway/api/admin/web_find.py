"""What the audit log's page shows: a filter as a form gives it, a stretch of entries, how many there are when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from gateway.api.admin.audit import MAX_INDEX, OUTCOMES, milliseconds
from gateway.api.admin.problems import ProblemError
from gateway.audit.log import AuditReader
from tenants.ids import OrgId

TEXTS: Final = ("actor", "action", "model", "client")
PAGE: Final = 50
ROUNDS: Final = 5
"""How often the log is asked for one page: a filter that matches little reads on at the person's word."""

TIMELINE_FROM_END: Final = 20_000
"""Entries from the end that a timeline counts when no place and no time was given."""
TIMELINE_MAX: Final = 100_000
"""Entries that one timeline looks at."""

_HOUR, _DAY, _WEEK = 3_600, 86_400, 7 * 86_400
_HOURS_MAX, _DAYS_MAX = 96, 180
_MONDAY: Final = 4 * _DAY  # 1970-01-05
_FINE: Final = frozenset({"served", "cancelled_by_client", "superseded"})
"""Outcomes that are nobody's no and no fault."""


class Filter(Struct, frozen=True):
    """As typed, so that the form shows it again. `since` and `until`: `milliseconds` reads them. `faults`: field
    and what is wrong with it."""

    since: str = ""
    until: str = ""
    actor: str = ""
    action: str = ""
    model: str = ""
    client: str = ""
    outcome: str = ""
    after: int | None = None
    faults: tuple[tuple[str, str], ...] = ()

    @property
    def any(self) -> bool:
        """Whether some entries are left out."""
        return any(getattr(self, name) for name in (*TEXTS, "since", "until", "outcome"))

    def asked(self) -> dict[str, str | int]:
        """Keyword arguments of `AuditReader.entries`."""
        texts: dict[str, str | int] = {name: getattr(self, name) for name in (*TEXTS, "outcome")}
        return {**texts, "since": milliseconds("since", self.since), "until": milliseconds("until", self.until)}

    def query(self, **changes: str | int) -> dict[str, str | int]:
        """The parameters of a link that asks the same, but for `changes`."""
        names = (*TEXTS, "outcome", "since", "until")
        return {name: value for name in names if (value := getattr(self, name))} | changes


def read_filter(query: Mapping[str, str]) -> Filter:
    """The form's filter; what is wrong with a field is in `faults`, and the field counts as empty."""
    given = {name: query.get(name, "").strip()[:128] for name in (*TEXTS, "since", "until", "outcome")}
    faults: list[tuple[str, str]] = []
    for name in ("since", "until"):
        try:
            milliseconds(name, given[name])
        except ProblemError:
            faults.append((name, "is not a time; write 2026-01-31T12:00, which is UTC"))
            given[name] = ""
    if given["outcome"] and given["outcome"] not in OUTCOMES:
        faults.append(("outcome", "is not one of those offered"))
        given["outcome"] = ""
    after, place = None, query.get("after", "").strip()
    if place.isascii() and place.isdecimal() and len(place) <= 16 and int(place) <= MAX_INDEX:
        after = int(place)
    elif place:
        faults.append(("after", "is not the number of an entry"))
    return Filter(**given, after=after, faults=tuple(faults))


class Found(Struct, frozen=True):
    """Entries that match among [`start`, `next`) of `size`; `more`: there are entries after those. `first`: the
    first entry that is kept still."""

    items: tuple[Mapping[str, object], ...]
    start: int
    next: int
    size: int
    first: int = 0

    @property
    def more(self) -> bool:
        return self.next < self.size


async def find(audit: AuditReader, org: OrgId, wanted: Filter) -> Found:
    """A page: from `wanted.after` on, or without a filter the last one."""
    first, size = await audit.range(org)
    start = wanted.after
    if start is None:
        start = first if wanted.any else max(size - PAGE, first)
    items: list[Mapping[str, object]] = []
    asked, at = wanted.asked(), start
    for _ in range(ROUNDS):
        found, following = await audit.entries(org, after=at, limit=PAGE - len(items), **asked)  # type: ignore[arg-type]
        items += found
        ended, at = following == at, following
        if ended or len(items) >= PAGE:
            break
    return Found(tuple(items), start, at, max(size, at), first)


class Bar(Struct, frozen=True):
    """`at`: where it begins, Unix seconds. `wrong`: of `count`, those refused or failed."""

    at: int
    count: int
    wrong: int


class Timeline(Struct, frozen=True):
    """How many matching entries of [`start`, `end`) fell into each `unit_s` seconds. `complete`: to the end."""

    unit_s: int
    bars: tuple[Bar, ...]
    start: int
    end: int
    complete: bool


async def timeline(audit: AuditReader, org: OrgId, wanted: Filter) -> Timeline:
    """By the hour, or where there are too many of those by the day, then by the week (from Monday, UTC)."""
    first, size = await audit.range(org)
    start = wanted.after
    if start is None:
        start = first if wanted.since or wanted.until else max(size - TIMELINE_FROM_END, first)
    every: Counter[int] = Counter()
    wrong: Counter[int] = Counter()
    asked, at = wanted.asked(), start
    while at - start < TIMELINE_MAX:
        found, following = await audit.entries(org, after=at, limit=1_000, **asked)  # type: ignore[arg-type]
        for entry in found:
            stamp = entry.get("@timestamp")
            hour = stamp // 1_000 // _HOUR * _HOUR if isinstance(stamp, int) else 0
            every[hour] += 1
            wrong[hour] += _is_wrong(entry)
        if following == at:
            break
        at = following
    unit = _unit(every)
    folded, bad = _folded(every, unit), _folded(wrong, unit)
    bars = tuple(Bar(at, folded[at], bad[at]) for at in sorted(folded))
    return Timeline(unit, bars, start, at, at >= size)


def _is_wrong(entry: Mapping[str, object]) -> bool:
    outcome = entry.get("outcome")
    return outcome not in _FINE if isinstance(outcome, str) else str(entry.get("action", "")).endswith(".refuse")


def _unit(every: Counter[int]) -> int:
    span = (max(every) - min(every)) if every else 0
    if span < _HOURS_MAX * _HOUR:
        return _HOUR
    return _DAY if span < _DAYS_MAX * _DAY else _WEEK


def _folded(counts: Counter[int], unit: int) -> Counter[int]:
    offset = _MONDAY if unit == _WEEK else 0
    folded: Counter[int] = Counter()
    for hour, count in counts.items():
        folded[(hour - offset) // unit * unit + offset] += count
    return folded
