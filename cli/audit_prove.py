"""`orgate audit prove`: that one entry is in the log, in a file that anybody can check offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from cli.audit_evidence import (
    Key,
    Witnesses,
    hashes,
    log_key,
    new_file,
    opened,
    policy,
    said,
    server_key,
    small_file,
)
from cli.audit_log import path as log_path
from cli.command import command
from cli.errors import NotFoundError, RefusedError, UsageError
from cli.examples import examples
from cli.output import Format, instant, printable
from cli.progress import progress
from cli.session import Session

if TYPE_CHECKING:
    from gateway.audit.note import VerifierKey
    from gateway.audit.tlogproof import ProofVerdict


class Inclusion(Struct, frozen=True):
    """What the server says of an entry: its line, and the hashes (base64) that lead to the root over `size`."""

    index: int
    size: int
    entry: str
    hashes: list[str]


class Place(Struct, frozen=True):
    index: int
    before: int


class Proof(Struct, frozen=True):
    """A proof that was written. `entries`: how many the checkpoint in it is over."""

    file: str
    org: str
    index: int
    entries: int


class Checked(Struct, frozen=True):
    """What was found of a proof. `entries`: how many the checkpoint is over, -1 when there is none to read."""

    ok: bool
    log: str
    index: int
    entries: int
    faults: list[str]
    proven: list[str]
    unproven: list[str]


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    command(
        app,
        examples(
            "orgate audit prove 4711",
            "orgate audit prove req_0123456789abcdefghjk --to evidence.tlog-proof",
            "orgate audit prove --check evidence.tlog-proof --key acme.key",
            "orgate audit prove --check evidence.tlog-proof --witnesses witnesses.txt --entry entry.json",
        ),
    )(prove)


def prove(
    session: Session,
    *,
    entry: Annotated[
        str | None, typer.Argument(help="An index, a document's id or a request's.", metavar="ENTRY")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="The file to write; else ORG-INDEX.tlog-proof.", metavar="FILE")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Check this proof instead, offline: exit code 1 if it shows nothing.")
    ] = None,
    entry_file: Annotated[
        Path | None,
        typer.Option("--entry", help="With --check: the entry that it has to be about.", metavar="FILE"),
    ] = None,
    key: Key = None,
    witnesses: Witnesses = None,
) -> None:
    """Write a proof that one entry is in the log, which anybody can check without the server; or check one.

    The proof is a text file (C2SP tlog-proof): the entry, its place, the way to the root, the signed checkpoint.
    """
    if check is not None:
        if entry is not None or to is not None:
            raise UsageError("--check takes neither an ENTRY nor --to", "the proof says which entry it is about")
        _check(session, check, entry_file, log_key(key), witnesses)
        return
    if entry_file is not None or key is not None or witnesses is not None:
        raise UsageError("--entry, --key and --witnesses go with --check", "add --check FILE")
    if entry is None:
        raise UsageError("which entry?", "give its index, its document's id or its request's id, or --check FILE")
    _write(session, entry, to)


def _write(session: Session, wanted: str, to: Path | None) -> None:
    from gateway.audit.tlogproof import SUFFIX, TlogProof, check_proof

    index = int(wanted) if wanted.isascii() and wanted.isdecimal() and len(wanted) < 16 else _find(session, wanted)
    checkpoint, signer = said(session, "checkpoint"), server_key(session)
    size = opened(checkpoint, signer, "today's checkpoint").size
    if index >= size:
        raise NotFoundError(
            f"the checkpoint signs no entry {index}: it is over {size}, counted from 0",
            "one that has just been made is signed in seconds; with witnesses, when they have cosigned",
        )
    asked = {"index": index, "size": size}
    answer = session.client.read(log_path(session, "proof"), what=f"entry {index}", params=asked).decode(Inclusion)
    proof = TlogProof(index, hashes(answer.hashes), checkpoint, answer.entry.encode()).text().encode()
    if faults := check_proof(proof, key=signer).faults:
        raise RefusedError(
            f"the server's proof shows nothing, and was not written: {printable('; '.join(faults))}"
        )
    target = (to or Path(f"{session.org}-{index}{SUFFIX}")).expanduser()
    new_file(target, proof)
    session.wrote(
        Proof(str(target), session.org, index, size), f"next: `orgate audit prove --check {target} --key KEY`"
    )


def _find(session: Session, wanted: str) -> int:
    """The index of the entry with this id, searched from the newest back."""
    asked: dict[str, str | int] = {"id": wanted}
    total = before = 0
    with progress("searching", 0) as bar:
        while True:
            answer = session.client.read(log_path(session, "find"), what="the audit log", params=asked)
            place = answer.decode(Place)
            if place.index >= 0:
                return place.index
            if not 0 < place.before < (before or place.before + 1):
                raise NotFoundError(
                    f"no entry has the id {printable(wanted)}", "`orgate audit query` finds entries"
                )
            asked["before"] = before = place.before
            total = max(total, before)
            bar.advance(total - before, total)


def _check(
    session: Session, file: Path, entry: Path | None, key: VerifierKey | None, witnesses: Path | None
) -> None:
    from gateway.audit.tlogproof import check_proof

    rules = policy(witnesses)
    if key is None and not (rules and rules.logs):
        raise UsageError(
            "whose log? Anybody can sign a proof of their own",
            "give the log's key with --key, or --witnesses with a policy that lists the log",
        )
    line = None if entry is None else small_file(entry).removesuffix(b"\n")
    verdict = check_proof(small_file(file), key=key, policy=rules, line=line)
    report = Checked(
        ok=verdict.ok,
        log=printable(verdict.origin),
        index=verdict.index,
        entries=verdict.size,
        faults=[printable(text) for text in verdict.faults],
        proven=[printable(text) for text in verdict.proven],
        unproven=[printable(text) for text in verdict.unproven],
    )
    if session.out.form is Format.TABLE:
        for text in report.proven if report.ok else ():
            session.out.say(f"proven: {text}")
        for text in report.unproven:
            session.out.say(f"not proven: {text}")
        if report.ok:
            session.out.line(f"{file}: entry {report.index} of {report.entries} of {report.log}, unchanged")
            session.out.line(_told(verdict))
    else:
        session.out.item(report)
    if not report.ok:
        raise RefusedError("\n  ".join([f"{file} proves nothing", *report.faults]))


def _told(verdict: ProofVerdict) -> str:
    """The entry in a line."""
    at = verdict.entry.get("@timestamp")
    names = ("action", "actor", "target", "model", "outcome", "request_id")
    texts = [instant(at // 1000)] if isinstance(at, int) else []
    texts += [f"{name}={value}" for name in names if (value := verdict.entry.get(name))]
    return printable("  ".join(texts))
