"""The offline verifier: judges an export pack with nothing but the pack and a public key.

Needs no server and trusts nothing in the pack. With the log's key from elsewhere, a pack of a whole log
proves: these are all the entries the log held at the checkpoint, in this order, none changed. Imports the
standard library and `cryptography`, so that an auditor can read all of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from gateway.audit.canonical import LINE_MAX, CanonicalError, parse
from gateway.audit.chain import GENESIS, Fault, judge, line_hash
from gateway.audit.merkle import Tree
from gateway.audit.note import Checkpoint, NoteError, VerifierKey, open_note, parse_checkpoint, parse_key
from gateway.audit.pack import CHECKPOINT, ENTRIES, FILES, FORMAT, KEY, MANIFEST, digest

FAULTS_MAX = 100
STEP = 1_000
_SMALL_MAX = 64 * 1024

Progress = Callable[[int, int], None]


@dataclass
class Verdict:
    """`ok`: no fault was found. `unproven` says in words what such a pack cannot show even so."""

    ok: bool = False
    org: str = ""
    entries: int = 0
    checkpoint_size: int = -1
    faults: list[Fault] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Manifest:
    org: str
    start: int
    end: int
    hashes: dict[str, object]


def verify_pack(folder: Path, key: str | None = None, progress: Progress | None = None) -> Verdict:
    """Check every byte of the pack in `folder`. Never raises for what the pack holds: faults say it.

    `key` is the log's verifier key as the auditor got it from elsewhere; without it the pack's own is used.
    `progress` is called with (entries checked, entries expected).
    """
    verdict = Verdict()
    try:
        _Verifier(folder, verdict, progress or (lambda done, of: None)).run(key)
    except OSError as error:
        verdict.faults.append(Fault(str(error.filename or folder), f"cannot be read ({error.strerror})"))
    verdict.ok = not verdict.faults
    return verdict


class _Verifier:
    def __init__(self, folder: Path, verdict: Verdict, progress: Progress) -> None:
        self._folder = folder
        self._verdict = verdict
        self._progress = progress

    def run(self, key: str | None) -> None:
        if not self._only_known_files():
            return
        manifest = self._manifest()
        if manifest is None:
            return
        checkpoint = self._checkpoint(manifest, key)
        root = self._entries(manifest, checkpoint)
        if checkpoint is not None:
            self._against_checkpoint(manifest, checkpoint, root)

    def _fault(self, where: str, what: str) -> None:
        if len(self._verdict.faults) < FAULTS_MAX:
            self._verdict.faults.append(Fault(where, what))

    def _only_known_files(self) -> bool:
        """Plain files, all of them, and nothing else: a link could lead out of the pack."""
        try:
            found = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(self._folder)}
        except OSError as error:
            self._fault(str(self._folder), f"cannot be read as a folder ({error.strerror})")
            return False
        if MANIFEST not in found:
            # Whatever this folder is, its files are not a pack's, and there may be very many of them.
            self._fault(str(self._folder), f"this is no pack: {MANIFEST} is missing")
            return False
        for name in (MANIFEST, *FILES):
            if name not in found:
                self._fault(name, "is missing: the pack is not complete")
            elif not stat.S_ISREG(found[name].st_mode):
                self._fault(name, "is not a plain file")
            elif name != ENTRIES and found[name].st_size > _SMALL_MAX:
                # What stands after the part that is read would be judged by nothing.
                self._fault(name, f"is longer than {_SMALL_MAX} bytes")
        for name in sorted(set(found) - {MANIFEST, *FILES}):
            self._fault(name, "is not part of a pack: it was added")
        return not self._verdict.faults

    def _small(self, name: str) -> bytes:
        with (self._folder / name).open("rb") as file:
            return file.read(_SMALL_MAX)

    def _manifest(self) -> _Manifest | None:
        raw = self._small(MANIFEST)
        try:
            if not raw.endswith(b"\n"):
                raise CanonicalError("it does not end with a newline: it was cut off")
            found = parse(raw[:-1])
        except CanonicalError as error:
            self._fault(MANIFEST, str(error))
            return None
        members = {"format", "org", "start", "end", "count", "made_at", "sha256", "digest"}
        org, start, end, count, hashes = (found.get(k) for k in ("org", "start", "end", "count", "sha256"))
        # `true` equals 1 here, and nowhere else: types are compared too.
        if set(found) != members or type(found["format"]) is not int or found["format"] != FORMAT:
            self._fault(MANIFEST, f"is not a manifest of format {FORMAT}")
        elif not (isinstance(org, str) and isinstance(hashes, dict) and set(hashes) == set(FILES)):
            self._fault(MANIFEST, "does not name its organization and exactly the files of a pack")
        elif not (type(start) is int and type(end) is int and type(count) is int and 0 <= start <= end):
            self._fault(MANIFEST, "gives no range of entries")
        elif type(found["made_at"]) is not int:
            self._fault(MANIFEST, "does not say when it was made")
        elif found["digest"] != digest(found):
            self._fault(MANIFEST, "its digest does not fit its contents: it was changed")
        elif count != end - start:
            self._fault(MANIFEST, f"counts {count} entries, but its range [{start}, {end}) has {end - start}")
        else:
            self._verdict.org = org
            return _Manifest(org, start, end, hashes)
        return None

    # -- the checkpoint -------------------------------------------------------------------------------------

    def _checkpoint(self, manifest: _Manifest, trusted: str | None) -> Checkpoint | None:
        for name in (CHECKPOINT, KEY):
            if sha256(self._small(name)).hexdigest() != manifest.hashes[name]:
                self._fault(name, "its SHA-256 is not the one in the manifest: it was changed")
        key = self._key(trusted)
        if key is None:
            return None
        try:
            found = parse_checkpoint(open_note(self._small(CHECKPOINT).decode(), key))
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
        return found

    def _key(self, trusted: str | None) -> VerifierKey | None:
        where = KEY
        try:
            own = self._small(KEY).decode()
            packed = parse_key(own)
            if own != f"{packed}\n":
                raise NoteError("the key is not spelt as it was written")
            if trusted is None:
                self._verdict.unproven.append(
                    "the key came with the pack: compare it with the one you got from the operator by other means"
                )
                return packed
            where = "the key given"
            given = parse_key(trusted)
        except UnicodeDecodeError:
            self._fault(where, "is not UTF-8")
            return None
        except NoteError as error:
            self._fault(where, str(error))
            return None
        if given != packed:
            self._fault(KEY, "is not the key that was given: the pack is of another log or was signed by another")
        return given

    def _against_checkpoint(self, manifest: _Manifest, checkpoint: Checkpoint, root: bytes | None) -> None:
        if manifest.end > checkpoint.size:
            what = f"signs {checkpoint.size} entries, but the pack claims entries up to {manifest.end}"
            self._fault(CHECKPOINT, what)
        elif manifest.start == 0 and manifest.end == checkpoint.size:
            if root != checkpoint.root:
                self._fault(CHECKPOINT, "the entries are not those that were signed: the Merkle root differs")
        else:
            # Whoever changes an entry can link the chain anew; only the root is signed, and it is the whole log's.
            what = (
                f"signs all {checkpoint.size} entries, and the pack is a part, entries [{manifest.start}, "
                f"{manifest.end}): nothing proves that they are those of the log; export it whole"
            )
            self._fault(CHECKPOINT, what)

    # -- the entries ----------------------------------------------------------------------------------------

    def _entries(self, manifest: _Manifest, checkpoint: Checkpoint | None) -> bytes | None:
        """Judge every line; returns the Merkle root over them, when they begin at 0."""
        tree, hashed = Tree(), sha256()
        prev: str | None = GENESIS if manifest.start == 0 else None
        boots: dict[str, int] = {}
        number = 0
        for line in self._lines():
            hashed.update(line)
            number += 1
            index = manifest.start + number - 1
            where = f"{ENTRIES} line {number} (entry {index})"
            body = line.removesuffix(b"\n")
            if body == line:
                self._fault(where, "does not end with a newline: the file was cut off, or the line is too long")
            try:
                entry = parse(body)
            except CanonicalError as error:
                self._fault(where, str(error))
            else:
                for what in judge(entry, org=manifest.org, index=index, prev=prev):
                    self._fault(where, what)
                self._repeated(where, entry, boots)
            prev = line_hash(body)
            tree.append(body)
            if number % STEP == 0:
                self._progress(number, manifest.end - manifest.start)
            if len(self._verdict.faults) >= FAULTS_MAX:
                self._verdict.faults.append(Fault(ENTRIES, "too many faults: the rest was not read"))
                return None
            self._verdict.entries = number
        self._progress(number, manifest.end - manifest.start)
        if number != manifest.end - manifest.start:
            self._fault(ENTRIES, f"has {number} entries, the manifest counts {manifest.end - manifest.start}")
        if hashed.hexdigest() != manifest.hashes[ENTRIES]:
            self._fault(ENTRIES, "its SHA-256 is not the one in the manifest: it was changed")
        return tree.root() if manifest.start == 0 else None

    def _lines(self) -> Iterator[bytes]:
        """Lines with their newlines, no more of one in memory than an entry may have."""
        with (self._folder / ENTRIES).open("rb") as file:
            while line := file.readline(LINE_MAX + 2):
                yield line

    def _repeated(self, where: str, entry: dict[str, object], boots: dict[str, int]) -> None:
        """A worker's receipts are numbered upwards within its boot: each is an entry once."""
        if "spool" not in entry:
            return  # a change of the control plane
        match entry["spool"]:
            case [str(boot), int(seq)] if type(seq) is int:
                if seq <= boots.get(boot, 0):
                    self._fault(where, "its receipt is an entry already, or its spool numbers go backwards")
                else:
                    boots[boot] = seq
            case _:
                self._fault(where, "its `spool` is not a boot and a number")
