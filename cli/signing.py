"""`orgate key signing`: the keys that sign access tokens."""

from __future__ import annotations

import typer
from msgspec import Struct

from cli.command import command
from cli.examples import examples
from cli.output import Column, instant
from cli.session import Session

app = typer.Typer(
    help="The keys that sign access tokens, for operators.",
    epilog=examples("orgate key signing show", "orgate key signing rotate"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

PATH = "/admin/v1/signing-keys"
COLUMNS = [
    Column("KID", "kid"),
    Column("USE", "use"),
    Column("SINCE", "since", lambda at: instant(at) if at else ""),
    Column("GONE", "gone_at", lambda at: instant(at) if at else ""),
]


class SigningKey(Struct, frozen=True):
    """Unix seconds; 0: not known, or not yet."""

    kid: str
    use: str
    since: int = 0
    gone_at: int = 0


class SigningKeys(Struct, frozen=True):
    items: list[SigningKey]


@command(app, examples("orgate key signing show", "orgate key signing show --output json"))
def show(session: Session) -> None:
    """Show which key signs, which is next, and which are published until their last token ends."""
    answer = session.client.read(PATH, what="the signing keys").decode(SigningKeys)
    session.out.items(answer.items, COLUMNS, empty="no signing keys")


@command(app, examples("orgate key signing rotate"), writes=True)
def rotate(session: Session) -> None:
    """Sign with the next key from now on. No token that was issued stops working."""
    answer = session.client.write("POST", f"{PATH}/rotate", what="the rotation")
    if answer is not None:
        session.out.items(answer.decode(SigningKeys).items, COLUMNS, empty="no signing keys")
