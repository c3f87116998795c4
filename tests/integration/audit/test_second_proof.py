"""docs/verify/proof.mjs: the second verifier says of a proof what `gateway.audit.tlogproof` says of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit import cosignature
from gateway.audit.canonical import canonical
from gateway.audit.merkle import HashTree, leaf_hash
from gateway.audit.note import Checkpoint, VerifierKey, sign
from gateway.audit.policy import parse_policy
from gateway.audit.proofs import inclusion, root
from gateway.audit.tlogproof import TlogProof, check_proof
from tests.fakes.audit import ACME, SIGNER, lines
from tests.kit.programs import REPOSITORY

SECOND = REPOSITORY / "docs" / "verify" / "proof-cli.mjs"
COUNT = 300
LINES, _ = lines(COUNT)
TREE = HashTree(map(leaf_hash, LINES))
KEY = SIGNER.key(ACME)
WITNESS = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))


def note(size: int = COUNT) -> str:
    return SIGNER.checkpoint(ACME, size, root(TREE, size))


def proof(index: int, size: int = COUNT, *, whole: bool = True) -> bytes:
    extra = LINES[index] if whole else b""
    return TlogProof(index, inclusion(TREE, index, size), note(size), extra).text().encode()


def second(folder: Path, proofs: Sequence[bytes], *given: str) -> list[dict[str, Any]]:
    """What it says of each."""
    node = shutil.which("node")
    assert node is not None, "node is not installed: the Debian package nodejs has it"
    names = [f"{n}.tlog-proof" for n in range(len(proofs))]
    for name, data in zip(names, proofs, strict=True):
        (folder / name).write_bytes(data)
    ended = subprocess.run([node, str(SECOND), *given, *names], cwd=folder, capture_output=True, check=False)
    assert ended.stderr == b""
    found: list[dict[str, Any]] = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == (0 if all(one["ok"] for one in found) else 1)
    assert ended.stdout.isascii()
    return found


def test_both_take_every_entry_of_trees_of_every_shape(tmp_path: Path) -> None:
    places = [(index, size) for size in (1, 2, 3, 7, 8, 255, 256, 257, 300) for index in {0, size // 2, size - 1}]
    made = [proof(*place) for place in places]
    assert all(check_proof(one, key=KEY).ok for one in made)
    for place, said in zip(places, second(tmp_path, made, "--key", str(KEY)), strict=True):
        assert (said["ok"], said["index"], said["entries"]) == (True, *place), said
        assert said["entry"].encode() == LINES[place[0]]
        assert (said["log"], said["faults"]) == (KEY.name, [])
        assert "operator alone signed" in said["unproven"][0]


def test_both_refuse_every_proof_with_a_byte_changed_lost_or_doubled(tmp_path: Path) -> None:
    whole = proof(137)
    changed = [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(0, len(whole), 3)]
    changed += [whole[:at] + whole[at + 1 :] for at in range(0, len(whole), 7)]
    changed += [whole[:at] + whole[at : at + 1] + whole[at:] for at in range(0, len(whole), 7)]
    changed += [whole[:at] for at in range(0, len(whole), 50)] + [
        whole + b"x",
        whole + b"\n",
        b"\xef\xbb\xbf" + whole,
    ]
    first = [check_proof(one, key=KEY).ok for one in changed]
    assert first == [one["ok"] for one in second(tmp_path, changed, "--key", str(KEY))]
    taken = {one for one, ok in zip(changed, first, strict=True) if ok}
    assert taken <= {whole}  # a byte of two that are the same may be either


def test_the_entry_may_come_apart(tmp_path: Path) -> None:
    (tmp_path / "entry").write_bytes(LINES[5] + b"\n")
    made = [proof(5), proof(5, whole=False), proof(6), proof(6, whole=False)]
    assert [one["ok"] for one in second(tmp_path, made, "--key", str(KEY), "--entry", "entry")] == [
        True,
        True,
        False,
        False,
    ]
    (bare,) = second(tmp_path, [proof(5, whole=False)], "--key", str(KEY))
    assert bare["faults"] == ["the proof does not hold the entry: give it apart"]


def test_witnesses_are_asked_for(tmp_path: Path) -> None:
    signed = cosignature.cosign(note().partition("\n\n")[0] + "\n", "witness.example", WITNESS, 1_763_690_000)
    made = [proof(9) + signed.encode(), proof(9)]
    text = f"log {KEY}\nwitness w {cosignature.key_of('witness.example', WITNESS)}\nquorum w\n"
    (tmp_path / "policy").write_text(text)
    with_one, without = second(tmp_path, made, "--witnesses", "policy")
    assert [with_one["ok"], without["ok"]] == [check_proof(one, policy=parse_policy(text)).ok for one in made]
    assert (with_one["ok"], with_one["unproven"], without["ok"]) == (True, [], False)
    assert "w at 2025-11-21" in with_one["proven"][0]
    assert "quorum w is not met" in without["faults"][0]


def test_an_entry_that_stands_elsewhere_than_it_says_is_refused(tmp_path: Path) -> None:
    swapped = [LINES[1], LINES[0]]
    tree = HashTree(map(leaf_hash, swapped))
    text = (
        TlogProof(0, inclusion(tree, 0, 2), SIGNER.checkpoint(ACME, 2, root(tree, 2)), swapped[0]).text().encode()
    )
    (said,) = second(tmp_path, [text], "--key", str(KEY))
    assert said["faults"] == ["the entry calls itself another than entry 0"]
    assert not check_proof(text, key=KEY).ok


@pytest.mark.parametrize(
    "members", [{"index": True, "org": "7"}, {"index": 1, "org": 7}, {"index": 1, "org": ["7"]}]
)
def test_a_place_is_a_number_and_an_organization_a_text(tmp_path: Path, members: dict[str, object]) -> None:
    wrong = [LINES[0], canonical(members)]
    tree, origin = HashTree(map(leaf_hash, wrong)), "gateway.example/audit/7"
    signed = sign(Checkpoint(origin, 2, root(tree, 2)).text(), origin, WITNESS)
    text = TlogProof(1, inclusion(tree, 1, 2), signed, wrong[1]).text().encode()
    key = VerifierKey(origin, WITNESS.public_key().public_bytes_raw())
    (said,) = second(tmp_path, [text], "--key", str(key))
    assert (said["ok"], check_proof(text, key=key).ok) == (False, False)


@pytest.mark.parametrize("arguments", [[], ["p"], ["--key", "k"], ["--kex", "k", "p"], ["--key", "k", "absent"]])
def test_wrong_usage_is_neither_good_nor_bad(arguments: list[str], tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node is not None
    ended = subprocess.run([node, str(SECOND), *arguments], capture_output=True, check=False, cwd=tmp_path)
    assert ended.returncode == 2
    assert b"usage: node proof-cli.mjs [--key KEY]" in ended.stderr
    assert ended.stdout == b""
