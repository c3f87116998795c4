"""What commands about evidence share: what an auditor has from elsewhere, what the log says of itself, files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.audit_log import path as log_path
from cli.errors import RefusedError, UsageError
from cli.output import printable
from cli.session import Session

if TYPE_CHECKING:
    from gateway.audit.note import Checkpoint, VerifierKey
    from gateway.audit.policy import Policy

SMALL_MAX = 256 * 1024

Key = Annotated[
    str | None,
    typer.Option(help="The log's key (a file, or its text) as you got it apart from this.", metavar="KEY"),
]
Witnesses = Annotated[
    Path | None,
    typer.Option(help="A policy (C2SP tlog-policy): whose cosignatures it takes.", metavar="FILE"),
]


def log_key(given: str | None) -> VerifierKey | None:
    """The key of `--key`. Raises `UsageError`."""
    return None if given is None else read_key(given, "--key ")


def read_key(given: str, option: str = "") -> VerifierKey:
    """A log's key, or that of a file; `option` stands before it in what is said. Raises `UsageError`."""
    from gateway.audit.note import NoteError, parse_key

    path = Path(given)
    try:
        is_file = path.is_file()
        text = path.read_text(encoding="utf-8").strip() if is_file else given
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}{printable(given)}: cannot be read: {error}") from None
    try:
        return parse_key(text)
    except NoteError as error:
        wrong = str(error) if is_file or "+" in given else "there is no such file, and it is no key"
        fix = "give the log's key, name+id+base64, or the file that holds it: a pack has one, called key"
        raise UsageError(f"{option}{printable(given)}: {wrong}", fix) from None


def policy(path: Path | None) -> Policy | None:
    """The policy of `--witnesses`. Raises `UsageError`."""
    if path is None:
        return None
    from gateway.audit.policy import PolicyError, parse_policy

    try:
        return parse_policy(small_file(path))
    except PolicyError as error:
        raise UsageError(
            f"--witnesses {path}: {error}", "see c2sp.org/tlog-policy for how one is written"
        ) from None


def small_file(path: Path) -> bytes:
    """What a file holds, and of a longer one a byte more than `SMALL_MAX`. Raises `UsageError`."""
    try:
        with path.open("rb") as file:
            return file.read(SMALL_MAX + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def said(session: Session, what: str, **params: str) -> str:
    """The log's `checkpoint` or `key`, as the server gives it today. Its remarks are shown."""
    answer = session.client.read(log_path(session, what), what=f"the log's {what}", params=params)
    for remark in answer.remarks:
        session.out.say(f"remark: {remark}")
    return answer.body.decode(errors="replace")


def server_key(session: Session) -> VerifierKey:
    """The log's key as the server gives it: good for nothing that the server could want to deny."""
    from gateway.audit.note import NoteError, parse_key

    try:
        return parse_key(said(session, "key"))
    except NoteError as error:
        raise RefusedError(f"the server's key cannot be understood: {error}") from None


def opened(note: str, key: VerifierKey, what: str) -> Checkpoint:
    """The checkpoint in a note that `key` signed. Raises `RefusedError`, which begins with `what`."""
    from gateway.audit.note import NoteError, open_note, parse_checkpoint

    try:
        return parse_checkpoint(open_note(note, key))
    except NoteError as error:
        raise RefusedError(
            f"{what}: {printable(str(error))}", "is it a checkpoint of this log, and the log's key?"
        ) from None


def hashes(texts: list[str]) -> list[bytes]:
    """Hashes as the server spells them. Raises `RefusedError`."""
    from gateway.audit.note import NoteError, base64

    try:
        return [base64(text, "a hash") for text in texts]
    except NoteError as error:
        raise RefusedError(f"the server's proof cannot be understood: {error}") from None


def new_file(path: Path, data: bytes) -> None:
    """Write a file that is not there yet; whole when it has its name. Raises `UsageError`, `RefusedError`."""
    part = path.with_name(path.name + ".part")
    try:
        if path.exists():
            raise FileExistsError
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except FileExistsError:
        raise UsageError(f"{path} exists, and evidence is never written over", "name another file") from None
    except OSError as error:
        raise RefusedError(
            f"{error.filename or path}: {error.strerror}", "is there room, and may you write?"
        ) from None
