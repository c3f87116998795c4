"""`orgate org`: organizations. Creating, suspending and listing them is for operators."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import Struct, structs

from cli.command import command
from cli.errors import UsageError
from cli.examples import examples
from cli.offboarding import Step
from cli.offboarding import show as show_steps
from cli.output import Column, instant
from cli.resources import Resource
from cli.session import Session
from policies.facts import Role
from tenants.ids import InvalidIdError, org_id
from tenants.models import Dpop, Durability, Org

app = typer.Typer(
    help="Organizations.",
    epilog=examples("orgate org create acme --name 'Acme Ltd'", "orgate org list"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

COLUMNS = [
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("STATE", "state"),
    Column("HOSTS", "hosts"),
    Column("CREATED", "created_at", instant),
]
Id = Annotated[
    str | None, typer.Argument(help="The organization; else --org.", metavar="[ORG]", show_default=False)
]


def _orgs(session: Session) -> Resource[Org]:
    return Resource(session.client, "/admin/v1/orgs", Org, "organization", session.out)


def _id(session: Session, given: str | None) -> str:
    if given is None:
        return session.org
    try:
        return org_id(given)
    except InvalidIdError as error:
        raise UsageError(f"{given!r}: {error}") from None


@command(app, examples("orgate org list", "orgate org list --state suspended --output csv"), name="list")
def list_(
    session: Session,
    state: Annotated[str | None, typer.Option(help="Only those active or suspended.", metavar="STATE")] = None,
) -> None:
    """List organizations (operators only)."""
    session.out.items(_orgs(session).list(state=state or ""), COLUMNS, empty="no organizations yet")


@command(
    app,
    examples("orgate org create acme --name 'Acme Ltd'", "orgate org create acme --host acme.gateway.example"),
    writes=True,
)
def create(
    session: Session,
    which: Annotated[
        str,
        typer.Argument(help="Its id: part of paths, keys and host names; never given out twice.", metavar="ORG"),
    ],
    name: Annotated[str | None, typer.Option(help="Its name, for people.")] = None,
    host: Annotated[list[str] | None, typer.Option(help="A host name of its own; may be repeated.")] = None,
) -> None:
    """Create an organization (operators only)."""
    fresh = _id(session, which)
    body = {"id": fresh, "name": name or fresh, "hosts": host or []}
    session.wrote(_orgs(session).create(body, fresh), f"organization '{fresh}' created")


@command(app, examples("orgate org show", "orgate org show acme --output yaml"))
def show(session: Session, which: Id = None) -> None:
    """Show one organization."""
    session.out.item(_orgs(session).get(_id(session, which))[0])


Supersede = Annotated[
    bool | None,
    typer.Option(
        "--supersede/--no-supersede",
        help="Whether a member's newer completion of the same document ends the older one.",
        show_default=False,
    ),
]
DeadlineMs = Annotated[
    int | None,
    typer.Option(
        help="How long a request may take in all, milliseconds; 0: as long as the server lets it.", min=0
    ),
]
Holds = Annotated[
    list[str] | None,
    typer.Option(
        help="Keep requests of clients that match (name/version) so long before they go upstream, e.g."
        " 'copilot.vim/1.4.*=3'; may be repeated, the first match counts; replaces all of them.",
        metavar="PATTERN=MS",
    ),
]


Timezone = Annotated[
    str | None,
    typer.Option(help="Where its days, weeks and months begin: an IANA name.", metavar="ZONE"),
]
Durable = Annotated[
    Durability | None,
    typer.Option(
        help="What is certain of a request before anything of it is sent to a model: that the audit log has it"
        " after a crash of the gateway (buffered), or after a power cut too (strict: it waits for the disk).",
        show_default=False,
    ),
]
RetentionDays = Annotated[
    int | None,
    typer.Option(
        "--audit-retention-days",
        help="How many days entries of its audit log are kept; 0: as long as the platform says.",
        min=0,
        max=36_500,
        show_default=False,
    ),
]
PromptHashes = Annotated[
    bool | None,
    typer.Option(
        "--audit-prompt-hash/--no-audit-prompt-hash",
        help="Whether the audit log's entries have a keyed hash of the prompt: who has a prompt can find out that"
        " it was sent (orgate audit prompt-hash), and nobody can read one.",
        show_default=False,
    ),
]
Proofs = Annotated[
    Dpop | None,
    typer.Option(
        "--dpop",
        help="Whether access tokens are bound to a key of the program that asks for them (RFC 9449): never (off),"
        " when it shows one (optional), or always, and then a token alone opens nothing (required).",
        show_default=False,
    ),
]
SecondFactor = Annotated[
    list[Role] | None,
    typer.Option(
        "--second-factor",
        help="Whoever has this role signs in with a second factor (an authenticator app or a passkey), or adds one"
        " at the next sign-in; may be repeated, replaces all of them.",
        show_default=False,
    ),
]
NoSecondFactor = Annotated[
    bool, typer.Option("--no-second-factor", help="Leave second factors to each member.", show_default=False)
]
PersonalTokens = Annotated[
    bool | None,
    typer.Option(
        "--personal-tokens/--no-personal-tokens",
        help="Whether its people and services may have static keys. Turned off, those there are end for good.",
        show_default=False,
    ),
]
Weight = Annotated[
    int | None,
    typer.Option(help="Its part of what organizations share, beside the others' (operators only).", min=1),
]


@command(
    app,
    examples(
        "orgate org set acme --name 'Acme Limited'",
        "orgate org set acme --host acme.gateway.example",
        "orgate org set --supersede --deadline-ms 20000",
        "orgate org set --hold 'copilot.vim/1.4.*=3'",
        "orgate org set --timezone Europe/Berlin",
        "orgate org set acme --weight 4",
        "orgate org set --durability strict",
        "orgate org set --audit-retention-days 3653",
        "orgate org set --dpop optional",
        "orgate org set --personal-tokens",
        "orgate org set --second-factor owner --second-factor admin",
    ),
    name="set",
    writes=True,
)
def set_(
    session: Session,
    *,
    which: Id = None,
    name: Annotated[str | None, typer.Option(help="Its name, for people.")] = None,
    host: Annotated[list[str] | None, typer.Option(help="Its host names; replaces all of them.")] = None,
    no_hosts: Annotated[bool, typer.Option("--no-hosts", help="Take all its host names away.")] = False,
    supersede: Supersede = None,
    deadline_ms: DeadlineMs = None,
    hold: Holds = None,
    no_holds: Annotated[bool, typer.Option("--no-holds", help="Hold no client any more.")] = False,
    timezone: Timezone = None,
    weight: Weight = None,
    durability: Durable = None,
    retention_days: RetentionDays = None,
    personal_tokens: PersonalTokens = None,
    dpop: Proofs = None,
    second_factor: SecondFactor = None,
    no_second_factor: NoSecondFactor = False,
    audit_prompt_hash: PromptHashes = None,
) -> None:
    """Change an organization's name, host names, or what its requests are subject to."""
    values = (name, supersede, deadline_ms, timezone, weight, durability, retention_days, dpop, audit_prompt_hash)
    lists = (host, no_hosts, hold, no_holds, second_factor, no_second_factor)
    if all(value is None for value in (*values, personal_tokens)) and not any(lists):
        raise UsageError(
            "nothing to change",
            "give --name, --host, --no-hosts, --supersede, --no-supersede, --deadline-ms, --hold, --no-holds,"
            " --timezone, --weight, --durability, --audit-retention-days, --audit-prompt-hash, --dpop,"
            " --personal-tokens, --no-personal-tokens,"
            " --second-factor or --no-second-factor",
        )
    if hold and no_holds:
        raise UsageError("--hold and --no-holds are given together", "--hold replaces all holds there are")
    if second_factor and no_second_factor:
        fix = "--second-factor replaces all roles there are"
        raise UsageError("--second-factor and --no-second-factor are given together", fix)

    def edit(was: Org) -> Org:
        return structs.replace(
            was,
            name=was.name if name is None else name,
            hosts=() if no_hosts else tuple(host) if host else was.hosts,
            supersede=was.supersede if supersede is None else supersede,
            deadline_ms=was.deadline_ms if deadline_ms is None else deadline_ms,
            holds=() if no_holds else tuple(hold) if hold else was.holds,
            timezone=was.timezone if timezone is None else timezone,
            weight=weight or was.weight,
            durability=durability or was.durability,
            dpop=dpop or was.dpop,
            second_factor=() if no_second_factor else tuple(second_factor or was.second_factor),
            audit_prompt_hash=was.audit_prompt_hash if audit_prompt_hash is None else audit_prompt_hash,
            audit_retention_days=was.audit_retention_days if retention_days is None else retention_days,
            personal_tokens=was.personal_tokens if personal_tokens is None else personal_tokens,
        )

    key = _id(session, which)
    session.wrote(_orgs(session).change(key, edit), f"organization '{key}' changed")


class SuspendedOrg(Struct, frozen=True):
    """What suspending an organization answers."""

    org: Org
    steps: list[Step]
    fenced: list[str]


@command(app, examples("orgate org suspend acme --yes"), writes=True)
def suspend(
    session: Session,
    which: Annotated[str, typer.Argument(help="The organization.", metavar="ORG")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Stop everything an organization does, within a second, and print each step with its time (operators only).

    Sessions and personal tokens end for good: after `org resume` people sign in again.
    """
    key = _id(session, which)
    session.confirm(f"Suspend organization '{key}'? Its members' completions end at once.", yes=yes)
    told: SuspendedOrg | None = _orgs(session).act(key, "suspend", SuspendedOrg)
    if told is not None:
        show_steps(session, told, told.steps, told.fenced)
        session.out.say(f"organization '{key}' suspended")


@command(app, examples("orgate org resume acme"), writes=True)
def resume(
    session: Session, which: Annotated[str, typer.Argument(help="The organization.", metavar="ORG")]
) -> None:
    """Let a suspended organization work again (operators only)."""
    key = _id(session, which)
    session.wrote(_orgs(session).act(key, "resume", Org), f"organization '{key}' active")


@command(app, examples("orgate org delete acme --dry-run", "orgate org delete acme --yes"), writes=True)
def delete(
    session: Session,
    which: Annotated[str, typer.Argument(help="The organization.", metavar="ORG")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete an organization with all it has. Its audit log stays; its id stays taken."""
    key = _id(session, which)
    session.confirm(f"Delete organization '{key}' with its members, upstreams, models and keys?", yes=yes)
    if _orgs(session).delete(key):
        session.out.say(f"organization '{key}' deleted")
