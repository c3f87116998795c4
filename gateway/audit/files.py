"""One organization's log as files: `<orgs>/<org>/log-00000000.jsonl`, …, `checkpoint`, `state.json`.

Synchronous: the sequencer calls it in a thread, one call at a time per log. Order of one commit, and what a
crash at each step leaves:

1. entries are sealed against the chain as it was last made durable (memory only). Crash: nothing.
2. their lines are written behind the last durable byte. Crash: whole lines that were never acknowledged, and
   perhaps a torn one. `open` keeps the whole ones (the sender will repeat them and be recognised) and cuts
   the torn one off.
3. fdatasync. From here on the entries exist; crash: the sender was not told, repeats, is recognised.
4. the chain, the position and what was seen move on in memory; then the sender is told.
5. at most 10 s later `checkpoint` is replaced (write, sync, rename), then `state.json`, which only saves
   reading the log from its beginning. Crash between: the next start reads from the older state.

A failed write or sync leaves bytes in doubt behind the last durable byte: the next commit first cuts them
off, and writes afresh. Nothing durable is ever rewritten, so no two entries can claim one place.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gateway.audit.canonical import CanonicalError, canonical, parse
from gateway.audit.chain import Chain, ChainError, line_hash
from gateway.audit.disk import Disk, replace_file, sync_folder
from gateway.audit.entry import Draft
from gateway.audit.line import spell
from gateway.audit.merkle import Tree
from gateway.audit.note import Checkpoint, NoteError, parse_checkpoint
from gateway.audit.seen import Seen
from gateway.audit.signer import Signer
from tenants.ids import OrgId

SEGMENT_BYTES = 64 * 1024 * 1024
_DOCUMENT = re.compile(rb'"_document_id":"([^"]*)"')


class DamagedError(Exception):
    """The files are not what was written: entries are missing or changed. Nothing is appended to such a log.

    What to do: keep the folder as evidence, put back a copy of it, or move it away to begin a new log.
    """

    def __init__(self, where: Path, what: str) -> None:
        super().__init__(
            f"{where}: {what}; the audit log is damaged: restore this folder from a copy, or move it away"
        )


class Durable:
    """How far the log is durable: what readers may see. Replaced as a whole, never changed."""

    __slots__ = ("end", "segment", "size")

    def __init__(self, size: int, segment: int, end: int) -> None:
        self.size = size
        self.segment = segment
        self.end = end


class OrgLog:
    """`folder` need not exist: it is made (0700, its files 0600) with the first entry."""

    def __init__(
        self,
        folder: Path,
        org: OrgId,
        signer: Signer,
        *,
        disk: Disk | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Open and recover. Raises `DamagedError`, OSError."""
        self.org = org
        self.folder = folder
        self.firsts: list[int] = []
        """The index of the first entry of each segment."""
        self._signer = signer
        self._disk = disk or Disk()
        self._segment_bytes = segment_bytes
        self._chain = Chain()
        self._seen = Seen()
        self._fd = -1
        self._doubtful = False
        self._signed_size = 0
        self.durable = Durable(0, 0, 0)
        if folder.is_dir():
            self._recover()

    def path(self, segment: int) -> Path:
        return self.folder / f"log-{segment:08}.jsonl"

    # -- append ---------------------------------------------------------------------------------------------

    def append(self, drafts: Sequence[Draft]) -> int:
        """Make entries of the drafts that are none yet, durable when it returns; how many those were.

        Raises OSError: then none of them counts, and the same call may be made again.
        """
        chain, seen = self._chain.copy(), self._seen.copy()
        known = self._written(seen.suspects(drafts))
        lines = [
            chain.seal(draft.fields, spell if draft.boot else canonical)
            for draft in drafts
            if seen.add(draft, known)
        ]
        if lines:
            self._write(b"".join(line + b"\n" for line in lines))
        self._chain, self._seen = chain, seen
        segment, end = self.durable.segment, self.durable.end + sum(len(line) + 1 for line in lines)
        self.durable = Durable(chain.size, segment, end)
        return len(lines)

    def _write(self, data: bytes) -> None:
        end = self.durable.end
        if self._doubtful:
            self._disk.truncate(self._fd, end)
        if self._fd < 0 or (end and end + len(data) > self._segment_bytes):
            self._next_segment()
            end = 0
        self._doubtful = True
        self._disk.write(self._fd, data, end)
        self._disk.sync(self._fd)
        self._doubtful = False

    def _next_segment(self) -> None:
        """Begin a file. Crash after it exists: `open` finds it empty and goes on in it."""
        number = len(self.firsts)
        if self._fd >= 0:
            self._disk.sync(self._fd)  # a cut that was just made, too: nothing doubtful stays behind
        else:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
        fd = os.open(self.path(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._disk.truncate(fd, 0)  # what a failed attempt may have left; nothing in it was durable
            self._disk.sync(fd)
            sync_folder(self.folder)
        except OSError:
            os.close(fd)
            raise
        self.close()
        self._fd = fd
        self._doubtful = False
        self.firsts.append(self._chain.size)
        self.durable = Durable(self._chain.size, number, 0)

    def _written(self, suspects: set[str]) -> set[str]:
        """Which of these document ids are in the log already. Reads all of it: asked only after a crash."""
        found: set[str] = set()
        for number in reversed(range(len(self.firsts))):
            if found == suspects:
                break
            with self.path(number).open("rb") as file:
                for line in file:
                    if (match := _DOCUMENT.search(line)) and (document := match[1].decode()) in suspects:
                        found.add(document)
        return found

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # -- checkpoints ----------------------------------------------------------------------------------------

    def checkpoint(self) -> str:
        """A signed note over everything durable."""
        chain = self._chain
        return self._signer.checkpoint(self.org, chain.size, chain.tree.root())

    @property
    def behind(self) -> bool:
        """Whether entries have come since the checkpoint file was written."""
        return self._signed_size < self._chain.size

    def save_checkpoint(self) -> None:
        """Write the checkpoint file, then the state that saves reading all at the next start."""
        chain, seen, durable = self._chain, self._seen, self.durable
        note = self._signer.checkpoint(self.org, chain.size, chain.tree.root())
        replace_file(self.folder / "checkpoint", note.encode(), self._disk)
        state: dict[str, object] = {
            "segment": durable.segment,
            "offset": durable.end,
            "size": chain.size,
            "last": chain.last,
            "tree": [h.hex() for h in chain.tree.hashes],
            "outbox": seen.outbox,
            "boots": [[boot, seq] for boot, seq in seen.boots.items()],
        }
        state["sha256"] = line_hash(canonical(state))
        replace_file(self.folder / "state.json", canonical(state), self._disk)
        self._signed_size = chain.size

    # -- recovery -------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Find where the log stands. A torn last line is cut off; anything else that is wrong is refused."""
        numbers = sorted(int(p.name[4:12]) for p in self.folder.glob("log-????????.jsonl"))
        if numbers != list(range(len(numbers))):
            raise DamagedError(self.folder, f"the segments are numbered {numbers}: one is missing")
        signed = self._read_checkpoint()
        segment, offset = self._read_state()
        self.firsts = [self._first(number) for number in range(min(segment, len(numbers)))]
        if self._chain.size and segment >= len(numbers):
            raise DamagedError(self.folder, f"segment {segment} is missing, which was there before")
        end = offset
        for number in numbers[segment:]:
            self.firsts.append(self._chain.size if number > segment or not offset else self._first(number))
            end = self._replay(number, offset, signed, last=number == numbers[-1])
            offset = 0
        if signed and signed.size > self._chain.size:
            what = f"it holds {self._chain.size} entries, but {signed.size} were signed in the checkpoint"
            raise DamagedError(self.folder, what)
        if signed:
            self._signed_size = signed.size
        if numbers:
            self._fd = os.open(self.path(numbers[-1]), os.O_RDWR | os.O_CLOEXEC)
            if os.fstat(self._fd).st_size > end:
                self._disk.truncate(self._fd, end)
            # Lines that a killed process wrote but did not sync count from now on: they must be durable first.
            self._disk.sync(self._fd)
            self.durable = Durable(self._chain.size, numbers[-1], end)

    def _replay(self, number: int, offset: int, signed: Checkpoint | None, *, last: bool) -> int:
        """Take in the lines of one segment from `offset` on; returns where the last whole line ends."""
        path = self.path(number)
        self._check_signed(path, signed)
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < offset:
                raise DamagedError(path, f"it is shorter than the {offset} bytes that were durable")
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    if last:
                        break
                    raise DamagedError(path, "its last line is cut off, and another segment follows")
                try:
                    entry = self._chain.accept(line[:-1], self.org)
                except ChainError as error:
                    raise DamagedError(path, str(error)) from None
                self._seen.note(entry)
                self._check_signed(path, signed)
                offset += len(line)
        return offset

    def _check_signed(self, path: Path, signed: Checkpoint | None) -> None:
        if signed and signed.size == self._chain.size and signed.root != self._chain.tree.root():
            raise DamagedError(path, f"its first {signed.size} entries are not those that were signed")

    def _first(self, number: int) -> int:
        """The index of a segment's first entry, from its first line."""
        path = self.path(number)
        try:
            with path.open("rb") as file:
                index = parse(file.readline().rstrip(b"\n")).get("index")
        except CanonicalError as error:
            raise DamagedError(path, f"its first line is broken: {error}") from None
        if not isinstance(index, int):
            raise DamagedError(path, "its first line has no index")
        return index

    def _read_checkpoint(self) -> Checkpoint | None:
        path = self.folder / "checkpoint"
        try:
            text, gap, _ = path.read_text(encoding="utf-8").partition("\n\n")
            return parse_checkpoint(text + gap[:1])
        except FileNotFoundError:
            return None
        except (NoteError, UnicodeDecodeError) as error:
            raise DamagedError(path, str(error)) from None

    def _read_state(self) -> tuple[int, int]:
        """Where to begin reading. A state that is missing or unreadable costs time only: begin at the start."""
        with suppress(FileNotFoundError, CanonicalError, KeyError, TypeError, ValueError):
            state = parse((self.folder / "state.json").read_bytes())
            if state.pop("sha256") != line_hash(canonical(state)):
                return 0, 0
            boots: OrderedDict[str, int] = OrderedDict((str(b), int(s)) for b, s in state["boots"])  # type: ignore[attr-defined]
            tree = Tree(int(state["size"]), [bytes.fromhex(h) for h in state["tree"]])  # type: ignore[call-overload, attr-defined]
            chain, seen = Chain(tree, str(state["last"])), Seen(int(state["outbox"]), boots)  # type: ignore[call-overload]
            place = int(state["segment"]), int(state["offset"])  # type: ignore[call-overload]
            self._chain, self._seen = chain, seen
            return place
        return 0, 0
