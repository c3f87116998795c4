"""The offline verifier: judges an evidence pack with nothing but it and what the auditor knows from elsewhere.

Needs no server and trusts nothing in the pack. The root that the log's key signed binds the hash tiles, and they
bind every entry to its place. With the log's key, the witnesses and an older checkpoint from elsewhere, it also
shows that nobody was shown another log. Imports the standard library and `cryptography`, so that an auditor can
read all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from gateway.audit.canonical import LINE_MAX
from gateway.audit.chain import Fault
from gateway.audit.judge import EntryJudge
from gateway.audit.leaves import Leaves
from gateway.audit.manifest import SMALL_MAX, Manifest, ManifestError, holds_its_files, is_pack, read_manifest
from gateway.audit.note import Checkpoint, NoteError, VerifierKey, open_note, parse_checkpoint, parse_key
from gateway.audit.pack import CHECKPOINT, ENTRIES, KEY, MANIFEST, WITNESSES
from gateway.audit.policy import NONE, Policy, PolicyError, parse_policy
from gateway.audit.policy import judge as judge_policy

FAULTS_MAX = 100
STEP = 1_000

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Known:
    """What an auditor has from elsewhere than the pack.

    `key`: the log's verifier key. `witnesses`: whose cosignatures a checkpoint needs. `checkpoints`: notes of
    earlier times by what to call them, such as their file.
    """

    key: str | None = None
    witnesses: Policy | None = None
    checkpoints: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Verdict:
    """`ok`: no fault was found. `proven` says in words what has been shown then, besides that the entries are
    those of the checkpoint; `unproven` what such a pack cannot show even so. `start`, `end`, `filtered`: as the
    pack says.
    """

    ok: bool = False
    org: str = ""
    entries: int = 0
    start: int = 0
    end: int = 0
    filtered: bool = False
    checkpoint_size: int = -1
    faults: list[Fault] = field(default_factory=list)
    proven: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)


def verify_pack(folder: Path, known: Known | str | None = None, progress: Progress | None = None) -> Verdict:
    """Check every byte of the pack in `folder`. Never raises for what the pack holds: faults say it.

    A text for `known` is the log's key; without one the pack's own is used. `progress` is called with (entries
    checked, entries expected).
    """
    known = known if isinstance(known, Known) else Known(known)
    verdict = Verdict()
    try:
        _Verifier(folder, verdict, known, progress or (lambda done, of: None)).run()
    except OSError as error:
        verdict.faults.append(Fault(str(error.filename or folder), f"cannot be read ({error.strerror})"))
    verdict.ok = not verdict.faults
    return verdict


class _Verifier:
    def __init__(self, folder: Path, verdict: Verdict, known: Known, progress: Progress) -> None:
        self._folder = folder
        self._verdict = verdict
        self._known = known
        self._progress = progress

    def run(self) -> None:
        manifest = self._manifest()
        if manifest is None or not holds_its_files(self._folder, manifest, self._fault):
            return
        for name in manifest.files:
            if name != ENTRIES:
                self._same(manifest, name, self._small(name))
        key = self._key()
        checkpoint = None if key is None else self._checkpoint(manifest, key)
        kept = {} if key is None or checkpoint is None else self._kept(key, checkpoint)
        leaves = Leaves(self._folder, manifest, [old.size for old in kept.values()], self._fault)
        self._entries(manifest, leaves)
        root = leaves.finish(self._progress)
        if checkpoint is not None:
            self._against_checkpoint(manifest, checkpoint, root)
            for name, old in kept.items():
                self._against_kept(name, old, leaves.roots.get(old.size))

    def _fault(self, where: str, what: str) -> None:
        if len(self._verdict.faults) < FAULTS_MAX:
            self._verdict.faults.append(Fault(where, what))

    def _small(self, name: str) -> bytes:
        with (self._folder / name).open("rb") as file:
            return file.read(SMALL_MAX)

    def _manifest(self) -> Manifest | None:
        if not is_pack(self._folder, self._fault):
            return None
        try:
            found = read_manifest(self._small(MANIFEST))
        except ManifestError as error:
            self._fault(MANIFEST, str(error))
            return None
        self._verdict.org = found.org
        self._verdict.start, self._verdict.end = found.start, found.end
        if found.filter:
            self._verdict.filtered = True
            self._verdict.unproven.append(
                f"that no other entries of [{found.start}, {found.end}) match the filter: a pack with a filter "
                "cannot show what was left out"
            )
        return found

    def _same(self, manifest: Manifest, name: str, data: bytes) -> None:
        part = manifest.files[name]
        if part.size not in (None, len(data)):
            self._fault(name, f"has {len(data)} bytes, the manifest counts {part.size}: it was changed")
        elif sha256(data).hexdigest() != part.sha256:
            self._fault(name, "its SHA-256 is not the one in the manifest: it was changed")

    # -- who signed -----------------------------------------------------------------------------------------

    def _key(self) -> VerifierKey | None:
        where = KEY
        try:
            own = self._small(KEY).decode()
            packed = parse_key(own)
            if own != f"{packed}\n":
                raise NoteError("the key is not spelt as it was written")
            if self._known.key is None:
                policy = self._known.witnesses
                if policy is None or not policy.logs:
                    self._verdict.unproven.append(
                        "the key came with the pack: compare it with the one you got from the operator by other "
                        "means"
                    )
                return packed
            where = "the key given"
            given = parse_key(self._known.key)
        except UnicodeDecodeError:
            self._fault(where, "is not UTF-8")
            return None
        except NoteError as error:
            self._fault(where, str(error))
            return None
        if given != packed:
            self._fault(KEY, "is not the key that was given: the pack is of another log or was signed by another")
        return given

    def _checkpoint(self, manifest: Manifest, key: VerifierKey) -> Checkpoint | None:
        try:
            note = self._small(CHECKPOINT).decode()
            found = parse_checkpoint(open_note(note, key))
        except UnicodeDecodeError:
            self._fault(CHECKPOINT, "is not UTF-8")
            return None
        except NoteError as error:
            self._fault(CHECKPOINT, str(error))
            return None
        self._verdict.checkpoint_size = found.size
        if found.origin != key.name:
            self._fault(CHECKPOINT, f"its origin is {found.origin!r}, but the key is that of {key.name!r}")
        if not found.origin.endswith(f"/audit/{manifest.org}"):
            self._fault(CHECKPOINT, f"its origin {found.origin!r} is not the log of organization {manifest.org!r}")
        self._cosignatures(manifest, note)
        return found

    def _cosignatures(self, manifest: Manifest, note: str) -> None:
        policy = self._known.witnesses
        if policy is None and WITNESSES in manifest.files:
            try:
                policy = parse_policy(self._small(WITNESSES))
            except PolicyError as error:
                self._fault(WITNESSES, str(error))
                return
            self._verdict.unproven.append(
                "the witnesses are those that the pack names: the operator chose them; give those whom you trust"
            )
        if policy is None or policy.quorum == NONE:
            self._verdict.unproven.append(
                "that everybody was shown the same log: as far as is known here the operator alone signed it, and "
                "can sign a shorter or another one; give the witnesses whom you trust"
            )
        if policy is not None:
            found = judge_policy(policy, note)
            if not found.met:
                self._fault(CHECKPOINT, found.words)
            elif policy.quorum != NONE:
                self._verdict.proven.append(found.words)

    def _kept(self, key: VerifierKey, checkpoint: Checkpoint) -> dict[str, Checkpoint]:
        """The checkpoints of earlier times, as far as they are of this log and not of a longer one."""
        kept = {}
        for name, note in self._known.checkpoints.items():
            try:
                old = parse_checkpoint(open_note(note, key))
            except NoteError as error:
                self._fault(name, f"is no checkpoint of this log: {error}")
                continue
            if old.origin != checkpoint.origin:
                self._fault(name, f"is a checkpoint of {old.origin!r}, and the pack's is of {checkpoint.origin!r}")
            elif old.size > checkpoint.size:
                self._fault(
                    name,
                    f"signs {old.size} entries, and the pack's checkpoint {checkpoint.size}: the log was cut off, "
                    "or the pack is the older one",
                )
            else:
                kept[name] = old
        return kept

    def _against_checkpoint(self, manifest: Manifest, checkpoint: Checkpoint, root: bytes | None) -> None:
        if manifest.size != checkpoint.size:
            what = f"signs {checkpoint.size} entries, but the pack is of a tree of {manifest.size}"
            self._fault(CHECKPOINT, what)
        elif manifest.format == 1 and manifest.start:
            # Whoever changes an entry can link the chain anew; only the root is signed, and it is the whole log's.
            what = (
                f"signs all {checkpoint.size} entries, and the pack is a part, entries [{manifest.start}, "
                f"{manifest.end}): nothing proves that they are those of the log; export it again"
            )
            self._fault(CHECKPOINT, what)
        elif root is not None and root != checkpoint.root:
            self._fault(CHECKPOINT, "the entries are not those that were signed: the Merkle root differs")

    def _against_kept(self, name: str, old: Checkpoint, root: bytes | None) -> None:
        if root is None:
            return  # the tiles are damaged, which is a fault already
        if root != old.root:
            what = f"the first {old.size} entries of the log are others than it signs: the log was written anew"
            self._fault(name, what)
        else:
            self._verdict.proven.append(f"the log continues {name}: its {old.size} entries are the same")

    # -- the entries ----------------------------------------------------------------------------------------

    def _entries(self, manifest: Manifest, leaves: Leaves) -> None:
        """Judge every line."""
        judge = EntryJudge(manifest, leaves)
        hashed, size = sha256(), 0
        for line in self._lines():
            hashed.update(line)
            size += len(line)
            for where, what in judge.take(line):
                self._fault(where, what)
            if judge.number % STEP == 0:
                self._progress(judge.last + 1 - manifest.start, manifest.end - manifest.start)
            if len(self._verdict.faults) >= FAULTS_MAX:
                self._verdict.faults.append(Fault(ENTRIES, "too many faults: the rest was not read"))
                return
            self._verdict.entries = judge.number
        if judge.number != manifest.count:
            self._fault(ENTRIES, f"has {judge.number} entries, the manifest counts {manifest.count}")
        part = manifest.files[ENTRIES]
        if part.size not in (None, size) or hashed.hexdigest() != part.sha256:
            self._fault(ENTRIES, "its SHA-256 is not the one in the manifest: it was changed")
        if days := judge.days.counted:
            span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
            counts = "1 daily count" if len(days) == 1 else f"{len(days)} daily counts"
            self._verdict.proven.append(f"{counts} ({span}): as many requests as there are entries of them")

    def _lines(self) -> Iterator[bytes]:
        """Lines with their newlines, no more of one in memory than an entry may have."""
        with (self._folder / ENTRIES).open("rb") as file:
            while line := file.readline(LINE_MAX + 2):
                yield line
