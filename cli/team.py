"""`orgate team`: members who share something, a budget among others."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import convert, structs

from cli.command import command
from cli.errors import UsageError
from cli.examples import examples
from cli.member import Who, member_id_of
from cli.output import Column, instant
from cli.resources import PAGE, Page, Resource
from cli.session import Session
from tenants.models import Team, TeamMember

app = typer.Typer(
    help="Teams of an organization: what a limit of scope team counts together.",
    epilog=examples("orgate team create platform --title 'Platform engineering'", "orgate team list"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

COLUMNS = [Column("NAME", "name"), Column("TITLE", "title"), Column("CREATED", "created_at", instant)]
MEMBERS = [Column("MEMBER", "member"), Column("ADDED", "added_at", instant)]
Name = Annotated[str, typer.Argument(help="The team's name.", metavar="TEAM")]
Title = Annotated[str | None, typer.Option(help="What people call it.")]


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
    found: list[TeamMember] = []
    after = ""
    while True:
        params: dict[str, str | int] = {"limit": PAGE, **({"after": after} if after else {})}
        page = session.client.read(teams.at(name, "members"), what=teams.what(name), params=params).decode(Page)
        found += convert(page.items, list[TeamMember])
        after = page.next
        if not after:
            break
    session.out.items(found, MEMBERS, empty=f"nobody is in team '{name}' yet")


@command(app, examples("orgate team add platform ann@acme.example"), writes=True)
def add(session: Session, name: Name, member: Who) -> None:
    """Put a member into a team. It counts from their next access token on."""
    teams = _teams(session)
    key = member_id_of(session, member)
    if (
        session.client.write("PUT", teams.at(name, "members", key), what=f"'{member}' in team '{name}'")
        is not None
    ):
        session.out.say(f"'{member}' is in team '{name}'")


@command(app, examples("orgate team remove platform ann@acme.example"), writes=True)
def remove(session: Session, name: Name, member: Who) -> None:
    """Take a member out of a team. It counts from their next access token on."""
    teams = _teams(session)
    key = member_id_of(session, member)
    what = f"'{member}' in team '{name}'"
    if session.client.write("DELETE", teams.at(name, "members", key), what=what) is not None:
        session.out.say(f"'{member}' is no more in team '{name}'")
