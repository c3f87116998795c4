"""Proofs in a file: spelt as the specification says, judged in words, and no changed one passes."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit import cosignature
from gateway.audit.canonical import canonical
from gateway.audit.merkle import HashTree, leaf_hash
from gateway.audit.note import Checkpoint, VerifierKey, sign
from gateway.audit.policy import parse_policy
from gateway.audit.proofs import inclusion, root
from gateway.audit.signer import Signer
from gateway.audit.tlogproof import HEADER, PROOF_MAX, ProofError, TlogProof, check_proof, parse_proof
from tests.fakes.audit import ACME, GLOBEX, SIGNER, lines

COUNT = 12
LINES, _ = lines(COUNT)
TREE = HashTree(map(leaf_hash, LINES))
NOTE = SIGNER.checkpoint(ACME, COUNT, root(TREE, COUNT))
KEY = SIGNER.key(ACME)
OWN = Ed25519PrivateKey.from_private_bytes(bytes(range(3, 35)))
WITNESS = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
COSIGNED = NOTE + cosignature.cosign(NOTE.partition("\n\n")[0] + "\n", "witness.example", WITNESS, 1_763_690_000)
POLICY = f"log {KEY}\nwitness w {cosignature.key_of('witness.example', WITNESS)}\nquorum w\n"


def proof(index: int = 7, note: str = NOTE, extra: bytes | None = None) -> TlogProof:
    return TlogProof(index, inclusion(TREE, index, COUNT), note, LINES[index] if extra is None else extra)


def test_a_proof_is_spelt_as_the_specification_says() -> None:
    text = proof(7).text()
    head, _, note = text.partition("\n\n")
    rows = head.split("\n")
    assert rows[0] == "c2sp.org/tlog-proof@v1"
    assert rows[1] == "extra " + b64encode(LINES[7]).decode()
    assert rows[2] == "index 7"
    assert rows[3:] == [b64encode(one).decode() for one in inclusion(TREE, 7, COUNT)]
    assert note == NOTE
    assert parse_proof(text.encode()) == proof(7)
    assert "extra" not in proof(7, extra=b"").text()
    assert parse_proof(proof(7, extra=b"").text().encode()) == proof(7, extra=b"")


@pytest.mark.parametrize("index", range(COUNT))
def test_every_entry_can_be_proved(index: int) -> None:
    found = check_proof(proof(index).text().encode(), key=KEY)
    assert found.ok, found.faults
    assert (found.origin, found.index, found.size) == (KEY.name, index, COUNT)
    assert found.entry["index"] == index
    (unproven,) = found.unproven
    assert "operator alone signed" in unproven


def test_the_only_entry_of_a_log_needs_no_hash() -> None:
    note = SIGNER.checkpoint(ACME, 1, root(TREE, 1))
    text = TlogProof(0, [], note, LINES[0]).text()
    assert "\nindex 0\n\n" in text
    assert check_proof(text.encode(), key=KEY).ok


def test_the_entry_may_come_apart_from_the_proof() -> None:
    bare = proof(7, extra=b"").text().encode()
    assert check_proof(bare, key=KEY, line=LINES[7]).ok
    assert check_proof(bare, key=KEY).faults == ["the proof does not hold the entry: give it apart"]
    (fault,) = check_proof(bare, key=KEY, line=LINES[6]).faults
    assert fault.startswith("the entry is not entry 7 of the 12 that the checkpoint signs")
    apart = check_proof(proof(7).text().encode(), key=KEY, line=LINES[6])
    assert apart.faults[0] == "the entry that was given is not the one that the proof is about"
    assert apart.entry == {}


def test_witnesses_are_asked_for() -> None:
    policy = parse_policy(POLICY)
    found = check_proof(proof(3, COSIGNED).text().encode(), policy=policy)
    assert (found.ok, found.unproven) == (True, [])
    assert "w at 2025-11-21" in found.proven[0]
    bare = check_proof(proof(3).text().encode(), key=KEY, policy=policy)
    assert "quorum w is not met" in bare.faults[0]
    nobody = check_proof(proof(3).text().encode(), policy=parse_policy(f"log {KEY}\nquorum none\n"))
    assert nobody.ok
    assert nobody.unproven


def test_whose_signature_counts_has_to_be_known() -> None:
    with pytest.raises(ValueError, match="whose signature"):
        check_proof(proof().text().encode())
    with pytest.raises(ValueError, match="whose signature"):
        check_proof(proof().text().encode(), policy=parse_policy("quorum none\n"))
    stranger = Signer("gateway.example", WITNESS)
    faults = check_proof(proof().text().encode(), key=stranger.key(ACME)).faults
    assert faults == ["the note is not signed by gateway.example/audit/acme with the key given"]
    listed = parse_policy(f"log {stranger.key(ACME)}\nquorum none\n")
    assert check_proof(proof().text().encode(), policy=listed).faults
    assert check_proof(proof().text().encode(), key=SIGNER.key(GLOBEX)).faults
    other = sign(Checkpoint("elsewhere/audit/acme", COUNT, root(TREE, COUNT)).text(), KEY.name, SIGNER._private)
    (fault,) = check_proof(proof(note=other).text().encode(), key=KEY).faults
    assert fault == "the checkpoint is of 'elsewhere/audit/acme', and the key of 'gateway.example/audit/acme'"


def test_an_entry_of_another_place_or_organization_is_told() -> None:
    """The operator can put any line into a tree, and sign it."""
    wrong = [LINES[1], LINES[0], lines(3, GLOBEX)[0][2], b"not an entry"]
    tree = HashTree(map(leaf_hash, wrong))
    note = SIGNER.checkpoint(ACME, 4, root(tree, 4))
    said = []
    for index in range(4):
        made = TlogProof(index, inclusion(tree, index, 4), note, wrong[index])
        said += check_proof(made.text().encode(), key=KEY).faults
    assert said[:2] == [
        "the entry calls itself entry 1, and stands at 0",
        "the entry calls itself entry 0, and stands at 1",
    ]
    assert said[2] == "the entry belongs to another organization than the log 'gateway.example/audit/acme'"
    assert said[3].startswith("what is in the log there is no entry: the line is not JSON")


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"index": True, "org": "acme"}, "calls itself entry True"),
        ({"index": 1, "org": 7}, "another organization"),
    ],
)
def test_a_place_is_a_number_and_an_organization_a_text(members: dict[str, object], says: str) -> None:
    """Else what one verifier takes, another one refuses."""
    wrong = [LINES[0], canonical(members)]
    tree = HashTree(map(leaf_hash, wrong))
    signer = KEY.name.replace("acme", str(members["org"]))
    note = sign(Checkpoint(signer, 2, root(tree, 2)).text(), signer, OWN)
    made = TlogProof(1, inclusion(tree, 1, 2), note, wrong[1]).text().encode()
    (fault,) = check_proof(made, key=VerifierKey(signer, OWN.public_key().public_bytes_raw())).faults
    assert says in fault


def test_no_byte_of_a_proof_can_be_another() -> None:
    """Each byte is bound by the signature, or has one spelling: none can be changed, left out or doubled."""
    whole = proof(7).text().encode()
    for at in range(len(whole)):
        flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        for changed in (flipped, whole[:at] + whole[at + 1 :], whole[: at + 1] + whole[at:]):
            assert changed == whole or not check_proof(changed, key=KEY).ok, (
                at,
                changed[max(at - 20, 0) : at + 20],
            )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (proof(index=7).text().replace("index 7", "index 07"), "plain decimal"),
        (proof(index=7).text().replace("index 7", "index -7"), "plain decimal"),
        (proof(index=7).text().replace("index 7", "index ٧"), "plain decimal"),
        (proof(index=7).text().replace("index 7", "index " + "9" * 30), "plain decimal"),
        (proof(index=7).text().replace("index 7\n", ""), "does not say the entry's index"),
        (proof().text().replace("@v1", "@v2"), f"first line is not {HEADER}"),
        (HEADER, "no checkpoint: the file was cut off"),
        (f"{HEADER}\n\n{NOTE}", "does not say the entry's index"),
        (f"{HEADER}\nextra \nindex 0\n\n{NOTE}", "extra data is empty"),
        (f"{HEADER}\nindex 0\n" + f"{b64encode(bytes(32)).decode()}\n" * 65 + f"\n{NOTE}", "too many"),
        (f"{HEADER}\nindex 0\n{b64encode(bytes(31)).decode()}\n\n{NOTE}", "not SHA-256"),
        (f"{HEADER}\nindex 0\nnot base64\n\n{NOTE}", "a hash of it is not base64"),
        ("\ufeff" + proof().text(), "first line"),
        ("x" * (PROOF_MAX + 1), "longer than 256 KiB"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_what_is_no_proof_is_told_in_words(changed: str | bytes, says: str) -> None:
    given = changed if isinstance(changed, bytes) else changed.encode()
    with pytest.raises(ProofError, match=says.replace("+", r"\+")):
        parse_proof(given)
    (fault,) = check_proof(given, key=KEY).faults
    assert says in fault


def test_a_longer_or_shorter_way_to_the_root_is_none() -> None:
    honest = proof(7)
    for hashes in (honest.hashes[:-1], [*honest.hashes, bytes(32)], [], [*honest.hashes[::-1]]):
        assert not check_proof(replace(honest, hashes=hashes).text().encode(), key=KEY).ok
