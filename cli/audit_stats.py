"""`orgate audit stats` and `orgate audit reconcile`: what the log adds up to, and whether its days agree."""

from __future__ import annotations

import time
from datetime import date
from typing import Annotated, Any, Final

import typer
from msgspec import Struct

from cli.audit_log import Since, Until, bounds, path
from cli.command import command
from cli.errors import RefusedError, UsageError
from cli.examples import examples
from cli.output import Column, Format, instant, printable
from cli.session import Session

GROUPS: Final = ("actions", "outcomes", "models", "clients", "actors")
SUMS: Final = (
    "entries",
    "requests",
    "bytes_in",
    "bytes_out",
    "prompt_tokens",
    "completion_tokens",
    "cost_nanodollars",
)
TOP: Final = 20
NANO: Final = 1_000_000_000


class StatsPage(Struct, frozen=True):
    """As the admin API tells it; times are Unix milliseconds."""

    next: int
    entries: int
    requests: int
    bytes_in: int
    bytes_out: int
    prompt_tokens: int
    completion_tokens: int
    cost_nanodollars: int
    first_at: int
    last_at: int
    actions: dict[str, int]
    outcomes: dict[str, int]
    models: dict[str, int]
    clients: dict[str, int]
    actors: dict[str, int]


class Figures(Struct, frozen=True):
    requests: int
    prompt_tokens: int
    completion_tokens: int
    nanodollars: int


class WorkerFigures(Struct, frozen=True):
    boot: str
    state: str
    entries: Figures
    counted: Figures
    last_report_at: int


class BudgetFigures(Struct, frozen=True):
    limit: str
    unit: str
    starts_at: int
    ends_at: int
    used: int
    least: int
    most: int
    remark: str


class Reconciliation(Struct, frozen=True):
    org: str
    day: str
    judged: bool
    ok: bool
    entries: Figures
    counted: Figures
    unreported: Figures
    unknown: int
    differences: int
    workers: tuple[WorkerFigures, ...]
    budgets: tuple[BudgetFigures, ...]
    faults: tuple[str, ...]
    remarks: tuple[str, ...]


COUNTS: Final = [Column("OF", "of"), Column("VALUE", "value"), Column("COUNT", "count")]
SIDES: Final = [
    Column("FIGURE", "figure"),
    Column("ENTRIES", "entries"),
    Column("COUNTED", "counted"),
    Column("UNREPORTED", "unreported"),
]
BUDGETS: Final = [
    Column("BUDGET", "limit"),
    Column("UNIT", "unit"),
    Column("USED", "used"),
    Column("LEAST", "least"),
    Column("MOST", "most"),
    Column("REMARK", "remark"),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `orgate audit`."""

    @command(
        app,
        examples(
            "orgate audit stats",
            "orgate audit stats --since 2026-01-01 --until 2026-02-01 --output json",
        ),
    )
    def stats(
        session: Session,
        *,
        since: Since = None,
        until: Until = None,
    ) -> None:
        """Count the entries by action, outcome, model, client and actor; bytes, tokens and cost.

        The table shows the 20 most frequent of each, json all.
        """
        _show_stats(session, _sum_up(session, bounds(since, until, time.time())))

    @command(
        app,
        examples(
            "orgate audit reconcile",
            "orgate audit reconcile --day 2026-01-31 --output json",
        ),
    )
    def reconcile(
        session: Session,
        *,
        day: Annotated[
            str | None, typer.Option(help="Which UTC day, e.g. 2026-01-31; else yesterday.", metavar="DATE")
        ] = None,
    ) -> None:
        """Show a day's requests in the log beside what workers counted and budgets were charged.

        Exit code 1, and what differs, when they do not agree.
        """
        if day is not None and not _is_day(day):
            raise UsageError(f"--day {printable(day)} is no day", "write 2026-01-31")
        params: dict[str, str | int] = {"day": day} if day else {}
        found = session.client.read(path(session, "reconcile"), what="the audit log", params=params).decode(
            Reconciliation
        )
        _show_day(session, found)
        if not found.ok:
            faults = [printable(text) for text in found.faults]
            raise RefusedError("\n  ".join([f"the figures of {found.day} do not agree", *faults]))


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _sum_up(session: Session, times: dict[str, int]) -> dict[str, Any]:
    """All pages, added up."""
    total: dict[str, Any] = {**dict.fromkeys(SUMS, 0), "first_at": 0, "last_at": 0}
    groups: dict[str, dict[str, int]] = {name: {} for name in GROUPS}
    after = -1
    following = 0
    while following != after:
        after = following
        page = session.client.read(
            path(session, "stats"),
            what="the audit log",
            params={**times, "after": after},
        ).decode(StatsPage)
        if page.entries:
            total["first_at"] = min(total["first_at"] or page.first_at, page.first_at)
            total["last_at"] = max(total["last_at"], page.last_at)
        for name in SUMS:
            total[name] += getattr(page, name)
        for name in GROUPS:
            for value, count in getattr(page, name).items():
                groups[name][value] = groups[name].get(value, 0) + count
        following = page.next
    ordered = {name: dict(sorted(found.items(), key=_most_first)) for name, found in groups.items()}
    return {**total, **ordered}


def _most_first(one: tuple[str, int]) -> tuple[int, str]:
    return -one[1], one[0]


def _show_stats(session: Session, total: dict[str, Any]) -> None:
    rows = [
        {"of": name[:-1], "value": value, "count": count}
        for name in GROUPS
        for value, count in total[name].items()
    ]
    if session.out.form is Format.CSV:
        session.out.items(rows, COUNTS)
        return
    if session.out.form is not Format.TABLE:
        session.out.item({**total, "first_at": total["first_at"] // 1000, "last_at": total["last_at"] // 1000})
        return
    shown = {name: total[name] for name in SUMS if name != "cost_nanodollars"}
    cost = f"{total['cost_nanodollars'] / NANO:.9f}".rstrip("0").rstrip(".")
    times = {"first_at": total["first_at"] // 1000, "last_at": total["last_at"] // 1000}
    session.out.item({**shown, "cost": f"{cost} USD", **times})
    for name in GROUPS:
        found = [row for row in rows if row["of"] == name[:-1]]
        if found:
            session.out.line("")
            session.out.items(found[:TOP], COUNTS)
        if len(found) > TOP:
            session.out.say(f"{len(found) - TOP} more {name}")


def _show_day(session: Session, found: Reconciliation) -> None:
    if session.out.form is not Format.TABLE:
        session.out.item(found)
        return
    session.out.line(f"{found.org}, {found.day} (UTC)" + ("" if found.judged else ", not over"))
    sides = [
        {
            "figure": name,
            "entries": getattr(found.entries, name),
            "counted": getattr(found.counted, name),
            "unreported": getattr(found.unreported, name),
        }
        for name in Figures.__struct_fields__
    ]
    session.out.items(sides, SIDES)
    if found.budgets:
        session.out.line("")
        session.out.items(found.budgets, BUDGETS)
    lost = [one for one in found.workers if one.state == "lost"]
    for one in lost:
        last = instant(one.last_report_at) or "never"
        session.out.say(f"worker {printable(one.boot[:8])} was lost; its last report: {last}")
    for text in found.remarks:
        session.out.say(printable(text))
    if found.ok and found.judged:
        session.out.say("all figures agree")
