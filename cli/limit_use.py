"""What `limit usage`, `reset` and `top` show: how much of each bucket is used."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from cli.client import Client
from cli.errors import NotAllowedError, NotFoundError, RefusedError, UnreachableError
from cli.output import Column, Format, instant, printable
from cli.session import Session
from tenants.amounts import number, quantity
from tenants.models import LimitUnit

ROWS = 1_000


class Bucket(Struct, frozen=True):
    """One bucket, as the admin API tells it."""

    limit: str
    subject: str
    unit: LimitUnit
    amount: int
    burst: int
    period_s: int
    left: int
    used: int
    lent: int
    open: int
    workers: int
    starts_at: int
    resets_at: int
    platform: bool


class LimitUse(Struct, frozen=True):
    items: tuple[Bucket, ...]
    buckets: int


class LimitReset(Struct, frozen=True):
    buckets: int


RAW = [Column(name, name) for name in Bucket.__struct_fields__]
SHOWN = [
    Column("LIMIT", "limit"),
    Column("SUBJECT", "subject"),
    Column("HOLDS", "holds"),
    Column("USED", "used"),
    Column("", "percent"),
    Column("LEFT", "left"),
    Column("LENT", "lent"),
    Column("OPEN", "open"),
    Column("RESETS AT", "resets"),
]


def read(session: Session, path: str, what: str, **params: str | int | None) -> LimitUse:
    given = {key: value for key, value in params.items() if value is not None}
    return session.client.read(path, what=what, params=given).decode(LimitUse)


def show(session: Session, use: LimitUse, buckets: Sequence[Bucket], *, empty: str) -> None:
    """`buckets` of `use`: a table for people, every field for programs."""
    if session.out.form is not Format.TABLE:
        session.out.items(buckets, RAW)
        return
    session.out.items(rows(buckets, names_of(session)), SHOWN, empty=empty)
    if len(buckets) < use.buckets:
        session.out.say(f"{use.buckets - len(buckets)} more buckets are in use")


def names_of(session: Session) -> Callable[[str], str]:
    """E-mail addresses of members by id, or their names for whoever may see no more, asked for when first needed;
    the id of one who is gone, and of those beyond the first fifty."""
    known: dict[str, str] = {}
    org = f"/admin/v1/orgs/{session.org}"

    def name(subject: str) -> str:
        if subject not in known and subject.startswith("mem_") and len(known) < 50:
            known[subject] = _who(session.client, org, subject) or subject
        return known.get(subject, subject) or "all"

    return name


def rows(buckets: Sequence[Bucket], name: Callable[[str], str]) -> list[dict[str, str]]:
    """As people read them."""
    return [
        {
            "limit": one.limit,
            "subject": name(one.subject),
            "holds": quantity(_holds(one), one.unit),
            "used": number(one.used, one.unit),
            "percent": f"{share(one) * 100:.0f} %",
            "left": number(one.left, one.unit),
            "lent": number(one.lent, one.unit) if one.lent else "",
            "open": number(one.open, one.unit) if one.open else "",
            "resets": instant(one.resets_at),
        }
        for one in buckets
    ]


def share(one: Bucket) -> float:
    """How much of the bucket is used or reserved, 0 to 1 and, in debt, more."""
    return (one.used + one.open) / max(_holds(one), 1)


def watch(
    look: Callable[[], list[dict[str, str]]], every_s: float, sleep: Callable[[float], None] = time.sleep
) -> None:
    """A table that is drawn anew until Ctrl-C. While there is no answer, the last one stays, and why is below it:
    whoever looks on does so for the minute in which something fails."""
    from rich.live import Live

    found = look()
    with Live(_table(found), auto_refresh=False) as live:
        try:
            while True:
                sleep(every_s)
                why = ""
                try:
                    found = look()
                except (RefusedError, UnreachableError) as error:
                    why = error.message
                live.update(_table(found, why), refresh=True)
        except KeyboardInterrupt:
            return


def _table(found: Sequence[dict[str, str]], why: str = "") -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    caption = Text(f"as it was before: {printable(why)}", style="red") if why else None
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, caption=caption, caption_justify="left")
    for column in SHOWN:
        table.add_column(column.head, style="cyan" if column.field == "limit" else "", overflow="fold")
    for row in found:
        table.add_row(*(Text(row[column.field]) for column in SHOWN))
    if not found:
        table.add_row(Text("no bucket is in use"))
    return table


def _holds(one: Bucket) -> int:
    return one.left + one.lent + one.used


def _who(client: Client, org: str, member: str) -> str:
    try:
        path = f"{org}/members/{quote(member, safe='')}"
        found: dict[str, Any] = client.read(path, what="a member").decode(dict)
    except NotFoundError:
        return ""
    except NotAllowedError:
        named = client.read(f"{org}/member-names", what="members' names", params={"id": member}).decode(dict)
        return next((str(one["name"]) for one in named["items"]), "")
    return str(found.get("email", ""))
