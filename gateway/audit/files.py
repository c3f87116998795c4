"""One organization's log as files: `<orgs>/<org>/log-00000000.jsonl`, …, `tile/`, `checkpoint`, `state.json`.

Order of one append, and what a crash at each step leaves:

1. lines are written behind the last durable byte. Crash: whole lines that were never acknowledged, and perhaps
   a torn one. `replay` gives the whole ones, `ready` cuts the torn one off.
2. fdatasync. From here on the entries exist.
3. `durable` is replaced: readers see them.

A failed write or sync leaves bytes in doubt behind the last durable byte: the next append first cuts them off,
and writes afresh.

Order of one `drop`: `begin.json` is replaced, which says where the log begins; then the segments before that
go. Crash between: `ready` removes them.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from gateway.audit.blobs import FileBlobs
from gateway.audit.canonical import CanonicalError, canonical, parse
from gateway.audit.disk import Disk, replace_file, sync_folder
from gateway.audit.log_store import DamagedError, InUseError, Rule
from tenants.ids import InvalidIdError, OrgId, org_id

log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 * 1024 * 1024
_TIMESTAMP = re.compile(rb'\{"@timestamp":(\d+)')
"""How each line begins: no other name comes before it."""
AHEAD_MS = 86_400_000
STRIDE = 256
"""Entries between two remembered offsets of a segment."""


class Durable:
    """How far the log is durable: what readers may see. Replaced as a whole, never changed."""

    __slots__ = ("end", "segment", "size")

    def __init__(self, size: int, segment: int, end: int) -> None:
        self.size = size
        self.segment = segment
        self.end = end


class FileLog:
    """Implements `LogStore`. `folder` need not exist: it is made (0700, its files 0600) with the first
    entry."""

    def __init__(self, folder: Path, *, disk: Disk | None = None, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self.firsts: Mapping[int, int] = {}
        """The index of the first entry of each segment. Replaced as a whole, never changed."""
        self.begin = 0
        self._base = b""
        self._segment = 0
        """The first segment that is kept."""
        self.durable = Durable(0, 0, 0)
        self._disk = disk or Disk()
        self.blobs = FileBlobs(folder, self._disk)
        self._segment_bytes = segment_bytes
        self._fd = -1
        self._doubtful = False
        self._offsets: dict[int, list[int]] = {}
        self._learning = threading.Lock()
        self._replayed = Durable(0, 0, 0)
        self._replaying = folder
        self._read_begin()

    @property
    def size(self) -> int:
        return self.durable.size

    def path(self, segment: int) -> Path:
        return self.folder / f"log-{segment:08}.jsonl"

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # -- append ---------------------------------------------------------------------------------------------

    def append(self, lines: Sequence[bytes]) -> None:
        data = b"".join([line + b"\n" for line in lines])
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
        self.durable = Durable(self.durable.size + len(lines), self.durable.segment, end + len(data))

    def _next_segment(self) -> None:
        """Begin a file. Crash after it exists: `replay` finds it empty and goes on in it."""
        number = self._segment + len(self.firsts)
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
        self.firsts = {**self.firsts, number: self.durable.size}
        self.durable = Durable(self.durable.size, number, 0)

    # -- checkpoint and state -------------------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        return self._read("checkpoint")

    def state(self) -> bytes:
        return self._read("state.json")

    def place(self) -> Mapping[str, int]:
        return {"segment": self.durable.segment, "offset": self.durable.end}

    def save(self, checkpoint: bytes, state: bytes) -> None:
        replace_file(self.folder / "checkpoint", checkpoint, self._disk)
        replace_file(self.folder / "state.json", state, self._disk)

    def _read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return b""

    # -- recovery -------------------------------------------------------------------------------------------

    def replay(self, size: int, place: Mapping[str, int]) -> Iterator[bytes]:
        numbers = [number for number in self._numbers() if number >= self._segment]
        if numbers != list(range(self._segment, self._segment + len(numbers))):
            raise DamagedError(self.folder, f"the segments are numbered {numbers}: one is missing")
        segment, offset = place.get("segment", self._segment), place.get("offset", 0)
        if segment < self._segment:  # the end of one that is gone: the same entry is the first of the next
            segment, offset = self._segment, 0
        firsts = {number: self._first(number) for number in numbers if number < segment}
        if size and segment not in numbers:
            raise DamagedError(self.folder, f"segment {segment} is missing, which was there before")
        at = Durable(size, segment, offset)
        for number in numbers[len(firsts) :]:
            firsts[number] = at.size if number > segment or not offset else self._first(number)
            at = Durable(at.size, number, offset)
            for line in self._replayed_lines(number, offset, last=number == numbers[-1]):
                at = Durable(at.size + 1, number, at.end + len(line) + 1)
                yield line
            offset = 0
        self.firsts, self._replayed, self._replaying = firsts, at, self.folder

    def _replayed_lines(self, number: int, offset: int, *, last: bool) -> Iterator[bytes]:
        """The whole lines of one segment from `offset` on; the last segment's last may be torn."""
        path = self._replaying = self.path(number)
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < offset:
                raise DamagedError(path, f"it is shorter than the {offset} bytes that were durable")
            file.seek(offset)
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]
                elif not last:
                    raise DamagedError(path, "its last line is cut off, and another segment follows")

    def ready(self) -> None:
        if not self.firsts:
            self.durable = Durable(self.begin, self._segment, 0)
            return
        at = self._replayed
        self._fd = os.open(self.path(at.segment), os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(self._fd).st_size > at.end:
            self._disk.truncate(self._fd, at.end)
        # Lines that a killed process wrote but did not sync count from now on: they must be durable first.
        self._disk.sync(self._fd)
        self.durable = at
        self._remove_dropped()

    def damaged(self, what: str) -> DamagedError:
        return DamagedError(self._replaying, what)

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

    # -- reading, in any thread -----------------------------------------------------------------------------

    def lines(self, start: int, end: int) -> Iterator[bytes]:
        durable, firsts = self.durable, self.firsts
        end = min(end, durable.size)
        at = max(start, self.begin)
        while at < end:
            segment = _segment_of(firsts, durable, at)
            last = durable.size if segment == durable.segment else firsts[segment + 1]
            with self.path(segment).open("rb") as file:
                index, offset = self._seek(segment, firsts[segment], at)
                file.seek(offset)
                for _ in islice(file, at - index):
                    pass
                for line in islice(file, min(end, last) - at):
                    at += 1
                    yield line

    def _seek(self, segment: int, first: int, index: int) -> tuple[int, int]:
        """A place at or shortly before entry `index` of a segment, whose first is `first`: (its index, its
        offset).

        The offsets of a segment are learnt when they are first asked for, and go on from there.
        """
        slot = (index - first) // STRIDE
        with self._learning:
            known = self._offsets.setdefault(segment, [0])
            if slot >= len(known):
                with self.path(segment).open("rb") as file:
                    offset = known[-1]
                    file.seek(offset)
                    while len(known) <= slot:
                        offset += sum(map(len, islice(file, STRIDE)))
                        known.append(offset)
            return first + slot * STRIDE, known[slot]

    # -- retention ------------------------------------------------------------------------------------------

    def base(self) -> bytes:
        return self._base

    def due(self, before_ms: int) -> int:
        """Segments that were written to later are not even read."""
        begin = self.begin
        for number, following in zip(sorted(self.firsts), sorted(self.firsts)[1:], strict=False):
            path = self.path(number)
            written_ms = path.stat().st_mtime * 1000
            # An entry's time that is far ahead of its write is a clock's fault, and keeps nothing for ever.
            if written_ms >= before_ms or min(_newest(path), written_ms + AHEAD_MS) >= before_ms:
                break
            begin = self.firsts[following]
        return begin

    def drop(self, begin: int, base: bytes) -> None:
        kept = {number: first for number, first in self.firsts.items() if first >= begin}
        if kept.get(min(kept)) != begin:
            raise ValueError(f"no segment begins with entry {begin}")
        self._begin(begin, min(kept), base)
        self.firsts = kept
        self._remove_dropped()

    def adopt(self, begin: int, base: bytes) -> None:
        if self.durable.size not in (0, begin) or self.firsts:
            raise ValueError("there are entries in this log already")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._begin(begin, 0, base)
        self.durable = Durable(begin, 0, 0)

    def tend(self, rule: Rule, checkpoint: bytes, now_ms: int) -> None:
        """Lines stay where they are."""

    def _begin(self, begin: int, segment: int, base: bytes) -> None:
        said = canonical({"begin": begin, "segment": segment, "base": base.decode()})
        replace_file(self.folder / "begin.json", said, self._disk)
        self.begin, self._segment, self._base = begin, segment, base

    def _read_begin(self) -> None:
        if not (said := self._read("begin.json")):
            return
        try:
            found = parse(said)
            self.begin, self._segment = int(found["begin"]), int(found["segment"])  # type: ignore[call-overload]
            self._base = str(found["base"]).encode()
        except (CanonicalError, KeyError, TypeError, ValueError):
            raise DamagedError(self.folder / "begin.json", "it cannot be read") from None

    def _remove_dropped(self) -> None:
        gone = [number for number in self._numbers() if number < self._segment]
        for number in gone:
            self.path(number).unlink()
            self._offsets.pop(number, None)
        if gone:
            sync_folder(self.folder)

    def _numbers(self) -> list[int]:
        return sorted(int(path.name[4:12]) for path in self.folder.glob("log-????????.jsonl"))


def _segment_of(firsts: Mapping[int, int], durable: Durable, index: int) -> int:
    segment = durable.segment
    while firsts[segment] > index:
        segment -= 1
    return segment


def _newest(path: Path) -> int:
    """The newest time that an entry of this segment bears, Unix milliseconds."""
    with path.open("rb") as file:
        return max((int(found[1]) for line in file if (found := _TIMESTAMP.match(line))), default=0)


class FileLogs:
    """Implements `LogStores`: the folders under `<folder>/orgs`, `folder` being `<audit>`.

    A lock on `<folder>/orgs.lock` keeps a second process out for as long as this one lives.
    """

    def __init__(self, folder: Path, *, disk: Disk | None = None, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._orgs = folder / "orgs"
        self._disk = disk or Disk()
        self._segment_bytes = segment_bytes
        self._lock = -1

    def orgs(self) -> Sequence[OrgId]:
        self._take()
        found = []
        for path in sorted(self._orgs.iterdir()):
            try:
                found.append(org_id(path.name))
            except InvalidIdError:
                log.warning("audit: %s is not the folder of an organization", path)
        return found

    def open(self, org: OrgId) -> FileLog:
        self._take()
        return FileLog(self._orgs / org, disk=self._disk, segment_bytes=self._segment_bytes)

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take(self) -> None:
        if self._lock >= 0:
            return
        self._orgs.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / "orgs.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of the process: it ends with it, however that dies
        except OSError:
            os.close(lock)
            raise InUseError(f"{path} is locked: another process writes these audit logs") from None
        self._lock = lock
