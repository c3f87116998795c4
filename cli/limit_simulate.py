"""What `limit simulate` shows: whom a limit would have refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct, json

from cli.errors import NOT_READABLE, RefusedError, unreadable
from cli.output import Column, Format, instant
from cli.progress import progress
from cli.resources import body_of
from cli.session import Session
from tenants.amounts import sentence
from tenants.models import Limit


class Row(Struct, frozen=True):
    member: str
    model: str
    requests: int
    refused: int
    first_refused_ms: int


class Report(Struct, frozen=True):
    """What the server says at the end."""

    limit: Limit
    since: int
    until: int
    entries: int
    requests: int
    refused: int
    refused_then: int
    callers: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


class Line(Struct, frozen=True):
    """How far it is or, on the last line, what came out."""

    read: int = 0
    of: int = 0
    report: Report | None = None


COLUMNS = [
    Column("MEMBER", "member"),
    Column("MODEL", "model"),
    Column("REQUESTS", "requests"),
    Column("REFUSED", "refused"),
    Column("", "percent"),
    Column("FIRST", "first"),
]
RAW = [Column(name, name) for name in Row.__struct_fields__]


def simulate(session: Session, limit: Limit, since: int | None, until: int | None, who: Any) -> None:
    """Replay, and show what came out. `who` gives a member's e-mail address."""
    body: dict[str, Any] = {"limit": body_of(limit)}
    body |= {name: str(value) for name, value in (("since", since), ("until", until)) if value is not None}
    path = f"/admin/v1/orgs/{session.org}/limits-simulation"
    report = _read(session.client.stream("POST", path, body, what="the simulation"))
    out = session.out
    if out.form is Format.CSV:
        out.items(report.rows, RAW)
        return
    if out.form is not Format.TABLE:
        out.item(report)
        return
    out.line(_summary(report, who))
    if report.rows:
        out.line("")
        shown = [
            {
                "member": who(row.member),
                "model": row.model,
                "requests": f"{row.requests:,}",
                "refused": f"{row.refused:,}",
                "percent": _percent(row.refused, row.requests),
                "first": instant(row.first_refused_ms // 1_000),
            }
            for row in report.rows
        ]
        out.items(shown, COLUMNS)
    for note in report.notes:
        out.say(f"note: {note}")


def _read(pieces: Iterator[bytes]) -> Report:
    found: Report | None = None
    with progress("replaying", 0) as bar:
        for line in _lines(pieces):
            bar.advance(line.read, line.of or None)
            found = line.report or found
    if found is None:
        raise RefusedError("the simulation broke off before its end", "try again; look at the server's log")
    return found


def _lines(pieces: Iterator[bytes]) -> Iterator[Line]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            try:
                yield json.decode(line, type=Line)
            except NOT_READABLE as error:
                raise RefusedError(
                    f"the server's answer cannot be understood: {unreadable(error)}",
                    "compare `orgate --version` with the server's in `orgate status`",
                ) from None


def _summary(report: Report, who: Any) -> str:
    limit = report.limit
    whose = "the organization" if limit.scope == "org" else f"each {limit.scope}"
    if limit.subject:
        whose = f"{limit.scope} {who(limit.subject)}"
    refused = {(row.member, row.model) for row in report.rows}
    told = f"{sentence(limit)} for {whose}, from {instant(report.since)} to {instant(report.until)}:"
    if not report.requests:
        return f"{told}\nno requests that it is about"
    return (
        f"{told}\n{report.refused:,} of {report.requests:,} requests would have been refused"
        f" ({_percent(report.refused, report.requests)}),"
        f" in {len(refused):,} of {report.callers:,} pairs of member and model"
    )


def _percent(part: int, whole: int) -> str:
    return f"{part * 100 / whole:.1f} %" if whole else ""
