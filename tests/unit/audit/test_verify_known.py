"""What an auditor has from elsewhere: witnesses, and checkpoints that were kept. Only they find out an operator
who signs again."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.chain import Chain
from gateway.audit.cosignature import cosign, key_of
from gateway.audit.entry import Value, from_change, from_receipt
from gateway.audit.merkle import leaf_hash
from gateway.audit.note import Checkpoint, sign
from gateway.audit.pack import PackWriter, Plan
from gateway.audit.policy import parse_policy
from gateway.audit.signer import Signer
from gateway.audit.verify import Known, Verdict, verify_pack
from tests.fakes.audit import ACME, GLOBEX, SIGNER, change, lines, receipt, write_old_pack

KEY = str(SIGNER.key(ACME))
NAMES = ("one", "two", "three")
PRIVATE = {name: Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n, name in enumerate(NAMES, 7)}
VKEYS = {name: str(key_of(f"{name}.example", private)) for name, private in PRIVATE.items()}
POLICY = (
    "".join(f"witness {name} {VKEYS[name]}\n" for name in NAMES) + "group two-of 2 one two three\nquorum two-of\n"
)
AT = 1_763_690_500


def cosigned(note: str, *names: str) -> str:
    text = note.partition("\n\n")[0] + "\n"
    return note + "".join(cosign(text, f"{name}.example", PRIVATE[name], AT) for name in names)


def write(folder: Path, made: list[bytes], *names: str, witnesses: str = "", signer: Signer = SIGNER) -> Path:
    """A pack of a whole log of these lines, its checkpoint cosigned by `names`."""
    chain = Chain()
    for line in made:
        chain.accept(line, ACME)
    checkpoint = cosigned(signer.checkpoint(ACME, len(made), chain.tree.root()), *names)
    plan = Plan(ACME, checkpoint, str(signer.key(ACME)), 0, len(made), {}, witnesses)
    with PackWriter(folder, plan) as pack:
        pack.write(b"".join(line + b"\n" for line in made))
        pack.finish(1)
    return folder


def judged(folder: Path, policy: str | None = None, key: str | None = KEY, **kept: str) -> Verdict:
    return verify_pack(folder, Known(key, None if policy is None else parse_policy(policy), kept))


def said(verdict: Verdict) -> str:
    return "\n".join(f"{fault.where}: {fault.what}" for fault in verdict.faults)


# -- witnesses ------------------------------------------------------------------------------------------------


def test_a_quorum_of_the_auditors_witnesses_is_proven(tmp_path: Path) -> None:
    verdict = judged(write(tmp_path / "pack", lines(12)[0], "one", "three"), POLICY)
    assert (verdict.faults, verdict.unproven) == ([], [])
    assert verdict.proven == [
        "the quorum two-of is met: one at 2025-11-21T02:01:40Z, three at 2025-11-21T02:01:40Z"
    ]


@pytest.mark.parametrize("names", [(), ("two",)])
def test_a_quorum_that_is_not_met_is_a_fault(tmp_path: Path, names: tuple[str, ...]) -> None:
    verdict = judged(write(tmp_path / "pack", lines(12)[0], *names), POLICY)
    assert said(verdict).startswith("checkpoint: the quorum two-of is not met")


def test_a_log_that_was_signed_again_has_no_cosignature(tmp_path: Path) -> None:
    """Shorter, or another: the operator's own signature is good, and nobody else has signed."""
    made, chain = lines(12)
    note = cosigned(SIGNER.checkpoint(ACME, 12, chain.tree.root()), "one", "two")
    stolen = note.partition("\n\n")[2].partition("\n")[2]
    cut = write(tmp_path / "cut", made[:11])
    assert judged(cut).ok
    assert "is not met" in said(judged(cut, POLICY))
    borrowed = cut / "checkpoint"
    borrowed.write_text(borrowed.read_text() + stolen)
    assert "the cosignature of one.example is wrong" in said(judged(cut, POLICY))


def test_the_packs_own_witnesses_prove_less_and_are_held_to(tmp_path: Path) -> None:
    made, _ = lines(12)
    verdict = judged(write(tmp_path / "pack", made, "one", "two", witnesses=POLICY))
    assert verdict.ok
    assert "the operator chose them" in verdict.unproven[0]
    assert "is not met" in said(judged(write(tmp_path / "none", made, "two", witnesses=POLICY)))
    assert "witnesses: line 1:" in said(judged(write(tmp_path / "odd", made, witnesses="quorum of them\n")))
    ignored = judged(tmp_path / "odd", "quorum none\n")  # the auditor's own counts instead
    assert ignored.ok
    assert "everybody was shown the same log" in ignored.unproven[0]


def test_a_policy_that_lists_the_log_says_whose_key_it_is(tmp_path: Path) -> None:
    pack = write(tmp_path / "pack", lines(12)[0], "one", "two")
    assert judged(pack, f"log {KEY}\n{POLICY}", key=None).unproven == []
    assert "came with the pack" in judged(pack, POLICY, key=None).unproven[0]
    other = str(Signer("gateway.example", Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)).key(ACME))
    assert "is not signed by" in said(judged(pack, f"log {other}\n{POLICY}", key=None))
    assert "lists no log gateway.example/audit/acme" in said(
        judged(pack, f"log {SIGNER.key(GLOBEX)}\n{POLICY}", key=None)
    )


# -- checkpoints that were kept -------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [0, 1, 255, 256, 257, 600, 769, 770])
def test_a_log_that_goes_on_is_the_same_log(tmp_path: Path, old: int) -> None:
    made, _ = lines(770)
    kept = SIGNER.checkpoint(ACME, old, lines(old)[1].tree.root())
    verdict = judged(write(tmp_path / "pack", made), kept=kept, again=kept)
    assert verdict.ok
    assert verdict.proven == [
        f"the log continues {name}: its {old} entries are the same" for name in ("kept", "again")
    ]


def test_a_log_that_was_cut_off_or_written_anew_is_told(tmp_path: Path) -> None:
    made, chain = lines(770)
    kept = SIGNER.checkpoint(ACME, 770, chain.tree.root())
    cut = judged(write(tmp_path / "cut", made[:769]), kept=kept)
    assert said(cut).startswith("kept: signs 770 entries, and the pack's checkpoint 769: the log was cut off")
    other = Chain()
    anew = [other.seal(from_change(change(n)).fields) for n in range(800)]
    verdict = judged(write(tmp_path / "anew", anew), kept=kept)
    assert said(verdict).startswith("kept: the first 770 entries of the log are others than it signs")
    same = judged(write(tmp_path / "same", anew[:770]), kept=kept)
    assert said(same).startswith("kept: the first 770 entries of the log are others than it signs")


def test_old_packs_are_held_against_checkpoints_too(tmp_path: Path) -> None:
    write_old_pack(tmp_path / "old", 300)
    good, bad = (SIGNER.checkpoint(ACME, 257, root) for root in (lines(257)[1].tree.root(), bytes(32)))
    assert judged(tmp_path / "old", good=good).proven == ["the log continues good: its 257 entries are the same"]
    assert "written anew" in said(judged(tmp_path / "old", bad=bad))


@pytest.mark.parametrize(
    ("note", "says"),
    [
        (SIGNER.checkpoint(GLOBEX, 1, bytes(32)), "kept: is no checkpoint of this log: the note is not signed by"),
        ("nonsense", "kept: is no checkpoint of this log: the note has no signature lines"),
    ],
)
def test_a_checkpoint_of_something_else_proves_nothing(tmp_path: Path, note: str, says: str) -> None:
    assert said(judged(write(tmp_path / "pack", lines(3)[0]), kept=note)).startswith(says)


def test_a_checkpoint_of_another_log_with_the_same_key_proves_nothing(tmp_path: Path) -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    other = sign(
        Checkpoint("gateway.example/audit/globex", 1, bytes(32)).text(), "gateway.example/audit/acme", private
    )
    verdict = judged(write(tmp_path / "pack", lines(3)[0]), kept=other)
    assert said(verdict).startswith("kept: is a checkpoint of 'gateway.example/audit/globex'")


def test_tiles_that_are_damaged_say_nothing_of_an_older_log(tmp_path: Path) -> None:
    pack = write(tmp_path / "pack", lines(300)[0])
    (pack / "tile/0/000").unlink()
    verdict = judged(pack, kept=SIGNER.checkpoint(ACME, 280, bytes(32)))
    assert said(verdict) == "tile/0/000: is missing: the pack is not complete"


# -- the daily count ------------------------------------------------------------------------------------------

Detail = dict[str, Value]
FIRST: Detail = {"day": "2026-11-20", "start": 0, "end": 4, "requests": 3}
SECOND: Detail = {"day": "2026-11-21", "start": 4, "end": 9, "requests": 4}


def counted(folder: Path, *details: tuple[int, object], start: int = 0) -> Verdict:
    """A log of ten entries and these at their places, of which the third is a change; entries from `start` on."""
    chain, made, request = Chain(), [], 0
    while chain.size < 10 or details:
        if details and details[0][0] == chain.size:
            fields = {**from_change(change(99)).fields, "action": "audit.day", "detail": details[0][1]}
            details = details[1:]
        elif chain.size == 2:
            fields = dict(from_change(change(1)).fields)
        else:
            request += 1
            fields = dict(from_receipt(receipt(request), "boot", request).fields)
        made.append(chain.seal(fields))
    checkpoint = SIGNER.checkpoint(ACME, len(made), chain.tree.root())
    plan = Plan(ACME, checkpoint, KEY, start, len(made), {})
    with PackWriter(folder, plan) as pack:
        pack.write(b"".join(line + b"\n" for line in made[start:]))
        if start:
            pack.write_leaves(b"".join(map(leaf_hash, made)))
        pack.finish(1)
    return verify_pack(folder, KEY)


def test_days_that_fit_are_proven(tmp_path: Path) -> None:
    verdict = counted(tmp_path / "pack", (5, FIRST), (10, SECOND))
    assert (verdict.faults, len(verdict.proven)) == ([], 1)
    assert verdict.proven[0].startswith("2 daily counts (2026-11-20 to 2026-11-21)")
    empty = counted(tmp_path / "empty", (5, {**FIRST, "end": 0, "requests": 0}))
    assert (empty.faults, len(empty.proven)) == ([], 1)
    part = counted(tmp_path / "part", (5, FIRST), (10, SECOND), start=3)
    assert part.proven == ["1 daily count (2026-11-21): as many requests as there are entries of them"]


@pytest.mark.parametrize(
    ("details", "says"),
    [
        ([(5, {**FIRST, "requests": 4})], "line 6 (entry 5): counts 4 requests on 2026-11-20"),
        ([(5, {**FIRST, "start": 1})], "but the first begins at entry 0"),
        ([(5, FIRST), (10, {**SECOND, "start": 5})], "but 2026-11-20 ended before entry 4"),
        ([(5, FIRST), (10, {**SECOND, "start": 3, "requests": 5})], "but 2026-11-20 ended before entry 4"),
        ([(5, FIRST), (10, {**SECOND, "day": "2026-11-20"})], "but 2026-11-20 ended before entry 4"),
        ([(5, {**FIRST, "end": 6})], "its `detail` is no count of a day"),
        ([(5, {**FIRST, "start": 5})], "its `detail` is no count of a day"),
        ([(5, {**FIRST, "day": "today"})], "its `detail` is no count of a day"),
        ([(5, {**FIRST, "requests": True})], "its `detail` is no count of a day"),
        ([(5, {"day": "2026-11-20"})], "its `detail` is no count of a day"),
        ([(5, "2026-11-20")], "its `detail` is no count of a day"),
    ],
)
def test_days_that_do_not_fit_are_faults(tmp_path: Path, details: list[tuple[int, object]], says: str) -> None:
    assert says in said(counted(tmp_path / "pack", *details))
