"""`orgate scim`: let a directory (Entra ID, Okta) provision an organization's people and teams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from msgspec import Struct, structs

from cli.command import command
from cli.errors import NotFoundError, StaleVersionError, UsageError
from cli.examples import examples
from cli.output import Column, Format, instant
from cli.session import Session
from policies.facts import Role
from tenants.scim import DEFAULT_DAYS, MOST_DAYS, GroupRole, ScimSettings, ScimToken

app = typer.Typer(
    help="Provisioning by SCIM 2.0: members and teams from a directory.",
    epilog=examples(
        "orgate scim token create --name entra",
        "orgate scim role add 'Platform admins' admin",
        "orgate scim show",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)
token = typer.Typer(
    help="Tokens with which a directory speaks SCIM to the organization.",
    epilog=examples("orgate scim token create --name entra --days 180", "orgate scim token list"),
    no_args_is_help=True,
    rich_markup_mode=None,
)
role = typer.Typer(
    help="Roles that being in a group brings.",
    epilog=examples("orgate scim role add Auditors auditor", "orgate scim role remove Auditors auditor"),
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(token, name="token")
app.add_typer(role, name="role")

COLUMNS = [
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("CREATED", "created_at", instant),
    Column("EXPIRES", "expires_at", instant),
    Column("LAST USED", "used_at", instant),
]
ROLES = [Column("GROUP", "group"), Column("ROLE", "role")]
ATTEMPTS = 3
Group = Annotated[str, typer.Argument(help="The group's displayName; case does not count.", metavar="GROUP")]
Brings = Annotated[Role, typer.Argument(help="admin, auditor, billing or member.", metavar="ROLE")]


class Made(Struct, frozen=True):
    """What creating a token answers."""

    token: ScimToken
    secret: str
    url: str


class Tokens(Struct, frozen=True):
    items: list[ScimToken]


class Shown(Struct, frozen=True):
    """A new token as it is printed: the one time with its secret."""

    id: str
    url: str
    secret: str
    expires_at: int


def _path(session: Session, *rest: str) -> str:
    return "/".join([f"/admin/v1/orgs/{session.org}/scim", *rest])


@command(
    token,
    examples("orgate scim token create --name entra", "orgate scim token create --days 90 --output json"),
    writes=True,
)
def create(
    session: Session,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int, typer.Option(help="How long it is good.", min=1, max=MOST_DAYS)] = DEFAULT_DAYS,
) -> None:
    """Make a token, and print it this once with the URL that the directory is given.

    To rotate one, make another, give it to the directory, and revoke the first.
    """
    body = {"name": name, "days": days}
    answer = session.client.write("POST", _path(session, "tokens"), body, what="the SCIM token")
    if answer is not None:
        made = answer.decode(Made)
        shown = Shown(made.token.id, made.url, made.secret, made.token.expires_at)
        session.wrote(shown, "token created; keep the secret, it is not shown again")


@command(token, examples("orgate scim token list", "orgate scim token list --output json"), name="list")
def list_(session: Session) -> None:
    """List tokens, and when each was last used. Never the tokens themselves."""
    found = session.client.read(_path(session, "tokens"), what="the SCIM tokens").decode(Tokens)
    session.out.items(found.items, COLUMNS, empty="no SCIM tokens: the organization has no directory")


@command(token, examples("orgate scim token revoke scim-0123456789ab"), writes=True)
def revoke(
    session: Session,
    key: Annotated[str, typer.Argument(help="Its id, as `list` shows it.", metavar="TOKEN")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Revoke a token. It opens nothing from now on; who it provisioned stays."""
    session.confirm(f"Revoke SCIM token '{key}'?", yes=yes)
    if session.client.write("DELETE", _path(session, "tokens", key), what=f"SCIM token '{key}'") is not None:
        session.out.say(f"token '{key}' revoked")


@command(app, examples("orgate scim show"))
def show(session: Session) -> None:
    """Show how far the directory may go, and which groups bring a role."""
    settings = _settings(session)[0]
    if session.out.form is Format.TABLE:
        session.out.say(
            "owners: " + ("the directory may change them" if settings.owners else "not the directory's")
        )
        session.out.items(list(settings.group_roles), ROLES, empty="no group brings a role")
        return
    session.out.item(settings)


@command(app, examples("orgate scim set --owners", "orgate scim set --no-owners"), name="set", writes=True)
def set_(
    session: Session,
    owners: Annotated[
        bool | None, typer.Option("--owners/--no-owners", help="Whether it may change owners too.")
    ] = None,
) -> None:
    """Say how far the directory may go. The last active owner is never its to take."""
    if owners is None:
        raise UsageError("nothing to change", "give --owners or --no-owners")
    _change(session, lambda was: structs.replace(was, owners=owners), "SCIM settings changed")


@command(role, examples("orgate scim role add 'Platform admins' admin"), writes=True)
def add(session: Session, group: Group, brings: Brings) -> None:
    """Let a group bring a role. It counts for whoever the directory puts into it from now on."""

    def edit(was: ScimSettings) -> ScimSettings:
        kept = _without(was, group, brings)
        return structs.replace(was, group_roles=(*kept, GroupRole(group, brings)))

    _change(session, edit, f"group '{group}' brings the role {brings.value}")


@command(role, examples("orgate scim role remove 'Platform admins' admin"), writes=True)
def remove(session: Session, group: Group, brings: Brings) -> None:
    """Let a group bring a role no more. Who has it keeps it: see `orgate member list`."""

    def edit(was: ScimSettings) -> ScimSettings:
        kept = _without(was, group, brings)
        if len(kept) == len(was.group_roles):
            raise NotFoundError(f"group '{group}' brings no role {brings.value}", "see `orgate scim show`")
        return structs.replace(was, group_roles=kept)

    _change(session, edit, f"group '{group}' brings the role {brings.value} no more")


def _without(settings: ScimSettings, group: str, brings: Role) -> tuple[GroupRole, ...]:
    wanted = group.casefold()
    return tuple(one for one in settings.group_roles if one.group.casefold() != wanted or one.role is not brings)


def _settings(session: Session) -> tuple[ScimSettings, int]:
    answer = session.client.read(_path(session), what="the SCIM settings")
    return answer.decode(ScimSettings), answer.version


def _change(session: Session, edit: Callable[[ScimSettings], ScimSettings], message: str) -> None:
    """GET, `edit`, PUT with If-Match: again where somebody else wrote in between."""
    for _ in range(ATTEMPTS):
        was, version = _settings(session)
        now = edit(was)
        body: dict[str, Any] = {
            "owners": now.owners,
            "group_roles": [{"group": one.group, "role": one.role.value} for one in now.group_roles],
        }
        try:
            answer = session.client.write("PUT", _path(session), body, what="the change of SCIM", version=version)
        except StaleVersionError:
            continue
        session.wrote(None if answer is None else answer.decode(ScimSettings), message)
        return
    raise StaleVersionError("the SCIM settings keep changing; nothing was written", "try again")
