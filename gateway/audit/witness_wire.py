"""What is said between a log and a witness (C2SP tlog-witness), for both ends. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple

from gateway.audit.note import NOTE_MAX, Checkpoint, NoteError, base64, parse_checkpoint

PROOF_MAX = 63
SIZE_TYPE = "text/x.tlog.size"
"""Content type of the 409 that says which size the witness knows."""
BODY_MAX = 4 * NOTE_MAX
"""Bytes of a whole submission: a note of the longest kind in UTF-8, and its proof."""

_SIZE_MAX = 2**63 - 1


class Submission(NamedTuple):
    """A body of `add-checkpoint`: `proof` shows that the tree of `note` begins with the `old` leaves known."""

    old: int
    proof: tuple[bytes, ...]
    note: str


def submission(old: int, proof: Sequence[bytes], note: str) -> bytes:
    """The body of a request. Raises ValueError for a proof that no tree needs."""
    if len(proof) > PROOF_MAX:
        raise ValueError(f"a proof of {len(proof)} hashes: {PROOF_MAX} are the most")
    lines = [f"old {old}\n", *(f"{b64encode(one).decode()}\n" for one in proof)]
    return "".join([*lines, "\n", note]).encode()


def parse_submission(body: bytes) -> Submission:
    """Read a request's body; what it says is not judged. Raises `NoteError`."""
    if len(body) > BODY_MAX:
        raise NoteError(f"the body is longer than {BODY_MAX} bytes")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise NoteError("the body is not UTF-8") from None
    head, gap, note = text.partition("\n\n")
    first, *lines = head.split("\n")
    if not gap or not first.startswith("old "):
        raise NoteError("the body is not 'old N', the proof's lines, an empty line and a checkpoint")
    if len(lines) > PROOF_MAX:
        raise NoteError(f"the proof has {len(lines)} lines: {PROOF_MAX} are the most")
    proof = tuple(base64(line, "a line of the proof") for line in lines)
    if any(len(one) != 32 for one in proof):
        raise NoteError("a line of the proof is not a hash of 32 bytes")
    return Submission(parse_size(first.removeprefix("old ")), proof, note)


def parse_size(text: str) -> int:
    """A tree size as the protocol writes it: plain decimal. Raises `NoteError`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or str(int(text)) != text:
        raise NoteError("a size is not a plain decimal number")
    size = int(text)
    if size > _SIZE_MAX:
        raise NoteError("a size is larger than any tree")
    return size


def tree_head(text: str) -> Checkpoint:
    """Origin, size and root of a checkpoint of any log: extension lines may follow them. Raises `NoteError`."""
    lines = text.split("\n")
    if "" in lines[3:-1]:
        raise NoteError("a checkpoint has no empty line")
    head = parse_checkpoint("\n".join([*lines[:3], ""]))
    parse_size(str(head.size))
    return head
