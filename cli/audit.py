"""`orgate audit`: follow and query an organization's audit log; what else there is has files of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from msgspec import Struct, json

from cli import (
    audit_consistency,
    audit_export,
    audit_key,
    audit_prompt,
    audit_prove,
    audit_stats,
    audit_store,
    audit_stream,
    audit_verify,
    audit_witness,
)
from cli.audit_log import Action, Actor, Client, Model, Outcome, Since, Until, bounds, moment, path, size_of
from cli.command import command
from cli.errors import UsageError
from cli.examples import examples
from cli.output import Column, Format, instant, printable
from cli.session import Session

app = typer.Typer(
    help="The audit log: follow, query, export, verify, prove; witnesses, streams, holds; erase a person.",
    epilog=examples(
        "orgate audit tail -f",
        "orgate audit query --outcome refused --since 7d",
        "orgate audit export acme-audit",
        "orgate audit verify acme-audit",
        "orgate audit prove 4711",
        "orgate audit erase --person mem_0123456789abcdefghjk",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(audit_witness.app, name="witness")
app.add_typer(audit_stream.app, name="stream")

LONG_POLL_S = 25
PAGE = 500


def _when(milliseconds: Any) -> str:
    return instant(milliseconds // 1000) if isinstance(milliseconds, int) else ""


COLUMNS = [
    Column("TIME", "@timestamp", _when),
    Column("INDEX", "index"),
    Column("ACTOR", "actor"),
    Column("ACTION", "action"),
    Column("TARGET", "target"),
    Column("MODEL", "model"),
    Column("OUTCOME", "outcome"),
    Column("STATUS", "status"),
    Column("REQUEST", "request_id"),
]


class Entries(Struct, frozen=True):
    """A page of entries, and where to go on from."""

    items: list[dict[str, Any]]
    next: int


@command(
    app,
    examples(
        "orgate audit tail",
        "orgate audit tail -f --output json",
        "orgate audit tail -n 100 --action key.write --since 7d",
    ),
)
def tail(
    session: Session,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new entries as they come.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", help="How many of the last.", min=0, max=10_000)] = 10,
    action: Action = None,
    actor: Actor = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Show the last entries of the audit log, and with -f those that come.

    With -f, json is one entry a line.
    """
    if follow and session.out.form not in (Format.TABLE, Format.JSON):
        raise UsageError("-f prints a table or json", "leave out --output, or say --output json")
    filters: dict[str, str | int] = {key: value for key, value in (("action", action), ("actor", actor)) if value}
    for name, text in (("since", since), ("until", until)):
        if text:
            filters[name] = moment(text, time.time())
    size = _size(session)
    start = 0 if filters else max(size - lines, 0)
    last: deque[dict[str, Any]] = deque(maxlen=lines)
    position = start
    for page in _pages(session, start, filters):
        last.extend(page.items)
        position = page.next
    if not follow:
        session.out.items(last, COLUMNS, empty="no such entries")
        return
    for entry in last:
        _line(session, entry)
    try:
        while True:
            page = _page(session, position, {**filters, "wait_s": LONG_POLL_S})
            position = page.next
            for entry in page.items:
                _line(session, entry)
    except KeyboardInterrupt:
        return


@command(
    app,
    examples(
        "orgate audit query --outcome refused --since 7d",
        "orgate audit query --model code --client continue --limit 1000 --output csv",
        "orgate audit query --since 2026-01-01 --until 2026-02-01 --actor mem_0123456789abcdefghjk --output json",
    ),
)
def query(
    session: Session,
    *,
    since: Since = None,
    until: Until = None,
    actor: Actor = None,
    action: Action = None,
    outcome: Outcome = None,
    model: Model = None,
    client: Client = None,
    limit: Annotated[int, typer.Option(help="At most so many, the oldest first.", min=1, max=100_000)] = 1_000,
) -> None:
    """Find entries of the audit log, the oldest first; all filters have to match.

    Says so on stderr when there are more than --limit.
    """
    given = {"action": action, "actor": actor, "outcome": outcome, "model": model, "client": client}
    filters: dict[str, str | int] = {key: value for key, value in given.items() if value}
    times = bounds(since, until, time.time())
    found: list[dict[str, Any]] = []
    for page in _pages(session, 0, {**filters, **times}):
        found.extend(page.items)
        if len(found) > limit:
            session.out.say(f"there are more than {limit}: narrow it down, or give a higher --limit")
            break
    session.out.items(found[:limit], COLUMNS, empty="no such entries")


# In the order in which the help lists them: look, prove, people.
audit_stats.register(app)
audit_export.register(app)
audit_key.register(app)
audit_prompt.register(app)
audit_verify.register(app)
audit_prove.register(app)
audit_consistency.register(app)
audit_store.register(app)


@command(app, examples("orgate audit persons", "orgate audit persons --output json > acme-persons.json"))
def persons(session: Session) -> None:
    """Show who is behind the pseudonyms in the entries: members, those of before too, but for who was erased.

    With json each comes with the key that proves it, for whoever has a pack.
    """
    from cli.erasure import show_people

    show_people(session)


@command(
    app,
    examples(
        "orgate audit erase --person mem_0123456789abcdefghjk",
        "orgate audit erase --person mem_0123456789abcdefghjk --dry-run",
        "orgate audit erase --person mem_0123456789abcdefghjk --yes --output json",
    ),
    writes=True,
)
def erase(
    session: Session,
    *,
    person: Annotated[str, typer.Option(help="Whom: the id of a former member (mem_...).", metavar="MEMBER")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase a former member from the audit log, for good; delete the member first.

    Destroys the key that leads from the pseudonym in the entries back to them. No entry changes: packs and
    checkpoints of before verify as they did. The erasure is an entry too, which does not say who it was.
    """
    from cli.erasure import erase_person

    erase_person(session, person, yes=yes)


def _size(session: Session) -> int:
    return size_of(session.client.read(path(session, "checkpoint"), what="the checkpoint").body.decode())


def _page(session: Session, after: int, params: dict[str, str | int]) -> Entries:
    asked = {**params, "after": after, "limit": PAGE}
    return session.client.read(path(session, "entries"), what="the audit log", params=asked).decode(Entries)


def _pages(session: Session, after: int, params: dict[str, str | int]) -> Iterator[Entries]:
    """Pages until the end of what there is now: a page that does not move on."""
    while True:
        page = _page(session, after, params)
        yield page
        if page.next <= after:
            return
        after = page.next


def _line(session: Session, entry: dict[str, Any]) -> None:
    if session.out.form is Format.JSON:
        session.out.line(json.encode(entry).decode())
    else:
        shown = [printable(str(entry.get(c.field, ""))) for c in COLUMNS[1:]]
        session.out.line("  ".join([_when(entry.get("@timestamp")), *(text for text in shown if text)]))
