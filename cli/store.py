"""`orgate store`: the control store's tables in PostgreSQL, and the way there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from cli.command import command
from cli.examples import examples
from cli.serve import SettingsOption, settings_file
from cli.session import Session

app = typer.Typer(
    help="The control store in PostgreSQL: its tables, and the way there from an embedded one.",
    short_help="The control store in PostgreSQL.",
    epilog=examples(
        "orgate store migrate --owner orgate_owner --owner-password owner.password",
        "orgate store copy --from control.db",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Prepared(Struct, frozen=True):
    """Versions of the schema; 0: there was none."""

    database: str
    role: str
    before: int
    now: int


@command(
    app,
    examples(
        "orgate store migrate --owner orgate_owner --owner-password owner.password",
        "orgate store migrate --owner orgate_owner --owner-password env:PGPASSWORD",
    ),
)
def migrate(
    session: Session,
    *,
    owner: Annotated[
        str, typer.Option(help="The role that owns the tables: another than the one that serves.", metavar="ROLE")
    ] = "orgate_owner",
    owner_password: Annotated[
        str,
        typer.Option(
            help="Its password: a file of mode 0600, or env:NAME. Else the server knows it otherwise.",
            metavar="SOURCE",
            show_default=False,
        ),
    ] = "",
    settings: SettingsOption = None,
) -> None:
    """Make the tables that store.url names, or bring them up to this Orgate's, with policies and grants.

    Running it again changes nothing. Before a newer Orgate serves from them it must have run; servers that run go
    on meanwhile.
    """
    from cli.storework import prepare

    prepared = prepare(settings_file(settings), owner, owner_password)
    session.out.item(prepared)


@command(app, examples("orgate store copy --from control.db", "orgate store copy --from /srv/orgate/control.db"))
def copy(
    session: Session,
    *,
    source: Annotated[Path, typer.Option("--from", help="The embedded store's file.", metavar="FILE")],
    settings: SettingsOption = None,
) -> None:
    """Copy an embedded store into the empty tables that store.url names, and compare. The server must stand.

    The file is left as it is, but for what an older Orgate's lacks.
    """
    from cli.storework import move

    move(session, settings_file(settings), source)
