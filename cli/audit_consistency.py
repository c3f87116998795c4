"""`orgate audit consistency`: that today's log begins with the one of a checkpoint that somebody kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from cli.audit_evidence import Key, hashes, log_key, new_file, opened, said, server_key, small_file
from cli.audit_log import path as log_path
from cli.command import command
from cli.errors import RefusedError, UsageError
from cli.examples import examples
from cli.output import Format, printable
from cli.session import Session

if TYPE_CHECKING:
    from gateway.audit.note import Checkpoint


class Hashes(Struct, frozen=True):
    """The server's proof, in base64."""

    hashes: list[str]


class Continued(Struct, frozen=True):
    """Whether the log over `entries` begins with the one over `before`; that is -1 when none was given."""

    ok: bool
    log: str
    before: int
    entries: int
    faults: list[str]
    unproven: list[str]


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    command(
        app,
        examples(
            "orgate audit consistency --key acme.key --keep acme-2026-11-21.checkpoint",
            "orgate audit consistency acme-2026-11-21.checkpoint --key acme.key",
            "orgate audit consistency acme-pack --output json",
        ),
    )(consistency)


def consistency(
    session: Session,
    *,
    before: Annotated[
        Path | None, typer.Argument(help="A checkpoint that you kept, or a pack.", metavar="OLD_CHECKPOINT")
    ] = None,
    key: Key = None,
    keep: Annotated[
        Path | None, typer.Option(help="Write today's checkpoint there, to compare with the next time.")
    ] = None,
) -> None:
    """Ask whether today's log begins with that of a checkpoint you kept; exit code 1 if it was cut or rewritten.

    Whoever keeps checkpoints needs to trust nobody: no log that lost or changed an entry continues an old one.
    """
    if before is None and keep is None:
        raise UsageError("which checkpoint?", "give one that you kept; --keep FILE alone keeps today's")
    kept = None if before is None else _read(before)
    given = log_key(key)
    signer = given or server_key(session)
    old = None if kept is None else opened(kept, signer, str(before))
    note = said(session, "checkpoint")
    new = opened(note, signer, "today's checkpoint")
    if old is not None and new.size < old.size:
        # What witnesses have cosigned may be older than the newest, and what was kept was perhaps not cosigned.
        note = said(session, "checkpoint", newest="true")
        new = opened(note, signer, "today's checkpoint")
    faults = [] if old is None else [fault for fault in [_fault(session, old, new)] if fault]
    unproven = [] if given else ["the key came from the server: compare it with the one you got by other means"]
    old_size = -1 if old is None else old.size
    report = Continued(not faults, printable(new.origin), old_size, new.size, faults, unproven)
    if keep is not None:  # also what contradicts: it is evidence
        new_file(keep.expanduser(), note.encode())
    if session.out.form is not Format.TABLE:
        session.out.item(report)
    else:
        for text in report.unproven:
            session.out.say(f"not proven: {text}")
        if report.ok:
            first = "" if old is None else f", the first {old.size} of them those of {before}"
            session.out.line(f"{report.log}: {new.size} entries{first}")
    if not report.ok:
        raise RefusedError(
            "\n  ".join([f"{report.log} does not continue {before}", *report.faults]),
            f"keep {before} and today's checkpoint: the log signed both, and they contradict each other",
        )


def _read(before: Path) -> str:
    return small_file(before / "checkpoint" if before.is_dir() else before).decode(errors="replace")


def _fault(session: Session, old: Checkpoint, new: Checkpoint) -> str:
    """How today's log does not continue the old one, in words; '' when it does."""
    from gateway.audit.proofs import verify_consistency

    if new.size < old.size:
        return f"the log was cut: it had {old.size} entries, and today it has {new.size}"
    if new.size == old.size:
        rewritten = f"the log was rewritten: of {new.size} entries, as many as before, some are others"
        return "" if new.root == old.root else rewritten
    asked = {"old": old.size, "new": new.size}
    answer = session.client.read(log_path(session, "consistency"), what="the proof", params=asked).decode(Hashes)
    if verify_consistency(old.size, old.root, new.size, new.root, hashes(answer.hashes)):
        return ""
    return f"the log was rewritten: the first {old.size} of its {new.size} entries are not those that it had"
