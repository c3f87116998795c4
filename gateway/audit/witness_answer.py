"""What a witness's answer means to the log that asked (C2SP tlog-witness). Pure."""

from __future__ import annotations

from typing import NamedTuple

from gateway.audit.cosignature import CosignerKey, verified
from gateway.audit.note import NoteError, parse_lines
from gateway.audit.witness_wire import SIZE_TYPE, parse_size

ANSWER_MAX = 64 * 1024

_MEANING = {
    400: "it cannot read what it was sent",
    403: "it has another key for this log",
    404: "it does not serve this log",
    422: "what it knows is no beginning of this log: it has seen another history",
}


class Reply(NamedTuple):
    """An HTTP response: `kind` is its content type."""

    status: int
    body: bytes
    kind: str = ""


class Cosignature(NamedTuple):
    """The line, with its newline, and the witness's time in it (Unix seconds)."""

    line: str
    at: int


class Knows(NamedTuple):
    """Its last checkpoint has so many entries: the proof has to begin there."""

    size: int


class WitnessError(Exception):
    """No cosignature, why in words: nothing of the witness's own is in them but numbers.

    `own`: it concerns this log alone, the witness may well serve others.
    """

    def __init__(self, message: str, *, own: bool = False) -> None:
        super().__init__(message)
        self.own = own


def understood(reply: Reply, text: str, key: CosignerKey) -> Cosignature | Knows:
    """What a reply to the checkpoint `text` (without signatures) says. Raises `WitnessError`."""
    if reply.status == 200:
        return _cosignature(reply, text, key)
    if reply.status == 409 and reply.kind.partition(";")[0].strip().lower() == SIZE_TYPE:
        try:
            return Knows(parse_size(reply.body[:32].decode("ascii").removesuffix("\n")))
        except (NoteError, UnicodeDecodeError):
            raise WitnessError("it answered status 409 with something that is no size") from None
    meaning = _MEANING.get(reply.status)
    raise WitnessError(
        f"it answered status {reply.status}" + (f": {meaning}" if meaning else ""), own=bool(meaning)
    )


def _cosignature(reply: Reply, text: str, key: CosignerKey) -> Cosignature:
    try:
        lines = parse_lines(reply.body.decode())
        mine = [line for line in lines if (line.name, line.raw[:4]) == (key.name, key.id)]
        if len(mine) != 1:
            raise NoteError("the key that the policy has for it did not cosign")
        return Cosignature(str(mine[0]), verified(text, mine[0], key))
    except UnicodeDecodeError:
        raise WitnessError("it answered status 200 with something that is no signature") from None
    except NoteError as error:
        raise WitnessError(f"it answered status 200, but {error}") from None
