"""`orgate service trust`: which jobs of a CI system are a service account, without a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from cli.command import command
from cli.errors import UsageError
from cli.examples import examples
from cli.output import Column, instant
from cli.resources import Resource
from cli.session import Session
from tenants.clients import Plane
from tenants.trust import ServiceTrust, claim_fault

GITHUB: Final = "https://token.actions.githubusercontent.com"

app = typer.Typer(
    name="trust",
    help="CI jobs that are a service account, without a secret.",
    epilog=examples(
        f"orgate service trust add main --service ci --issuer {GITHUB}"
        " --audience https://gateway.example --claim repository=acme/app --claim 'ref=refs/heads/main'",
        "orgate service trust list",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

COLUMNS: Final = [
    Column("NAME", "name"),
    Column("SERVICE", "service"),
    Column("ISSUER", "issuer"),
    Column("AUDIENCE", "audience"),
    Column("CLAIMS", "claims"),
    Column("CREATED", "created_at", instant),
]
Name = Annotated[str, typer.Argument(help="The rule's name.", metavar="NAME")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def _trusts(session: Session) -> Resource[ServiceTrust]:
    return session.resource("trusts", ServiceTrust, "trust")


@command(
    app,
    examples(
        f"orgate service trust add main --service ci --issuer {GITHUB}"
        " --audience https://gateway.example --claim repository=acme/app --claim 'ref=refs/heads/*'",
        "orgate service trust add deploy --service deploy --issuer https://gitlab.com --plane admin"
        " --audience https://gateway.example --claim project_path=acme/app --claim ref_protected=true",
    ),
    writes=True,
)
def add(
    session: Session,
    *,
    name: Name,
    service: Annotated[str, typer.Option(help="The service account that a job then is.", metavar="SERVICE")],
    issuer: Annotated[str, typer.Option(help="Who signs the jobs' tokens: their claim `iss`.", metavar="URL")],
    audience: Annotated[str, typer.Option(help="Their claim `aud`, to the letter, and no other beside it.")],
    claim: Annotated[
        list[str],
        typer.Option(
            help="What a token must say; all of them. In PATTERN a '*' stands for one whole part between ':' and"
            " '/', a '**' at the end for all the parts that follow. May be repeated.",
            metavar="NAME=PATTERN",
        ),
    ],
    plane: Annotated[
        list[Plane] | None, typer.Option(help="What it gets tokens for: v1 (completions) or admin; v1.")
    ] = None,
    issuer_ca: Annotated[
        Path | None, typer.Option(help="PEM file of the authority that signed the issuer's certificate.")
    ] = None,
) -> None:
    """Let jobs whose tokens say this be a service account."""
    for one in claim:
        if fault := claim_fault(one):
            raise UsageError(f"--claim {one!r}: {fault}")
    account = _id(session, service)
    body = {
        "name": name,
        "service": account,
        "issuer": issuer,
        "audience": audience,
        "claims": claim,
        "planes": plane or [Plane.DATA],
        "ca_pem": _pem(issuer_ca),
    }
    made = _trusts(session).create(body, name)
    session.wrote(made, f"trust '{name}' added: jobs exchange their tokens as the client {session.org}.{account}")


@command(
    app,
    examples("orgate service trust list", "orgate service trust list --service ci --output json"),
    name="list",
)
def list_(
    session: Session,
    service: Annotated[str | None, typer.Option(help="Of this service account alone.", metavar="SERVICE")] = None,
) -> None:
    """List which outside tokens are trusted."""
    key = _id(session, service) if service else ""
    empty = "no outside tokens are trusted: `orgate service trust add`"
    session.out.items(_trusts(session).list(service=key), COLUMNS, empty=empty)


@command(app, examples("orgate service trust show main"))
def show(session: Session, name: Name) -> None:
    """Show one rule."""
    session.out.item(_trusts(session).get(name)[0])


@command(app, examples("orgate service trust remove main --yes"), writes=True)
def remove(session: Session, name: Name, yes: Yes = False) -> None:
    """Take a rule away. Access tokens that it brought end by themselves, `orgate service revoke` ends them now."""
    session.confirm(f"Take trust '{name}' away? Its jobs get no tokens any more.", yes=yes)
    if _trusts(session).delete(name):
        session.out.say(f"trust '{name}' removed")


def _id(session: Session, which: str) -> str:
    from cli.service import service_id_of  # which has this group among its commands

    return service_id_of(session, which)


def _pem(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.expanduser().read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no PEM"
        raise UsageError(f"--issuer-ca {path}: {reason}") from None
