"""`orgate member`: who belongs to the organization, as what."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import Struct, structs

from cli.command import command
from cli.errors import NotFoundError, UsageError
from cli.examples import examples
from cli.offboarding import Step
from cli.offboarding import show as show_steps
from cli.output import Column, Format, instant
from cli.resources import Resource
from cli.session import Session
from policies.facts import Role
from tenants.models import Member

app = typer.Typer(
    help="Members of an organization, their roles and invitations.",
    epilog=examples("orgate member create ann@acme.example --name Ann --role member", "orgate member list"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

COLUMNS = [
    Column("ID", "id"),
    Column("E-MAIL", "email"),
    Column("NAME", "name"),
    Column("ROLES", "roles"),
    Column("STATE", "state"),
    Column("CREATED", "created_at", instant),
]
Who = Annotated[str, typer.Argument(help="Their id (mem_...) or e-mail address.", metavar="MEMBER")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


class Invitation(Struct, frozen=True):
    """A one-time code with which a person sets their password."""

    code: str
    expires_at: int
    url: str = ""


class Invited(Struct, frozen=True):
    """What creating or inviting a member answers."""

    member: Member
    invitation: Invitation


def _members(session: Session) -> Resource[Member]:
    return session.resource("members", Member, "member")


def _id(members: Resource[Member], who: str) -> str:
    if "@" not in who:
        return who
    found = members.list(email=who)
    if not found:
        raise NotFoundError(f"no member has the e-mail address {who}", "`orgate member list` shows who there is")
    return found[0].id


def member_id_of(session: Session, who: str) -> str:
    """The id of the member whose id or e-mail address is `who`."""
    return _id(_members(session), who)


@command(app, examples("orgate member list", "orgate member list --state suspended --output json"), name="list")
def list_(
    session: Session,
    state: Annotated[str | None, typer.Option(help="Only those active or suspended.", metavar="STATE")] = None,
) -> None:
    """List the organization's members."""
    session.out.items(_members(session).list(state=state or ""), COLUMNS, empty="no members yet")


@command(
    app,
    examples(
        "orgate member create ann@acme.example --name Ann",
        "orgate member create bob@acme.example --name Bob --role auditor",
    ),
    writes=True,
)
def create(
    session: Session,
    email: Annotated[str, typer.Argument(help="Their e-mail address, unique in the organization.")],
    name: Annotated[str | None, typer.Option(help="Their name.")] = None,
    role: Annotated[list[Role] | None, typer.Option(help="May be repeated; else member.")] = None,
) -> None:
    """Add a member and print their invitation, once: send it to them on a safe way."""
    body = {"email": email, "name": name or email.partition("@")[0], "roles": role or [Role.MEMBER]}
    answer = session.client.write("POST", _members(session).path, body, what=f"member '{email}'")
    if answer is None:
        return
    made = answer.decode(Invited)
    if session.out.form is Format.TABLE:
        session.out.item(made.member)
        _show_invitation(session, made.member.email, made.invitation)
    else:
        session.out.item(made)


@command(app, examples("orgate member show ann@acme.example", "orgate member show mem_0123456789abcdefghjk"))
def show(session: Session, member: Who) -> None:
    """Show one member."""
    members = _members(session)
    session.out.item(members.get(_id(members, member))[0])


@command(
    app,
    examples(
        "orgate member set ann@acme.example --role admin", "orgate member set ann@acme.example --name 'Ann B.'"
    ),
    name="set",
    writes=True,
)
def set_(
    session: Session,
    member: Who,
    name: Annotated[str | None, typer.Option(help="Their name.")] = None,
    role: Annotated[list[Role] | None, typer.Option(help="Their roles; replaces all of them.")] = None,
) -> None:
    """Change a member's name or roles. A role taken away ends the access tokens they hold."""
    if name is None and not role:
        raise UsageError("nothing to change", "give --name or --role")

    def edit(was: Member) -> Member:
        called = was.name if name is None else name
        return structs.replace(was, name=called, roles=tuple(role) if role else was.roles)

    members = _members(session)
    session.wrote(members.change(_id(members, member), edit), f"member '{member}' changed")


@command(app, examples("orgate member suspend ann@acme.example --yes"), writes=True)
def suspend(session: Session, member: Who, yes: Yes = False) -> None:
    """Shut a member out within a second: tokens refused, logins ended, streams reset."""
    members = _members(session)
    key = _id(members, member)
    session.confirm(f"Suspend member '{member}'?", yes=yes)
    session.wrote(members.act(key, "suspend", Member), f"member '{member}' suspended")


@command(app, examples("orgate member resume ann@acme.example"), writes=True)
def resume(session: Session, member: Who) -> None:
    """Let a suspended member sign in again."""
    members = _members(session)
    session.wrote(members.act(_id(members, member), "resume", Member), f"member '{member}' active")


@command(app, examples("orgate member delete ann@acme.example --yes"), writes=True)
def delete(session: Session, member: Who, yes: Yes = False) -> None:
    """Delete a member: shut out within a second, their account forgotten. The audit log keeps what they did.

    To take them out of the log too: `orgate audit erase`, with their id.
    """
    members = _members(session)
    key = _id(members, member)
    session.confirm(f"Delete member '{member}'?", yes=yes)
    if members.delete(key):
        session.out.say(f"member '{member}' deleted; their id was {key}")


@command(app, examples("orgate member invite ann@acme.example"), writes=True)
def invite(session: Session, member: Who) -> None:
    """Print a new invitation, once; an earlier one is void. Also for a forgotten password."""
    members = _members(session)
    made: Invited | None = members.act(_id(members, member), "invite", Invited)
    if made is None:
        return
    if session.out.form is Format.TABLE:
        _show_invitation(session, made.member.email, made.invitation)
    else:
        session.out.item(made.invitation)


class Offboarded(Struct, frozen=True):
    """What offboarding a member answers."""

    member: Member
    steps: list[Step]
    fenced: list[str]


@command(app, examples("orgate member offboard ann@acme.example --yes"), writes=True)
def offboard(session: Session, member: Who, yes: Yes = False) -> None:
    """Shut a member out for good, and print each step with its time. `member delete` then forgets them."""
    members = _members(session)
    key = _id(members, member)
    session.confirm(f"Shut out member '{member}' for good?", yes=yes)
    told: Offboarded | None = members.act(key, "offboard", Offboarded)
    if told is not None:
        show_steps(session, told, told.steps, told.fenced)


@command(app, examples("orgate member revoke ann@acme.example --yes"), writes=True)
def revoke(session: Session, member: Who, yes: Yes = False) -> None:
    """End all of a member's logins and tokens now; they may sign in again."""
    members = _members(session)
    key = _id(members, member)
    session.confirm(f"End every login of member '{member}'?", yes=yes)
    if session.client.write("POST", members.at(key, "revoke"), what=members.what(key)) is not None:
        session.out.say(f"every login of member '{member}' has ended")


class FactorItem(Struct, frozen=True):
    """One second factor of a member."""

    id: str
    kind: str
    name: str
    created_at: int
    used_at: int


class FactorsOf(Struct, frozen=True):
    """What listing a member's second factors answers."""

    factors: list[FactorItem]
    recovery_codes: int


class FactorsReset(Struct, frozen=True):
    """What resetting a member's second factors answers."""

    factors: int
    sessions: int


FACTOR_COLUMNS = [
    Column("NAME", "name"),
    Column("KIND", "kind"),
    Column("ADDED", "created_at", instant),
    Column("LAST USED", "used_at", instant),
]


@command(app, examples("orgate member factors ann@acme.example"))
def factors(session: Session, member: Who) -> None:
    """List what a member signs in with, beside their password."""
    members = _members(session)
    key = _id(members, member)
    found = session.client.read(members.at(key, "factors"), what=members.what(key)).decode(FactorsOf)
    session.out.items(found.factors, FACTOR_COLUMNS, empty="no second factors")
    if found.factors:
        session.out.say(f"{found.recovery_codes} recovery codes are left")


@command(app, examples("orgate member reset-factors ann@acme.example --yes"), name="reset-factors", writes=True)
def reset_factors(session: Session, member: Who, yes: Yes = False) -> None:
    """Forget a member's second factors and end their logins: the phone is lost, and the recovery codes too.

    Make sure that it is they who ask: from then on their password alone lets them in, until they add another.
    """
    members = _members(session)
    key = _id(members, member)
    session.confirm(f"Forget the second factors of member '{member}'?", yes=yes)
    told: FactorsReset | None = members.act(key, "reset-factors", FactorsReset)
    if told is not None:
        session.out.say(
            f"second factors of member '{member}' forgotten: {told.factors}; logins ended: {told.sessions}"
        )


def _show_invitation(session: Session, email: str, invitation: Invitation) -> None:
    session.out.line(f"invitation  {invitation.code}")
    session.out.say(f"valid until {instant(invitation.expires_at)}, once, at {invitation.url}")
    session.out.say(f"or with `orgate login --org {session.org} --email {email} --invitation CODE`")
