"""`orgate audit hold` and `orgate audit copy`: for how long entries are kept, and where."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import Struct

from cli.command import command
from cli.errors import UsageError
from cli.examples import examples
from cli.serve import SettingsOption, settings_file
from cli.session import Session

hold = typer.Typer(
    help="The legal hold: while there is one, no entry is dropped, however old.",
    short_help="The legal hold: while there is one, no entry is dropped.",
    epilog=examples("orgate audit hold set --reason 'case 2026-114'", "orgate audit hold show"),
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Keeping(Struct, frozen=True):
    """As the admin API tells it."""

    hold: str
    retention_days: int
    begin: int
    size: int


class HoldBody(Struct, frozen=True):
    reason: str


def _path(session: Session) -> str:
    return f"/admin/v1/orgs/{session.org}/audit/hold"


@command(
    hold,
    examples(
        "orgate audit hold set --reason 'case 2026-114'",
        "orgate --profile platform audit hold set --org acme --reason 'case 2026-114'",
    ),
    name="set",
    writes=True,
)
def set_(
    session: Session,
    *,
    reason: Annotated[
        str, typer.Option(help="Why, in words that still say it in years. It stands in the log: name nobody.")
    ],
) -> None:
    """Keep every entry of the organization from now on (owners and operators)."""
    answer = session.client.write("PUT", _path(session), HoldBody(reason), what="the hold")
    if answer is not None:
        session.wrote(answer.decode(Keeping), f"the audit log of '{session.org}' is held: {reason}")


@command(hold, examples("orgate audit hold clear --yes"), writes=True)
def clear(session: Session, *, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Let entries go again when their time is over (owners and operators)."""
    session.confirm(f"Clear the hold of '{session.org}'? What is past its time is dropped soon after.", yes=yes)
    answer = session.client.write("DELETE", _path(session), what="the hold")
    if answer is not None:
        session.wrote(answer.decode(Keeping), f"the audit log of '{session.org}' is not held any more")


@command(hold, examples("orgate audit hold show", "orgate audit hold show --output json"))
def show(session: Session) -> None:
    """Show whether there is a hold, for how long entries are kept, and where the log begins now."""
    session.out.item(session.client.read(_path(session), what="the hold").decode(Keeping))


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(hold, name="hold")
    command(
        app,
        examples(
            "orgate audit copy --from files --to postgres+s3",
            "orgate audit copy --from postgres+s3 --to files --org acme",
        ),
    )(copy)


def copy(
    session: Session,
    *,
    source: Annotated[str, typer.Option("--from", help="files or postgres+s3.", metavar="STORE")],
    target: Annotated[str, typer.Option("--to", help="postgres+s3 or files.", metavar="STORE")],
    key: Annotated[
        str, typer.Option(help="The log's verifier key, where the sealed file does not show it.", metavar="KEY")
    ] = "",
    settings: SettingsOption = None,
) -> None:
    """Copy the audit logs from one store to the other, and verify them there. Stop the server first."""
    from cli.audit_copy import copy as move

    if {source, target} != {"files", "postgres+s3"}:
        raise UsageError("from where to where?", "`--from files --to postgres+s3`, or the other way round")
    move(session, settings_file(settings), source, target, key)
