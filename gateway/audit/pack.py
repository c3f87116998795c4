"""An evidence pack: a folder with entries of one organization's log and all that is needed to verify them offline.

`entries.jsonl` (the lines), the hash tiles of the whole tree at their C2SP paths, `checkpoint` (a signed note with
the cosignatures that it had), `key`, perhaps `witnesses`, `README.txt`, and `manifest.json`, which comes last: a
folder without it is an export that did not end and can be continued. Memory stays flat, however long the log is.
Standard library only.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from gateway.audit.canonical import LINE_MAX, CanonicalError, canonical, parse
from gateway.audit.instructions import README_TEXT
from gateway.audit.merkle import leaf_hash
from gateway.audit.tiletree import HASH, TILE_BYTES, WIDTH, TileTree, tile_path

ENTRIES, CHECKPOINT, KEY, MANIFEST = "entries.jsonl", "checkpoint", "key", "manifest.json"
README, WITNESSES, TILES = "README.txt", "witnesses", "tile"
PLAN = "manifest.part"
"""What is being exported; in its place there is the manifest in the end."""
FORMAT = 2

_READY = "manifest.new"
_PIECE = 1 << 20


def digest(manifest: Mapping[str, object]) -> str:
    """What the manifest's own member `digest` holds: SHA-256 of the canonical rest. It finds accidents; only
    the checkpoint's signature stops somebody who makes all of it anew."""
    return sha256(canonical({k: v for k, v in manifest.items() if k != "digest"})).hexdigest()


class PackError(ValueError):
    """What arrived is no pack of this log; the message says why. Nothing of it is finished."""


class Plan(NamedTuple):
    """What a pack is to hold: entries [start, end) of the tree that `checkpoint` signs, those that match `filter`.

    `filter` is {} for all of them. Its members: `since` and `until`, Unix seconds, for `since` <= `@timestamp` <
    `until`; any other names a member of entries and gives the text it has to have, or a list of such texts. No
    member's id: what stands in the lines is a pseudonym. `witnesses` is a policy (C2SP tlog-policy), '' for none.
    """

    org: str
    checkpoint: str
    key: str
    start: int
    end: int
    filter: Mapping[str, object]
    witnesses: str = ""

    @property
    def size(self) -> int:
        """Leaves of the tree: the second line of a checkpoint (C2SP tlog-checkpoint)."""
        return int(self.checkpoint.split("\n", 2)[1])

    @property
    def whole(self) -> bool:
        return not self.filter and (self.start, self.end) == (0, self.size)


def whole_log(org: str, checkpoint: str, key: str, witnesses: str = "") -> Plan:
    """All entries that `checkpoint` signs."""
    plan = Plan(org, checkpoint, key, 0, 0, {}, witnesses)
    return plan._replace(end=plan.size)


class PackWriter:
    """Writes a pack as its lines arrive, and after kill -9 goes on with it.

    >>> with PackWriter.resume(folder) if PackWriter.unfinished(folder) else PackWriter(folder, plan) as pack:
    ...     for piece in lines(start=pack.next_index, end=pack.plan.end, filter=pack.plan.filter):
    ...         pack.write(piece)
    ...     if not pack.plan.whole:
    ...         for piece in leaves(start=pack.leaves, end=pack.plan.size):
    ...             pack.write_leaves(piece)
    ...     pack.finish(made_at)

    The checkpoint is chosen first and kept, so that whatever comes later is of the same tree.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        """Make `folder`. Raises FileExistsError when something is there, PackError for a range that is none."""
        if not 0 <= plan.start <= plan.end <= plan.size:
            raise PackError(f"the checkpoint signs {plan.size} entries, not all of [{plan.start}, {plan.end})")
        line = canonical(plan._asdict())
        if len(line) > LINE_MAX:
            raise PackError(f"checkpoint, witnesses and filter are longer than {LINE_MAX} bytes")
        folder.mkdir(mode=0o700, parents=True)
        # A crash before the plan leaves a folder that nobody continues, and a pack that is none.
        _put(folder / PLAN, line + b"\n")
        self._begin(folder, plan)

    @staticmethod
    def unfinished(folder: Path) -> bool:
        """Whether `folder` is an export that did not end."""
        return (folder / PLAN).is_file()

    @classmethod
    def resume(cls, folder: Path) -> PackWriter:
        """Go on with what `unfinished` found. Reads what is there: seconds for a GB. Raises PackError when it was
        not this class that began it, OSError."""
        try:
            found = parse((folder / PLAN).read_bytes().removesuffix(b"\n"))
            plan = Plan(**found)  # type: ignore[arg-type]  # judged by what follows
            if not (isinstance(plan.filter, dict) and 0 <= plan.start <= plan.end <= plan.size):
                raise ValueError
        except (CanonicalError, TypeError, ValueError, AttributeError, IndexError):
            raise PackError(f"{PLAN} is not what an export leaves: remove the folder, and export again") from None
        self = cls.__new__(cls)
        self._begin(folder, plan)
        return self

    def _begin(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self.count = 0
        """Whole entries so far."""
        self._folder = folder
        self._tiles = TileTree(self._tile)
        self._hash, self._levels = sha256(), [_Level()]
        self._size = 0
        self._last = b""
        self._rest = self._rest_hash = b""
        self._file = os.open(folder / ENTRIES, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._read_back()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        os.close(self._file)

    @property
    def next_index(self) -> int:
        """From which entry on lines are wanted."""
        if not self.count:
            return self.plan.start
        if not self.plan.filter:
            return self.plan.start + self.count
        try:
            index = parse(self._last)["index"]
        except (CanonicalError, KeyError):
            index = None
        if type(index) is not int:
            raise PackError(f"the last line of {ENTRIES} is no entry: remove the folder, and export again")
        return index + 1

    @property
    def leaves(self) -> int:
        """From which leaf on hashes are wanted, when the pack is not of the whole log."""
        return self._tiles.size

    def write(self, piece: bytes) -> None:
        """Add lines; a piece may end within one, which is kept back until it is whole."""
        whole, newline, self._rest = (self._rest + piece).rpartition(b"\n")
        if newline:
            whole += newline
            _write_all(self._file, whole)
            self._take(whole)

    def write_leaves(self, piece: bytes) -> None:
        """Add hashes of leaves (RFC 6962), 32 bytes each; a piece may end within one."""
        piece = self._rest_hash + piece
        cut = len(piece) - len(piece) % HASH
        self._rest_hash = piece[cut:]
        self._tiles.add(piece[:cut])

    def finish(self, made_at: int) -> None:
        """Add what verifies the lines, and the manifest. `made_at` in Unix seconds. Raises PackError when
        something is missing or is not what the checkpoint signs."""
        plan = self.plan
        if self._rest or self._rest_hash:
            raise PackError("the transfer was cut off: it ends within an entry or a hash")
        if not plan.filter and self.count != plan.end - plan.start:
            raise PackError(f"{self.count} entries arrived, and not the {plan.end - plan.start} of the range")
        if self._tiles.size != plan.size:
            raise PackError(f"{self._tiles.size} leaves arrived, and not the {plan.size} of the checkpoint")
        root = self._tiles.finish()
        if plan.checkpoint.split("\n", 3)[2:3] != [b64encode(root).decode()]:
            raise PackError("what arrived is not what the checkpoint signs: the Merkle root differs")
        os.fsync(self._file)
        texts = {CHECKPOINT: plan.checkpoint, KEY: plan.key.strip() + "\n", README: README_TEXT}
        if plan.witnesses:
            texts[WITNESSES] = plan.witnesses
        files = {ENTRIES: {"bytes": self._size, "sha256": self._hash.hexdigest()}}
        for name, text in texts.items():
            data = text.encode()
            _put(self._folder / name, data)
            files[name] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
        manifest: dict[str, object] = {
            "format": FORMAT,
            "org": plan.org,
            "size": plan.size,
            "start": plan.start,
            "end": plan.end,
            "count": self.count,
            "filter": plan.filter,
            "made_at": made_at,
            "files": files,
            "tiles": [level.entry() for level in self._levels if level.size],
        }
        # A crash before the last step leaves the plan: the export is continued, and all of this done again.
        _put(self._folder / _READY, canonical({**manifest, "digest": digest(manifest)}) + b"\n")
        (self._folder / _READY).rename(self._folder / MANIFEST)
        (self._folder / PLAN).unlink()
        _sync(self._folder)

    # -- what is on disk ------------------------------------------------------------------------------------

    def _take(self, lines: bytes) -> None:
        """Account for whole lines that are in the file."""
        self._hash.update(lines)
        self._size += len(lines)
        bodies = lines[:-1].split(b"\n")
        self.count += len(bodies)
        self._last = bodies[-1]
        if self.plan.whole:
            self._tiles.add(b"".join(map(leaf_hash, bodies)))

    def _read_back(self) -> None:
        """As if all that is there had just arrived: hashes cannot be continued, only taken again."""
        rest = b""
        while piece := os.read(self._file, _PIECE):
            whole, newline, rest = (rest + piece).rpartition(b"\n")
            if newline:
                self._take(whole + newline)
        if rest:  # killed within a line
            os.truncate(self._file, self._size)
        os.lseek(self._file, self._size, os.SEEK_SET)
        if not self.plan.whole:
            for tile in self._kept_tiles():
                self._tiles.add(tile)

    def _kept_tiles(self) -> Iterator[bytes]:
        """Tiles of leaves that are there and full; the first that is not ends them."""
        for number in range(self.plan.size * HASH // TILE_BYTES):
            try:
                tile = (self._folder / tile_path(0, number)).read_bytes()
            except FileNotFoundError:
                return
            if len(tile) != TILE_BYTES:  # killed within it: it comes again, whole
                return
            yield tile

    def _tile(self, level: int, number: int, hashes: bytes) -> None:
        width = len(hashes) // HASH
        path = self._folder / tile_path(level, number, width)
        if number % 1000 == 0 or width < WIDTH:
            _make(path.parent)
        _put(path, hashes, sync=False)
        while level >= len(self._levels):
            self._levels.append(_Level())
        self._levels[level].add(hashes)


class _Level:
    """All tiles of one level, one after the other, as the manifest names them."""

    def __init__(self) -> None:
        self.size = 0
        self._hash = sha256()

    def add(self, hashes: bytes) -> None:
        self.size += len(hashes)
        self._hash.update(hashes)

    def entry(self) -> dict[str, object]:
        return {"bytes": self.size, "sha256": self._hash.hexdigest()}


def _make(folder: Path) -> None:
    """With all above it, each 0700: `Path.mkdir` gives its mode to the last one only."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=0o700)


def _put(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file of the pack; what a crash left of it is written over."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        _write_all(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
