"""Cosignatures, against the example that the specification publishes and against every way to spoil one."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.cosignature import (
    TIME_MAX,
    CosignerKey,
    cosign,
    cosigned,
    key_of,
    parse_cosigner_key,
    verified,
)
from gateway.audit.note import NoteError, open_note, parse_lines, split_note
from tests.fakes.audit import ACME, SIGNER

# C2SP tlog-cosignature: the example of its introduction and, under "Ed25519 signed message", the time in it
EXAMPLE = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa"
    " Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1"
    " jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
# What the witness of github.com/transparency-dev/witness, at 54dbcdd, answered to this checkpoint
THEIRS = (
    "gateway.example/audit/acme\n20\ne7AxQ+iZCseKzehWq7pzXgUkTwTDP6d5uMRbTe824cE=\n",
    "— go.example/w"
    " Gm1ZkgAAAABrAYbTis2byURZCqM6wowtv7daD8JNDSEaGy79Pfaay3m7tWargTHn+UQSBHQA496nfL/J919hZadRNKmL9k6DcN8vBg==\n",
    "go.example/w+1a6d5992+BHGMEWl8YAq/P8RmqsiMplKno4Hluw3k+VYVfyH1XT7x",
)
NOTE = SIGNER.checkpoint(ACME, 3, bytes(32))
TEXT = split_note(NOTE)[0]
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
NAME = "witness.example/w1"
KEY = key_of(NAME, PRIVATE)
AT = 1_763_690_000
LINE = cosign(TEXT, NAME, PRIVATE, AT)


def test_the_published_line_holds_the_published_time() -> None:
    _, lines = split_note(EXAMPLE)
    assert lines[1].name == "witness.example.com/w1"
    assert int.from_bytes(lines[1].raw[4:12], "big") == 1_679_315_147
    assert len(lines[1].raw) == 4 + 8 + 64
    assert str(lines[1]) == EXAMPLE.splitlines(keepends=True)[-1]


def test_the_cosignature_of_another_implementation_verifies() -> None:
    text, line, key = THEIRS
    assert verified(text, line, parse_cosigner_key(key)) == 1_795_262_163
    with pytest.raises(NoteError, match="is wrong"):
        verified(text.replace("\n20\n", "\n21\n"), line, parse_cosigner_key(key))


def test_a_cosignature_verifies_and_tells_its_time() -> None:
    assert verified(TEXT, LINE, KEY) == AT
    assert verified(TEXT, parse_lines(LINE)[0], KEY) == AT
    assert cosigned(NOTE + LINE, [KEY]) == {KEY: AT}


def test_what_is_signed_are_two_lines_and_the_note() -> None:
    signature = parse_lines(LINE)[0].raw[12:]
    PRIVATE.public_key().verify(signature, f"cosignature/v1\ntime {AT}\n{TEXT}".encode())


def test_a_key_reads_back_and_differs_from_a_log_key_of_the_same_bytes() -> None:
    assert parse_cosigner_key(f"{KEY}\n") == KEY
    log = SIGNER.key(ACME)
    assert CosignerKey(log.name, log.public).id != log.id


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("nothing", "form"),
        ("two words+00000000+AAAA", "form"),
        (f"{NAME}+{KEY.id.hex()}+?", "base64"),
        (str(SIGNER.key(ACME)), "it is a log's"),
        (f"{NAME}+00000000+{b64encode(bytes([6]) + bytes(1312)).decode()}", "ML-DSA"),
        (f"{NAME}+00000000+{b64encode(bytes([4]) + bytes(31)).decode()}", "not an Ed25519 cosignature key"),
        (f"{NAME}+00000000+{b64encode(bytes([9]) + bytes(32)).decode()}", "not an Ed25519 cosignature key"),
        (str(KEY).replace("w1+", "w2+"), "id does not fit"),
    ],
)
def test_a_key_that_is_none_is_refused(key: str, said: str) -> None:
    with pytest.raises(NoteError, match=said):
        parse_cosigner_key(key)


def test_every_bit_of_a_cosignature_counts() -> None:
    name, raw = parse_lines(LINE)[0]
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(NoteError):
            verified(TEXT, f"— {name} {b64encode(changed).decode()}\n", KEY)


@pytest.mark.parametrize("raw", [b"", bytes(75), bytes(77)], ids=len)
def test_a_line_of_another_length_is_refused(raw: bytes) -> None:
    line = f"— {NAME} {b64encode(KEY.id + raw).decode()}\n"
    with pytest.raises(NoteError, match="bytes long"):
        verified(TEXT, line, KEY)


@pytest.mark.parametrize("at", [0, TIME_MAX + 1, 2**64 - 1])
def test_a_time_out_of_range_is_neither_made_nor_taken(at: int) -> None:
    with pytest.raises(ValueError, match="no time"):
        cosign(TEXT, NAME, PRIVATE, at)
    signature = PRIVATE.sign(f"cosignature/v1\ntime {at}\n{TEXT}".encode())
    line = f"— {NAME} {b64encode(KEY.id + at.to_bytes(8, 'big') + signature).decode()}\n"
    with pytest.raises(NoteError, match="no time"):
        verified(TEXT, line, KEY)


def test_the_largest_time_is_one() -> None:
    assert verified(TEXT, cosign(TEXT, NAME, PRIVATE, TIME_MAX), KEY) == TIME_MAX


def test_another_checkpoint_another_name_and_another_key_are_refused() -> None:
    with pytest.raises(NoteError, match="is wrong"):
        verified(TEXT.replace("\n3\n", "\n2\n"), LINE, KEY)
    with pytest.raises(NoteError, match=r"not of witness\.example/w2"):
        verified(TEXT, LINE, key_of("witness.example/w2", PRIVATE))
    with pytest.raises(NoteError, match="not of"):
        verified(TEXT, LINE, key_of(NAME, Ed25519PrivateKey.from_private_bytes(bytes(32))))
    with pytest.raises(NoteError, match="one signature line"):
        verified(TEXT, LINE + LINE, KEY)


def test_a_log_signature_is_no_cosignature_nor_the_other_way_round() -> None:
    log = SIGNER.key(ACME)
    _, (line,) = split_note(NOTE)
    with pytest.raises(NoteError, match="not of"):
        verified(TEXT, line, CosignerKey(log.name, log.public))
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    with pytest.raises(NoteError, match="not signed by"):
        open_note(f"{TEXT}\n{cosign(TEXT, log.name, private, AT)}", log)


def test_lines_of_others_are_ignored_but_not_wrong_ones_of_the_known() -> None:
    assert cosigned(EXAMPLE, [KEY]) == {}
    wrong = cosign("another\n1\n" + b64encode(bytes(32)).decode() + "\n", NAME, PRIVATE, AT)
    with pytest.raises(NoteError, match="is wrong"):
        cosigned(NOTE + wrong, [KEY])
    assert cosigned(NOTE + wrong, []) == {}
    with pytest.raises(NoteError, match="twice"):
        cosigned(NOTE + LINE + LINE, [KEY])


def test_a_note_stays_one_with_cosignatures_under_it() -> None:
    assert open_note(NOTE + LINE, SIGNER.key(ACME)) == TEXT
    assert b64decode(LINE.split()[2])[:4] == KEY.id
