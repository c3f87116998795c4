"""Signed notes and checkpoints, against the vectors that the formats' authors published."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.note import (
    NOTE_MAX,
    Checkpoint,
    NoteError,
    VerifierKey,
    open_note,
    parse_checkpoint,
    parse_key,
    sign,
)
from tests.fakes.audit import ACME, GLOBEX, SIGNER

# golang.org/x/mod/sumdb/note, the example of its documentation
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENIGMA = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
KEY = SIGNER.key(ACME)
NOTE = SIGNER.checkpoint(ACME, 3, bytes(32))


def test_the_published_note_opens_with_its_key() -> None:
    assert open_note(ENIGMA, parse_key(PETER)) == ENIGMA.rpartition("\n\n")[0] + "\n"
    assert str(parse_key(PETER + "\n")) == PETER


def test_a_checkpoint_reads_back() -> None:
    assert parse_checkpoint(open_note(NOTE, KEY)) == Checkpoint("gateway.example/audit/acme", 3, bytes(32))
    assert parse_checkpoint(Checkpoint("o", 0, bytes(32)).text()).size == 0


def test_one_key_has_another_name_and_id_in_every_organization() -> None:
    other = SIGNER.key(GLOBEX)
    assert other.public == KEY.public
    assert other.id != KEY.id
    with pytest.raises(NoteError, match="not signed by"):
        open_note(NOTE, other)


def test_signatures_of_unknown_keys_are_ignored() -> None:
    signature = NOTE.rpartition("\n\n")[2]
    assert open_note(NOTE + ENIGMA.rpartition("\n\n")[2], KEY) == open_note(NOTE, KEY)
    with pytest.raises(NoteError, match="not signed by"):
        open_note(NOTE.replace(signature, ENIGMA.rpartition("\n\n")[2]), KEY)


def test_a_signature_line_that_was_repeated_is_refused() -> None:
    with pytest.raises(NoteError, match="signed twice"):
        open_note(NOTE + NOTE.rpartition("\n\n")[2], KEY)


def test_a_public_key_that_is_no_point_is_a_wrong_signature() -> None:
    key = VerifierKey("n", b"\x02" + bytes(30) + b"\xff")
    text = "t\n"
    private = Ed25519PrivateKey.generate()
    own = VerifierKey("n", private.public_key().public_bytes_raw())
    note = sign(text, "n", private)
    import base64

    raw = base64.b64decode(note.split(" ")[-1])
    forged = note.replace(note.split(" ")[-1].strip(), base64.b64encode(key.id + raw[4:]).decode())
    assert own.id != key.id
    with pytest.raises(NoteError, match="is wrong"):
        open_note(forged, key)


@pytest.mark.parametrize(
    ("note", "says"),
    [
        (NOTE.replace("\n3\n", "\n4\n"), "is wrong"),
        (NOTE.removesuffix("\n"), "no signature lines"),
        (NOTE.partition("\n\n")[0] + "\n", "no signature lines"),
        (NOTE.partition("\n\n")[0] + "\n\n", "no signature lines"),
        (NOTE.replace("— ", "- "), "malformed"),
        (NOTE.replace(" gateway.example/audit/acme ", " "), "malformed"),
        (NOTE.replace("=\n", "\n"), "not base64"),
        (NOTE[:-4] + "!==\n", "not base64"),
        (NOTE + "\t", "control characters"),
        ("x" * NOTE_MAX + NOTE, "too long"),
    ],
)
def test_a_note_that_was_changed_does_not_open(note: str, says: str) -> None:
    with pytest.raises(NoteError) as caught:
        open_note(note, KEY)
    assert says in str(caught.value)


def test_another_spelling_of_the_same_base64_is_refused() -> None:
    root = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    with pytest.raises(NoteError, match="one spelling"):
        parse_checkpoint(f"o\n1\n{root[:-2]}B=\n")


@pytest.mark.parametrize(
    "text", ["o\n1\n", "o\n1\nAAAA\n", "\n1\nAAAA\n", "o\n01\nAAAA\n", "o\n-1\nAAAA\n", "o\n٣\nAAAA\n"]
)
def test_a_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        parse_checkpoint(text)


def test_extension_lines_are_refused() -> None:
    with pytest.raises(NoteError, match="three lines"):
        parse_checkpoint(Checkpoint("o", 1, bytes(32)).text() + "more\n")


def test_a_size_beyond_reason_is_refused() -> None:
    with pytest.raises(NoteError, match="decimal"):
        parse_checkpoint("o\n" + "9" * 5000 + "\nAAAA\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name+00000000", "form"),
        ("+c74f20a3+ARpc", "form"),
        ("a b+c74f20a3+ARpc", "form"),
        (PETER[:-4], "not an Ed25519"),
        (PETER.replace("+AR", "+BR"), "not an Ed25519"),
        (PETER.replace("c74f20a3", "c74f20a4"), "id does not fit"),
        (PETER.replace("Peter", "Pater"), "id does not fit"),
        (PETER[:-1] + "*", "not base64"),
    ],
)
def test_a_key_that_was_changed_is_refused(text: str, says: str) -> None:
    with pytest.raises(NoteError) as caught:
        parse_key(text)
    assert says in str(caught.value)
