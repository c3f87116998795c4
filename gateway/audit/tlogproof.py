"""A proof that one entry is in the log, in one text file that is checked offline (C2SP tlog-proof).

The entry's line goes along as `extra`. That is not believed: its hash has to be the leaf that the proof leads to.
Pure; imports the standard library and `cryptography`, as the verifier of packs does.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.audit.canonical import CanonicalError, parse
from gateway.audit.merkle import leaf_hash
from gateway.audit.note import (
    Checkpoint,
    NoteError,
    VerifierKey,
    base64,
    open_note,
    parse_checkpoint,
    split_note,
)
from gateway.audit.policy import NONE, Policy, judge
from gateway.audit.proofs import verify_inclusion

HEADER = "c2sp.org/tlog-proof@v1"
SUFFIX = ".tlog-proof"
PROOF_MAX = 256 * 1024
"""Bytes of a whole proof: an entry's line in base64, at most 64 hashes, a checkpoint with its cosignatures."""
_HASHES_MAX = 64


class ProofError(ValueError):
    """Not a proof; the message says what is wrong with it."""


@dataclass(frozen=True)
class TlogProof:
    """`extra` is the entry's line without its newline, b'' for none; `checkpoint` a whole signed note."""

    index: int
    hashes: Sequence[bytes]
    checkpoint: str
    extra: bytes = b""

    def text(self) -> str:
        lines = [HEADER, *([f"extra {b64encode(self.extra).decode()}"] if self.extra else [])]
        lines += [f"index {self.index}", *(b64encode(one).decode() for one in self.hashes)]
        return "\n".join(lines) + "\n\n" + self.checkpoint


@dataclass
class ProofVerdict:
    """`entry` is what was proved, {} when nothing was. `proven` and `unproven` say in words what was shown beside
    that the entry is in the tree, and what such a proof cannot show."""

    origin: str = ""
    index: int = -1
    size: int = -1
    entry: dict[str, object] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    proven: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults


def parse_proof(given: bytes) -> TlogProof:
    """Read a proof, strictly: everything has one spelling. The checkpoint is not opened. Raises `ProofError`."""
    if len(given) > PROOF_MAX:
        raise ProofError(f"it is longer than {PROOF_MAX // 1024} KiB")
    try:
        text = given.decode()
    except UnicodeDecodeError:
        raise ProofError("it is not UTF-8") from None
    head, gap, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if lines[0] != HEADER:
        raise ProofError(f"its first line is not {HEADER}")
    if not gap:
        raise ProofError("it has no checkpoint: the file was cut off")
    at = 1
    extra = b""
    try:
        if lines[at : at + 1] and lines[at].startswith("extra "):
            extra = base64(lines[at].removeprefix("extra "), "its extra data")
            if not extra:
                raise ProofError("its extra data is empty, and would then not be there")
            at += 1
        if not lines[at : at + 1] or not lines[at].startswith("index "):
            raise ProofError("it does not say the entry's index")
        index = _index(lines[at].removeprefix("index "))
        hashes = [base64(line, "a hash of it") for line in lines[at + 1 :]]
    except NoteError as error:
        raise ProofError(str(error)) from None
    if len(hashes) > _HASHES_MAX or any(len(one) != 32 for one in hashes):
        raise ProofError("its hashes are not SHA-256 hashes, or too many")
    return TlogProof(index, hashes, checkpoint, extra)


def _index(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 19 or str(int(text)) != text:
        raise ProofError("its index is not a plain decimal number")
    return int(text)


def check_proof(
    given: bytes, *, key: VerifierKey | None = None, policy: Policy | None = None, line: bytes | None = None
) -> ProofVerdict:
    """Judge a proof with what the auditor has from elsewhere: the log's key, or a policy that lists it, or both.

    `line` is the entry as somebody else gave it, without its newline: then that is what is to be proved. Never
    raises for what the proof holds. Raises ValueError when neither `key` nor a log of `policy` is given.
    """
    if key is None and not (policy and policy.logs):
        raise ValueError("nothing says whose signature counts")
    verdict = ProofVerdict()
    try:
        proof = parse_proof(given)
        checkpoint = _open(proof.checkpoint, key)
    except (ProofError, NoteError) as error:
        verdict.faults.append(str(error))
        return verdict
    verdict.origin, verdict.index, verdict.size = checkpoint.origin, proof.index, checkpoint.size
    _cosigned(verdict, proof.checkpoint, policy)
    if line is not None and proof.extra and line != proof.extra:
        verdict.faults.append("the entry that was given is not the one that the proof is about")
    _included(verdict, proof, checkpoint, proof.extra if line is None else line)
    return verdict


def _open(note: str, key: VerifierKey | None) -> Checkpoint:
    """The checkpoint; without `key`, nothing is verified yet: the policy's logs are asked then."""
    if key is None:
        return parse_checkpoint(split_note(note)[0])
    found = parse_checkpoint(open_note(note, key))
    if found.origin != key.name:
        raise NoteError(f"the checkpoint is of {found.origin!r}, and the key of {key.name!r}")
    return found


def _cosigned(verdict: ProofVerdict, note: str, policy: Policy | None) -> None:
    if policy is not None:
        judged = judge(policy, note)
        (verdict.proven if judged.met else verdict.faults).append(judged.words)
    if policy is None or policy.quorum == NONE:
        verdict.unproven.append(
            "that everybody was shown the same log: as far as is known here the operator alone signed it; give "
            "the witnesses whom you trust"
        )


def _included(verdict: ProofVerdict, proof: TlogProof, checkpoint: Checkpoint, line: bytes) -> None:
    if not line:
        verdict.faults.append("the proof does not hold the entry: give it apart")
        return
    if not verify_inclusion(leaf_hash(line), proof.index, checkpoint.size, proof.hashes, checkpoint.root):
        what = f"the entry is not entry {proof.index} of the {checkpoint.size} that the checkpoint signs"
        verdict.faults.append(f"{what}: the entry, its index or the proof was changed")
        return
    try:
        entry = parse(line)
    except CanonicalError as error:
        verdict.faults.append(f"what is in the log there is no entry: {error}")
        return
    index, org = entry.get("index"), entry.get("org")
    if type(index) is not int or index != proof.index:  # `true` equals 1 here, and nowhere else
        verdict.faults.append(f"the entry calls itself entry {index!r}, and stands at {proof.index}")
    if not (isinstance(org, str) and checkpoint.origin.endswith(f"/audit/{org}")):
        verdict.faults.append(f"the entry belongs to another organization than the log {checkpoint.origin!r}")
    verdict.entry = entry
