"""Cosignatures of checkpoints (C2SP tlog-cosignature), `cosignature/v1` with Ed25519, signature type 0x04.

A cosignature says: at this time, this checkpoint was the largest that its witness had seen of the log, and it
continued all it had seen before. What is signed is not the note's text alone, so the signature of a log can
never pass for a cosignature, nor the other way round. Pure; knows nothing of files and of the network.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.audit.note import NoteError, SignatureLine, base64, parse_lines, split_note

TIME_MAX = 2**63 - 1
_TYPE = b"\x04"
_ML_DSA = b"\x06"
_LINE_BYTES = 4 + 8 + 64


class CosignerKey(NamedTuple):
    """Whose cosignature counts: `name` is the witness's, `public` 32 bytes (RFC 8032)."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + _TYPE + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64encode(_TYPE + self.public).decode()}"


def parse_cosigner_key(text: str) -> CosignerKey:
    """Read `name+id+base64` (C2SP signed-note verifier key) of signature type 0x04. Raises `NoteError`."""
    parts = text.strip().split("+", 2)
    if len(parts) != 3 or not parts[0] or any(c.isspace() for c in parts[0]):
        raise NoteError("the key is not of the form name+id+base64")
    raw = base64(parts[2], "the key")
    if raw[:1] == b"\x01":
        raise NoteError("the key signs notes, it is a log's: a witness's key has signature type 0x04")
    if raw[:1] == _ML_DSA:
        raise NoteError("the key is an ML-DSA-44 key: only cosignatures with Ed25519 are known here")
    if len(raw) != 33 or raw[:1] != _TYPE:
        raise NoteError("the key is not an Ed25519 cosignature key")
    key = CosignerKey(parts[0], raw[1:])
    if key.id.hex() != parts[1]:
        raise NoteError("the key's id does not fit its name and bytes: it was changed")
    return key


def key_of(name: str, private: Ed25519PrivateKey) -> CosignerKey:
    """What verifies the cosignatures of `name`, who signs with `private`."""
    return CosignerKey(name, private.public_key().public_bytes_raw())


def cosign(text: str, name: str, private: Ed25519PrivateKey, at: int) -> str:
    """The signature line, with its newline, of `name` under a checkpoint's `text` at `at` (Unix seconds).

    `text` is the note without signatures, ending in its newline. Raises ValueError for a time out of range.
    """
    if not 0 < at <= TIME_MAX:
        raise ValueError(f"{at} is no time of a cosignature")
    signed = at.to_bytes(8, "big") + private.sign(_message(text, at))
    return str(SignatureLine(name, key_of(name, private).id + signed))


def verified(text: str, line: str | SignatureLine, key: CosignerKey) -> int:
    """When `key` cosigned the checkpoint `text`, in Unix seconds. Raises `NoteError`.

    `line` is one signature line, with its newline. One of another name or key is refused like a wrong one.
    """
    if isinstance(line, str):
        lines = parse_lines(line)
        if len(lines) != 1:
            raise NoteError(f"one signature line is expected here, not {len(lines)}")
        line = lines[0]
    if (line.name, line.raw[:4]) != (key.name, key.id):
        raise NoteError(f"the line is not of {key.name} with the key given")
    if len(line.raw) != _LINE_BYTES:
        raise NoteError(f"the cosignature of {key.name} is not {_LINE_BYTES} bytes long")
    at = int.from_bytes(line.raw[4:12], "big")
    if not 0 < at <= TIME_MAX:
        raise NoteError(f"the cosignature of {key.name} has no time")
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(line.raw[12:], _message(text, at))
    except (InvalidSignature, ValueError):
        raise NoteError(
            f"the cosignature of {key.name} is wrong: the checkpoint, the time or the signature was changed"
        ) from None
    return at


def cosigned(note: str, keys: Collection[CosignerKey]) -> Mapping[CosignerKey, int]:
    """Who of `keys` cosigned a note, and when (Unix seconds); lines of others are ignored.

    Raises `NoteError` for a note that is none, and when one of `keys` stands there with a wrong cosignature or
    twice: a known name whose signature fails makes the whole note doubtful (C2SP signed-note).
    """
    text, lines = split_note(note)
    known = {(key.name, key.id): key for key in keys}
    found: dict[CosignerKey, int] = {}
    for line in lines:
        key = known.get((line.name, line.raw[:4]))
        if key is None:
            continue
        if key in found:
            raise NoteError(f"{key.name} has cosigned twice with one key: a line was repeated")
        found[key] = verified(text, line, key)
    return found


def _message(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()
