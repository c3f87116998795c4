"""`orgate status`: what the server says of itself."""

from __future__ import annotations

from typing import Any

import typer

from cli.command import command
from cli.examples import examples
from cli.output import Column, Format
from cli.session import Session

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@command(app, examples("orgate status", "orgate status --output json"))
def status(session: Session) -> None:
    """Show the server's version and its workers (operators only)."""
    said: dict[str, Any] = session.client.read("/admin/v1/status", what="the server's status").decode(dict)
    workers = said.pop("workers", [])
    if session.out.form in (Format.JSON, Format.YAML):
        session.out.item({**said, "workers": workers})
        return
    if session.out.form is Format.TABLE:
        session.out.item(said)
        session.out.line("")
    rows = [row if isinstance(row, dict) else {"worker": row} for row in workers]
    heads = list(dict.fromkeys(key for row in rows for key in row))
    session.out.items(rows, [Column(head.replace("_", " ").upper(), head) for head in heads], empty="no workers")
