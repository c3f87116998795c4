"""`orgate team`: members who share something, a budget among others."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer
from msgspec import Struct, convert, structs

from cli.command import command
from cli.errors import UsageError
from cli.examples import examples
from cli.limit_use import Bucket, LimitUse
from cli.member import Who
from cli.output import Column, Format, instant
from cli.resources import PAGE, Page, Resource
from cli.session import Session
from tenants.amounts import quantity
from tenants.models import Limit, Team

app = typer.Typer(
    help="Teams of an organization: what a limit of scope team counts together.",
    epilog=examples("orgate team create platform --title 'Platform engineering'", "orgate team list"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

COLUMNS = [Column("NAME", "name"), Column("TITLE", "title"), Column("CREATED", "created_at", instant)]
MEMBERS = [
    Column("MEMBER", "member"),
    Column("NAME", "name"),
    Column("LEAD", "lead"),
    Column("ADDED", "added_at", instant),
]
USES = [
    Column("LIMIT", "limit"),
    Column("HOLDS", "holds"),
    Column("USED", "used"),
    Column("LEFT", "left"),
    Column("RESETS AT", "resets_at", instant),
]
Name = Annotated[str, typer.Argument(help="The team's name.", metavar="TEAM")]
Title = Annotated[str | None, typer.Option(help="What people call it.")]


class TeamPerson(Struct, frozen=True):
    """Somebody in a team, as the server tells it."""

    org: str
    team: str
    member: str
    added_at: int = 0
    lead: bool = False
    name: str = ""


class TeamUse(Struct, frozen=True):
    """What the server says of a team's limits."""

    limits: tuple[Limit, ...]
    usage: LimitUse


class Use(Struct, frozen=True):
    """One limit of a team, for people."""

    limit: str
    holds: str
    used: str
    left: str
    resets_at: int


def _teams(session: Session) -> Resource[Team]:
    return session.resource("teams", Team, "team")


@command(app, examples("orgate team list", "orgate team list --output json"), name="list")
def list_(session: Session) -> None:
    """List the organization's teams."""
    session.out.items(_teams(session).list(), COLUMNS, empty="no teams yet")


@command(app, examples("orgate team create platform --title 'Platform engineering'"), writes=True)
def create(session: Session, name: Name, title: Title = None) -> None:
    """Make a team. Nobody is in it yet."""
    made = _teams(session).create({"name": name, "title": title or ""}, name)
    session.wrote(made, f"team '{name}' created")


@command(app, examples("orgate team show platform"))
def show(session: Session, name: Name) -> None:
    """Show one team."""
    session.out.item(_teams(session).get(name)[0])


@command(app, examples("orgate team set platform --title 'Platform'"), name="set", writes=True)
def set_(session: Session, name: Name, title: Title = None) -> None:
    """Change a team's title."""
    if title is None:
        raise UsageError("nothing to change", "give --title")
    changed = _teams(session).change(name, lambda was: structs.replace(was, title=title))
    session.wrote(changed, f"team '{name}' changed")


@command(app, examples("orgate team delete platform --yes"), writes=True)
def delete(
    session: Session, name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Delete a team. Its members stay; limits that name it must go first."""
    session.confirm(f"Delete team '{name}'?", yes=yes)
    if _teams(session).delete(name):
        session.out.say(f"team '{name}' deleted")


@command(app, examples("orgate team members platform", "orgate team members platform --output json"))
def members(session: Session, name: Name) -> None:
    """List who is in a team."""
    teams = _teams(session)
    found: list[TeamPerson] = []
    after = ""
    while True:
        params: dict[str, str | int] = {"limit": PAGE, **({"after": after} if after else {})}
        page = session.client.read(teams.at(name, "members"), what=teams.what(name), params=params).decode(Page)
        found += convert(page.items, list[TeamPerson])
        after = page.next
        if not after:
            break
    session.out.items(found, MEMBERS, empty=f"nobody is in team '{name}' yet")


@command(
    app,
    examples("orgate team add platform ann@acme.example", "orgate team add platform ann@acme.example --lead"),
    writes=True,
)
def add(
    session: Session,
    name: Name,
    member: Who,
    lead: Annotated[bool, typer.Option("--lead", help="And make them its lead (admins).")] = False,
) -> None:
    """Put a member into a team. It counts from their next access token on.

    For admins, and for leads of the team.
    """
    joined = session.client.write("PUT", _place(session, name, member), what=_who(name, member))
    if joined is not None:
        session.out.say(f"'{member}' is in team '{name}'")
    if lead:
        _lead(session, name, member, "PUT", f"'{member}' leads team '{name}'")


def _place(session: Session, name: str, member: str, *rest: str) -> str:
    """Where a membership is: the server knows members by id and by address, a lead could not look the id up."""
    return _teams(session).at(name, "members", quote(member, safe="@"), *rest)


def _who(name: str, member: str) -> str:
    return f"'{member}' in team '{name}'"


def _lead(session: Session, name: str, member: str, method: str, said: str) -> None:
    if session.client.write(method, _place(session, name, member, "lead"), what=_who(name, member)) is not None:
        session.out.say(said)


leads = typer.Typer(
    help="Leads, who add people to their team and take them out.",
    epilog=examples("orgate team lead set platform ann@acme.example"),
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(leads, name="lead")


@command(leads, examples("orgate team lead set platform ann@acme.example"), name="set", writes=True)
def set_lead(session: Session, name: Name, member: Who) -> None:
    """Make a member of a team its lead. A team may have several."""
    _lead(session, name, member, "PUT", f"'{member}' leads team '{name}'")


@command(leads, examples("orgate team lead unset platform ann@acme.example"), name="unset", writes=True)
def unset_lead(session: Session, name: Name, member: Who) -> None:
    """Let a lead be a member of the team like the others again."""
    _lead(session, name, member, "DELETE", f"'{member}' is in team '{name}', and leads it no more")


@command(app, examples("orgate team usage platform", "orgate team usage platform --output json"))
def usage(session: Session, name: Name) -> None:
    """Show a team's limits and how much of them is used. For its leads too, and for billing."""
    teams = _teams(session)
    told = session.client.read(teams.at(name, "usage"), what=teams.what(name)).decode(TeamUse)
    if session.out.form is not Format.TABLE:
        session.out.item(told)
        return
    used = {bucket.limit: bucket for bucket in told.usage.items}
    session.out.items(
        [_use(limit, used.get(limit.name)) for limit in told.limits],
        USES,
        empty=f"no limit counts what team '{name}' uses",
    )


def _use(limit: Limit, bucket: Bucket | None) -> Use:
    """A bucket nobody has drawn from is full, and the server does not name it."""
    unit = limit.unit
    used = bucket.used + bucket.lent if bucket else 0
    return Use(
        limit=limit.name,
        holds=quantity(limit.amount, unit),
        used=quantity(used, unit),
        left=quantity(bucket.left if bucket else limit.burst or limit.amount, unit),
        resets_at=bucket.resets_at if bucket else 0,
    )


@command(app, examples("orgate team remove platform ann@acme.example"), writes=True)
def remove(session: Session, name: Name, member: Who) -> None:
    """Take a member out of a team. It counts from their next access token on.

    For admins, and for leads of the team.
    """
    if session.client.write("DELETE", _place(session, name, member), what=_who(name, member)) is not None:
        session.out.say(f"'{member}' is no more in team '{name}'")
