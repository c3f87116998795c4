"""Signed notes (C2SP signed-note) and checkpoints (C2SP tlog-checkpoint), with Ed25519 (RFC 8032).

Strict where the formats leave freedom: one spelling of each base64, no leading zeros. Knows nothing of files.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

NOTE_MAX = 64 * 1024
_ED25519 = b"\x01"
_DASH = "\u2014 "


class NoteError(ValueError):
    """Not a note, or not one that the key signed. The message says which, in words."""


class VerifierKey(NamedTuple):
    """Whose signature counts: `name` is the log's origin, `public` 32 bytes (RFC 8032)."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64encode(_ED25519 + self.public).decode()}"


class SignatureLine(NamedTuple):
    """Who says to have signed: `raw` is what stands in base64, the key's id (4 bytes) and the signature."""

    name: str
    raw: bytes

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {b64encode(self.raw).decode()}\n"


class Checkpoint(NamedTuple):
    """A signed statement: the tree of `origin` had `size` leaves and this `root`."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


def parse_key(text: str) -> VerifierKey:
    """Read `name+id+base64`; the id must fit the rest. Raises `NoteError`."""
    parts = text.strip().split("+", 2)
    if len(parts) != 3 or not parts[0] or any(c.isspace() for c in parts[0]):
        raise NoteError("the key is not of the form name+id+base64")
    raw = base64(parts[2], "the key")
    if len(raw) != 33 or raw[:1] != _ED25519:
        raise NoteError("the key is not an Ed25519 note key")
    key = VerifierKey(parts[0], raw[1:])
    if key.id.hex() != parts[1]:
        raise NoteError("the key's id does not fit its name and bytes: it was changed")
    return key


def sign(text: str, name: str, private: Ed25519PrivateKey) -> str:
    """`text` (ending in a newline) with the signature of `name` under it."""
    key = VerifierKey(name, private.public_key().public_bytes_raw())
    return f"{text}\n{SignatureLine(name, key.id + private.sign(text.encode()))}"


def split_note(note: str) -> tuple[str, list[SignatureLine]]:
    """The text of a note, newline at its end, and its signature lines; nothing is verified. Raises `NoteError`."""
    if len(note) > NOTE_MAX or any(c < " " and c != "\n" for c in note):
        raise NoteError("the note is too long or holds control characters")
    text, gap, tail = note.rpartition("\n\n")
    if not gap or not tail:
        raise NoteError("the note has no signature lines")
    return text + "\n", parse_lines(tail)


def parse_lines(tail: str) -> list[SignatureLine]:
    """Read signature lines, each with its newline. Raises `NoteError`."""
    lines = tail.split("\n")
    if lines.pop() != "" or not lines:
        raise NoteError("the note has no signature lines")
    found = []
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not name or not encoded:
            raise NoteError("a signature line is malformed")
        found.append(SignatureLine(name, base64(encoded, "a signature")))
    return found


def open_note(note: str, key: VerifierKey) -> str:
    """The text of a note that `key` signed. Raises `NoteError`; signatures of other keys are ignored."""
    text, lines = split_note(note)
    verified = False
    for name, raw in lines:
        if (name, raw[:4]) != (key.name, key.id):
            continue
        if verified:
            raise NoteError(f"{name} has signed twice with one key: a line was repeated")
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(raw[4:], text.encode())
        except (InvalidSignature, ValueError):
            raise NoteError(f"the signature of {name} is wrong: the note or the signature was changed") from None
        verified = True
    if not verified:
        raise NoteError(f"the note is not signed by {key.name} with the key given")
    return text


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a checkpoint (without its signatures). Raises `NoteError`."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise NoteError("a checkpoint has three lines: origin, size and root")
    size = lines[1]
    if not (size.isascii() and size.isdigit()) or str(int(size[:20])) != size:
        raise NoteError("the checkpoint's size is not a plain decimal number")
    root = base64(lines[2], "the checkpoint's root")
    if len(root) != 32:
        raise NoteError("the checkpoint's root is not 32 bytes")
    return Checkpoint(lines[0], int(size), root)


def base64(text: str, what: str) -> bytes:
    """The bytes of `text`, in its one spelling. Raises `NoteError`, which names `what`."""
    try:
        raw = b64decode(text, validate=True)
    except ValueError:
        raise NoteError(f"{what} is not base64") from None
    if b64encode(raw).decode() != text:
        raise NoteError(f"{what} is base64 in another than its one spelling")
    return raw
