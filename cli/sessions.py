"""`orgate session`: who is signed in with what, and ending that."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import Struct

from cli.command import command
from cli.examples import examples
from cli.member import member_id_of
from cli.output import Column, instant
from cli.resources import Resource
from cli.session import Session

app = typer.Typer(
    help="Sessions: which programs are signed in, since when, until when.",
    epilog=examples("orgate session list", "orgate session list --member ann@acme.example"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

COLUMNS = [
    Column("ID", "id"),
    Column("MEMBER", "member"),
    Column("PROGRAM", "client"),
    Column("SIGNED IN", "created_at", instant),
    Column("LAST USED", "last_used", instant),
    Column("EXPIRES", "expires_at", instant),
    Column("HOW", "amr"),
]
NOUN = "session"
Anybodys = Annotated[bool, typer.Option("--any", help="Anybody's of the organization, for admins; else your own.")]


class Login(Struct, frozen=True):
    """A session as the admin API shows it. Times are Unix seconds."""

    id: str
    org: str
    member: str
    client: str
    created_at: int
    last_used: int
    expires_at: int
    amr: str = ""


def _own(session: Session) -> Resource[Login]:
    return Resource(session.client, "/admin/v1/me/sessions", Login, NOUN, session.out)


def _all(session: Session) -> Resource[Login]:
    return session.resource("sessions", Login, NOUN)


@command(
    app,
    examples("orgate session list", "orgate session list --any", "orgate session list --member ann@acme.example"),
    name="list",
)
def list_(
    session: Session,
    member: Annotated[
        str | None, typer.Option(help="A member's, for admins: their id or e-mail address.", metavar="MEMBER")
    ] = None,
    anybodys: Anybodys = False,
) -> None:
    """List sessions: your own, or whose you say. Where somebody signed in from is not kept."""
    if member:
        found = _all(session).list(member=member_id_of(session, member))
    else:
        found = (_all(session) if anybodys else _own(session)).list()
    session.out.items(found, COLUMNS, empty="nobody is signed in")


@command(
    app,
    examples(
        "orgate session revoke 0123456789abcdef0123456789abcdef",
        "orgate session revoke 0123456789abcdef0123456789abcdef --any",
    ),
    writes=True,
)
def revoke(
    session: Session,
    key: Annotated[str, typer.Argument(help="The session's id, as `list` shows it.", metavar="ID")],
    anybodys: Anybodys = False,
) -> None:
    """End one session: it gets no new token, and the access tokens of its member are refused at once.

    Their other programs renew theirs by themselves. All of a member's: `orgate member revoke`.
    """
    where = _all(session) if anybodys else _own(session)
    if session.client.write("DELETE", where.at(key), what=where.what(key)) is not None:
        session.out.say(f"session '{key}' has ended")
