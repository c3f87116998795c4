"""`orgate audit key`: the key that an organization's log is verified with."""

from __future__ import annotations

import typer

from cli.audit_evidence import server_key
from cli.command import command
from cli.examples import examples
from cli.session import Session


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    command(app, examples("orgate audit key > acme.key", "orgate --profile platform audit key --org acme"))(key)


def key(session: Session) -> None:
    """Print the log's key: what packs, proofs and checkpoints are verified with, and a witness serves the log by.

    Get it once, early, and keep it apart from packs: later it is worth no more than whoever gives it.
    """
    session.out.line(str(server_key(session)))
