"""`orgate personal-token`: static keys for tools that can hold nothing else."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from msgspec import Struct

from cli.command import command
from cli.errors import NotFoundError, UsageError
from cli.examples import examples
from cli.member import member_id_of
from cli.output import Column, Format, instant
from cli.resources import Resource
from cli.session import Session
from policies.facts import Action
from tenants.ids import is_service_id
from tenants.models import Service
from tenants.statickeys import DEFAULT_DAYS, MOST_DAYS, StaticKey

app = typer.Typer(
    help="Static keys for tools that can hold nothing else: yours, a member's or a service account's.",
    epilog=examples("orgate personal-token create aider --days 30", "orgate personal-token list"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

COLUMNS = [
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("OF", "subject"),
    Column("MAY", "actions"),
    Column("MODELS", "models"),
    Column("CREATED", "created_at", instant),
    Column("EXPIRES", "expires_at", instant),
    Column("LAST USED", "used_at", lambda at: instant(at) or "never"),
]
NOUN = "personal token"

Of = Annotated[
    str | None,
    typer.Option("--member", help="A member's, for admins: their id or e-mail address.", metavar="MEMBER"),
]
OfService = Annotated[
    str | None,
    typer.Option("--service", help="A service account's, for admins: its id or name.", metavar="SERVICE"),
]
Id = Annotated[str, typer.Argument(help="The token's id (pt_...), as `list` shows it.", metavar="ID")]
Anybodys = Annotated[bool, typer.Option("--any", help="Anybody's of the organization, for admins; else your own.")]


class Made(Struct, frozen=True):
    """What making one answers: `key` is shown this once."""

    token: StaticKey
    key: str


def _own(session: Session) -> Resource[StaticKey]:
    return Resource(session.client, "/admin/v1/me/personal-tokens", StaticKey, NOUN, session.out)


def _all(session: Session) -> Resource[StaticKey]:
    return session.resource("personal-tokens", StaticKey, NOUN)


def _subject(session: Session, member: str | None, service: str | None) -> str:
    """Whose: '' for the caller's own."""
    if member and service:
        raise UsageError("--member and --service are given together", "a token speaks for one of them")
    if member:
        return member_id_of(session, member)
    if not service or is_service_id(service):
        return service or ""
    found = session.resource("services", Service, "service account").list(name=service)
    if not found:
        raise NotFoundError(f"no service account '{service}'", "`orgate service list` shows which there are")
    return found[0].id


@command(
    app,
    examples(
        "orgate personal-token create aider",
        "orgate personal-token create ci --days 30 --action completions --action models --model code",
        "orgate personal-token create nightly --service indexer",
    ),
    writes=True,
)
def create(
    session: Session,
    *,
    name: Annotated[str, typer.Argument(help="What it is for: shown in lists.", metavar="NAME")],
    days: Annotated[int, typer.Option(help="How long it lives.", min=1, max=MOST_DAYS)] = DEFAULT_DAYS,
    action: Annotated[
        list[Action] | None, typer.Option(help="What it may ask models for; may be repeated; else everything.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model it may name; may be repeated; else every one.", metavar="MODEL"),
    ] = None,
    member: Of = None,
    service: OfService = None,
) -> None:
    """Make one and print it, once. It does what its owner may do, now and later, and no more than that.

    The organization must have turned them on: `orgate org set --personal-tokens`. Tools send it as
    `Authorization: Bearer` or `x-api-key`; where a tool can run a command, `orgate token` is safer.
    """
    subject = _subject(session, member, service)
    body: dict[str, Any] = {"name": name, "days": days}
    if action:
        body["actions"] = [str(one) for one in action]
    if model:
        body["models"] = model
    if subject:
        body["subject"] = subject
    path = _all(session).path if subject else _own(session).path
    answer = session.client.write("POST", path, body, what=f"{NOUN} '{name}'")
    if answer is None:
        return
    made = answer.decode(Made)
    if session.out.form is not Format.TABLE:
        session.out.item(made)
        return
    session.out.line(made.key)
    session.out.say(f"this is shown once; it is called {made.token.id} and ends {instant(made.token.expires_at)}")


@command(
    app,
    examples(
        "orgate personal-token list",
        "orgate personal-token list --any --output csv",
        "orgate personal-token list --member ann@acme.example",
    ),
    name="list",
)
def list_(session: Session, member: Of = None, service: OfService = None, anybodys: Anybodys = False) -> None:
    """List tokens: your own, or whose you say. With their last use, to the minute."""
    subject = _subject(session, member, service)
    found = _all(session).list(subject=subject) if subject or anybodys else _own(session).list()
    session.out.items(found, COLUMNS, empty="no personal tokens")


@command(app, examples("orgate personal-token show pt_0123456789abcdefghjk"))
def show(session: Session, token: Id, anybodys: Anybodys = False) -> None:
    """Show one; never the token itself, which is kept nowhere."""
    where = _all(session) if anybodys else _own(session)
    session.out.item(where.get(token)[0])


@command(
    app,
    examples(
        "orgate personal-token revoke pt_0123456789abcdefghjk",
        "orgate personal-token revoke pt_0123456789abcdefghjk --any",
    ),
    writes=True,
)
def revoke(session: Session, token: Id, anybodys: Anybodys = False) -> None:
    """Take one back: every worker refuses it when this returns."""
    where = _all(session) if anybodys else _own(session)
    if session.client.write("DELETE", where.at(token), what=where.what(token)) is not None:
        session.out.say(f"personal token '{token}' is worth nothing any more")
