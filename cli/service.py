"""`orgate service`: accounts of programs that ask in their own name."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from msgspec import structs

from cli import service_trust as trust
from cli.command import command
from cli.errors import NotFoundError, UsageError
from cli.examples import examples
from cli.output import Column, instant
from cli.resources import Resource
from cli.session import Session
from policies.facts import Role
from tenants.ids import is_service_id
from tenants.models import Service

app = typer.Typer(
    help="Service accounts: programs that ask in their own name, as CI does. Jobs without a secret: `trust`.",
    epilog=examples(
        "orgate service create ci",
        "orgate client create ci --title 'Our CI' --service ci",
        "orgate service list",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.add_typer(trust.app, name="trust")

COLUMNS: Final = [
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("ROLES", "roles"),
    Column("STATE", "state"),
    Column("CREATED", "created_at", instant),
]
Which = Annotated[str, typer.Argument(help="Its name or id (svc_...).", metavar="SERVICE")]
Roles = Annotated[list[Role] | None, typer.Option(help="May be repeated; member, auditor, billing or admin.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def _services(session: Session) -> Resource[Service]:
    return session.resource("services", Service, "service")


def service_id_of(session: Session, which: str) -> str:
    """The id of the service account whose name or id is `which`."""
    if is_service_id(which):
        return which
    found = _services(session).list(name=which)
    if not found:
        raise NotFoundError(f"no service '{which}'", "`orgate service list` shows what there is")
    return found[0].id


@command(app, examples("orgate service list", "orgate service list --output json"), name="list")
def list_(session: Session) -> None:
    """List the organization's service accounts."""
    empty = "no service accounts yet: `orgate service create`"
    session.out.items(_services(session).list(), COLUMNS, empty=empty)


@command(app, examples("orgate service create ci", "orgate service create reports --role auditor"), writes=True)
def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="Its name, unique in the organization.")],
    role: Roles = None,
) -> None:
    """Make a service account. It asks for tokens with a client that is made for it: `orgate client create`."""
    made = _services(session).create({"name": name, "roles": role or [Role.MEMBER]}, name)
    session.wrote(made, f"service '{name}' created; next: `orgate client create {name} --service {name}`")


@command(app, examples("orgate service show ci"))
def show(session: Session, service: Which) -> None:
    """Show one service account."""
    session.out.item(_services(session).get(service_id_of(session, service))[0])


@command(app, examples("orgate service set ci --role member --role auditor"), name="set", writes=True)
def set_(
    session: Session,
    service: Which,
    name: Annotated[str | None, typer.Option(help="Another name; its id stays.")] = None,
    role: Roles = None,
) -> None:
    """Change a service account's name or roles. A role taken away ends the tokens it holds."""
    if name is None and not role:
        raise UsageError("nothing to change", "give --name or --role")

    def edit(was: Service) -> Service:
        called = was.name if name is None else name
        return structs.replace(was, name=called, roles=tuple(role) if role else was.roles)

    key = service_id_of(session, service)
    session.wrote(_services(session).change(key, edit), f"service '{service}' changed")


@command(app, examples("orgate service suspend ci --yes"), writes=True)
def suspend(session: Session, service: Which, yes: Yes = False) -> None:
    """Shut a service account out within a second: tokens refused, streams reset."""
    key = service_id_of(session, service)
    session.confirm(f"Suspend service '{service}'?", yes=yes)
    session.wrote(_services(session).act(key, "suspend", Service), f"service '{service}' suspended")


@command(app, examples("orgate service resume ci"), writes=True)
def resume(session: Session, service: Which) -> None:
    """Let a suspended service account ask for tokens again."""
    key = service_id_of(session, service)
    session.wrote(_services(session).act(key, "resume", Service), f"service '{service}' active")


@command(app, examples("orgate service revoke ci --yes"), writes=True)
def revoke(session: Session, service: Which, yes: Yes = False) -> None:
    """End all tokens of a service account now, as when one leaked; it may ask for others.

    If its client's secret leaked too: `orgate client secret NAME --overlap 0s`.
    """
    key = service_id_of(session, service)
    session.confirm(f"End every token of service '{service}'?", yes=yes)
    session.wrote(_services(session).act(key, "revoke", Service), f"every token of service '{service}' has ended")


@command(app, examples("orgate service delete ci --yes"), writes=True)
def delete(session: Session, service: Which, yes: Yes = False) -> None:
    """Delete a service account. Clients that ask for it must go first; the audit log keeps what it did."""
    key = service_id_of(session, service)
    session.confirm(f"Delete service '{service}'?", yes=yes)
    if _services(session).delete(key):
        session.out.say(f"service '{service}' deleted; its id was {key}")
