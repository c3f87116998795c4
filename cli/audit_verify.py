"""`orgate audit verify`: judge evidence packs offline, in words: what is proven, what is not, what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from cli.audit_evidence import Key, Witnesses, log_key, policy, small_file
from cli.command import command
from cli.errors import RefusedError, UsageError
from cli.examples import examples
from cli.output import Column, Format, printable
from cli.progress import progress
from cli.session import Session

if TYPE_CHECKING:
    from gateway.audit.verify import Verdict


class Report(Struct, frozen=True):
    """What was found of a pack. `checkpoint_size`: how many entries the signature is over, -1 when not known."""

    pack: str
    ok: bool
    org: str
    entries: int
    start: int
    end: int
    filtered: bool
    checkpoint_size: int
    faults: list[str]
    proven: list[str]
    unproven: list[str]


COLUMNS = [
    Column("PACK", "pack"),
    Column("OK", "ok"),
    Column("ORG", "org"),
    Column("ENTRIES", "entries"),
    Column("OF", "checkpoint_size"),
    Column("FAULTS", "faults"),
]


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    command(
        app,
        examples(
            "orgate audit verify acme-2026-01",
            "orgate audit verify acme-2026-01 --key acme.key --witnesses witnesses.txt",
            "orgate audit verify acme-2026-02 --key acme.key --since-checkpoint acme-2026-01",
            "orgate audit verify packs/* --key acme.key --output json",
        ),
    )(verify)


def verify(
    session: Session,
    packs: Annotated[list[Path], typer.Argument(help="Folders that `export` made.", metavar="PACK...")],
    key: Key = None,
    witnesses: Witnesses = None,
    since_checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            help="A checkpoint or pack of an earlier time, kept by you or a witness: is the log still the same?",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Check every byte of evidence packs, offline; exit code 1 and what is wrong if anything is.

    Prints what is proven, and what is not: that depends on what you have from elsewhere than the pack.
    """
    from gateway.audit.verify import Known, verify_pack

    for pack in packs:
        if not pack.is_dir():
            raise UsageError(f"{pack} is no folder", "give the folder that `orgate audit export` made")
    own = log_key(key)
    known = Known(None if own is None else str(own), policy(witnesses), _checkpoints(since_checkpoint or ()))
    reports = []
    for pack in packs:
        with progress("verifying", 0) as bar:
            reports.append(_report(pack, verify_pack(pack, known, bar.advance)))
        if session.out.form is Format.TABLE:
            _say(session, reports[-1])
    if session.out.form is not Format.TABLE:
        if len(reports) == 1:
            session.out.item(reports[0])
        else:
            session.out.items(reports, COLUMNS)
    if bad := [line for report in reports for line in _faults(report)]:
        raise RefusedError("\n".join(bad))


def _checkpoints(paths: Sequence[Path]) -> Mapping[str, str]:
    found = {}
    for path in paths:
        try:
            found[str(path)] = small_file(path / "checkpoint" if path.is_dir() else path).decode()
        except UnicodeDecodeError:
            raise UsageError(f"--since-checkpoint {path}: is not UTF-8", "give a signed checkpoint") from None
    return found


def _report(pack: Path, verdict: Verdict) -> Report:
    return Report(
        pack=printable(str(pack)),
        ok=verdict.ok,
        org=printable(verdict.org),
        entries=verdict.entries,
        start=verdict.start,
        end=verdict.end,
        filtered=verdict.filtered,
        checkpoint_size=verdict.checkpoint_size,
        faults=[printable(f"{fault.where}: {fault.what}") for fault in verdict.faults],
        proven=[printable(text) for text in verdict.proven],
        unproven=[printable(text) for text in verdict.unproven],
    )


def _say(session: Session, report: Report) -> None:
    for text in report.unproven:
        session.out.say(f"not proven: {text}")
    if not report.ok:
        return
    for text in report.proven:
        session.out.line(f"proven: {text}")
    held = f"{report.entries} entries of '{report.org}'"
    if report.filtered:
        what = f"in the log of {report.checkpoint_size}, each at its place, unchanged"
    elif (report.start, report.end) == (0, report.checkpoint_size):
        what = "whole, in order, unchanged"
    else:
        what = f"all of [{report.start}, {report.end}) in the log of {report.checkpoint_size}, in order, unchanged"
    session.out.line(f"{report.pack}: {held}, {what}")


def _faults(report: Report) -> list[str]:
    if report.ok:
        return []
    count = "1 fault" if len(report.faults) == 1 else f"{len(report.faults)} faults"
    return [f"{report.pack} does not verify: {count}", *(f"  {fault}" for fault in report.faults)]
