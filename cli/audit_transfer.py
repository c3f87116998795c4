"""Entries as they come from the server: whole lines in order, going on by itself where a connection breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec import DecodeError, Struct, json

from cli.audit_log import path
from cli.errors import RefusedError, UnreachableError
from cli.session import Session

LINE_MAX: Final = 64 * 1024
HASH: Final = 32
WHAT: Final = "the audit log"
LAST_LINE: Final = b"\n"
"""Of an answer with filters, when it is whole."""
GOING_ON: Final = b" \n"


class _Place(Struct):
    index: int
    org: str


_place = json.Decoder(_Place).decode


def entries(session: Session, start: int, end: int, asked: Mapping[str, str | int]) -> Iterator[list[bytes]]:
    """The lines of the entries [start, end) that match what is `asked`, each with its newline, some at a time.

    What comes is held against what was asked for: of this organization, in order, within the range, and without
    filters without a gap. Raises `RefusedError` when it is not so, `UnreachableError` when a connection breaks
    before it brought anything.
    """
    at = start
    while at < end:
        before, whole = at, False
        try:
            for lines in _lines(_pieces(session, at, end, asked)):
                whole = lines[-1] == LAST_LINE
                found = [line for line in lines if line not in (LAST_LINE, GOING_ON)]
                for line in found:
                    at = _checked(line, session.org, at, end, gaps=bool(asked))
                if found:
                    yield found
        except UnreachableError:
            whole = False
            if at == before:
                raise
        if asked and whole:
            return
        if at == before:
            raise RefusedError(f"the server's answer ends before entry {at}, of {end}")


def leaves(session: Session, start: Callable[[], int], end: int) -> Iterator[bytes]:
    """The hashes of the leaves [start, end), 32 bytes each, some at a time. `start` says from where on, also after
    a connection broke."""
    while (at := start()) < end:
        rest = b""
        asked = {"start": at, "end": end}
        try:
            for piece in session.client.download(path(session, "leaves"), what="the log's hashes", params=asked):
                rest += piece
                cut = len(rest) - len(rest) % HASH
                if cut:
                    yield rest[:cut]
                rest = rest[cut:]
        except UnreachableError:
            if start() == at:
                raise
        if start() == at:
            raise RefusedError(f"the server's answer ends before hash {at}, of {end}")


def _pieces(session: Session, start: int, end: int, asked: Mapping[str, str | int]) -> Iterator[bytes]:
    if asked:
        params = {**asked, "after": start, "end": end}
        return session.client.download(path(session, "export"), what=WHAT, params=params)
    return session.client.download(path(session, "log"), what=WHAT, params={"start": start, "end": end})


def _lines(pieces: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Whole lines; one that was cut off at the end is left out, it comes again."""
    rest = b""
    for piece in pieces:
        whole, newline, rest = (rest + piece).rpartition(b"\n")
        if newline:
            yield [line + newline for line in whole.split(newline)]
        if len(rest) > LINE_MAX:
            raise RefusedError(f"the server sent a line of more than {LINE_MAX} bytes: that is no entry")


def _checked(line: bytes, org: str, at: int, end: int, *, gaps: bool) -> int:
    """The index behind that of `line`."""
    try:
        place = _place(line)
    except DecodeError:
        raise RefusedError(f"what the server sent for entry {at} is no entry") from None
    if place.org != org or not at <= place.index < end or (place.index != at and not gaps):
        raise RefusedError(
            f"the server sent an entry {place.index} of {place.org!r} where {at} of {org!r} was due"
        )
    return place.index + 1
