"""What a pack says it holds, and whether its folder holds that and nothing else. Nothing in it is believed.

Reads packs of format 2, and those of format 1, which were made before packs had hash tiles. Standard library only.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gateway.audit.canonical import CanonicalError, parse
from gateway.audit.pack import CHECKPOINT, ENTRIES, FORMAT, KEY, MANIFEST, PLAN, README, TILES, WITNESSES, digest
from gateway.audit.tiletree import HASH, tile_path

SMALL_MAX = 64 * 1024
"""Bytes of any file of a pack but the entries: what came after would be judged by nothing."""

_RANGE = ("start", "end", "count", "made_at")
_FIRST = {"format", "org", "sha256", "digest", *_RANGE}
_SECOND = {"format", "org", "size", "filter", "files", "tiles", "digest", *_RANGE}
_OWN = (ENTRIES, CHECKPOINT, KEY)
_HEX = re.compile(r"[0-9a-f]{64}")
_TILE = re.compile(r"tile/([0-9])/((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([0-9]{1,3}))?")
_DEPTH_MAX = 8

FaultAt = Callable[[str, str], None]


class Part(NamedTuple):
    """A file, or all tiles of one level: how long it is (format 1 does not say) and its SHA-256 in hexadecimal."""

    size: int | None
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """`size` is that of the whole tree; a pack of format 1 has no `tiles`, and is of a whole log or of nothing."""

    format: int
    org: str
    size: int
    start: int
    end: int
    count: int
    filter: Mapping[str, object]
    files: Mapping[str, Part]
    tiles: tuple[Part, ...]


class ManifestError(ValueError):
    """No manifest; the message says why, in words."""


def read_manifest(raw: bytes) -> Manifest:
    """Judge the bytes of `manifest.json`. Raises `ManifestError`."""
    try:
        if not raw.endswith(b"\n"):
            raise CanonicalError("it does not end with a newline: it was cut off")
        found = parse(raw[:-1])
    except CanonicalError as error:
        raise ManifestError(str(error)) from None
    # `true` equals 1 here, and nowhere else: types are compared too.
    kind = found.get("format")
    if type(kind) is not int or (kind, set(found)) not in ((1, _FIRST), (FORMAT, _SECOND)):
        raise ManifestError(f"is not a manifest of format {FORMAT}, nor of format 1")
    org = found["org"]
    start, end, count, made_at = (found[name] for name in _RANGE)
    size = found.get("size", end)
    if not isinstance(org, str):
        raise ManifestError("does not name its organization")
    if not (type(start) is int and type(end) is int and type(count) is int and type(size) is int):
        raise ManifestError("gives no range of entries")
    if not 0 <= start <= end <= size:
        raise ManifestError(f"its range [{start}, {end}) is none of a tree of {size} entries")
    if type(made_at) is not int:
        raise ManifestError("does not say when it was made")
    filters = _filter(found.get("filter", {}))
    if not (0 <= count <= end - start and (filters or count == end - start)):
        raise ManifestError(f"counts {count} entries, but its range [{start}, {end}) has {end - start}")
    files = _hashes(found["sha256"]) if kind == 1 else _files(found["files"])
    tiles = () if kind == 1 else _tiles(found["tiles"], size)
    if found["digest"] != digest(found):
        raise ManifestError("its digest does not fit its contents: it was changed")
    return Manifest(kind, org, size, start, end, count, filters, files, tiles)


def _filter(found: object) -> Mapping[str, object]:
    if not isinstance(found, dict):
        raise ManifestError("its filter is no object")
    for name, value in found.items():
        if name in ("since", "until"):
            fits = type(value) is int
        else:
            several = isinstance(value, list) and value != [] and all(isinstance(one, str) for one in value)
            fits = several or isinstance(value, str)
        if not fits:
            raise ManifestError(f"its filter says nothing with {name!r}")
    return found


def _hashes(found: object) -> Mapping[str, Part]:
    if not (isinstance(found, dict) and set(found) == set(_OWN)):
        raise ManifestError("does not name exactly the files of a pack")
    return {name: _part({"bytes": 0, "sha256": value})._replace(size=None) for name, value in found.items()}


def _files(found: object) -> Mapping[str, Part]:
    if not (isinstance(found, dict) and set(found) - {WITNESSES} == {*_OWN, README}):
        raise ManifestError("does not name exactly the files of a pack")
    return {name: _part(value) for name, value in found.items()}


def _tiles(found: object, size: int) -> tuple[Part, ...]:
    parts = tuple(map(_part, found)) if isinstance(found, list) else ()
    expected = [(size >> 8 * level) * HASH for level in range(8) if size >> 8 * level]
    if not isinstance(found, list) or [part.size for part in parts] != expected:
        raise ManifestError(f"its tiles are not those of a tree of {size} entries")
    return parts


def _part(found: object) -> Part:
    if isinstance(found, dict) and set(found) == {"bytes", "sha256"}:
        size, hashed = found["bytes"], found["sha256"]
        if type(size) is int and size >= 0 and isinstance(hashed, str) and _HEX.fullmatch(hashed):
            return Part(size, hashed)
    raise ManifestError("does not give size and SHA-256 of each file")


# -- the folder -------------------------------------------------------------------------------------------------


def is_pack(folder: Path, fault: FaultAt) -> bool:
    """Whether there is a manifest to be read. Whatever this folder is otherwise, its files are not a pack's, and
    there may be very many of them."""
    try:
        found = (folder / MANIFEST).lstat()
    except FileNotFoundError:
        missing = f"this is no pack: {MANIFEST} is missing"
        if (folder / PLAN).exists():
            missing = "the export did not end: run it again, with --resume"
        fault(str(folder), missing)
        return False
    return _plain(MANIFEST, found, fault)


def holds_its_files(folder: Path, manifest: Manifest, fault: FaultAt) -> bool:
    """Whether the files are there that the manifest names. Plain files, and nothing else: a link could lead out of
    the pack. Tiles that are missing are found when they are read."""
    whole = True
    for name in manifest.files:
        try:
            whole = _plain(name, (folder / name).lstat(), fault) and whole
        except FileNotFoundError:
            fault(name, "is missing: the pack is not complete")
            whole = False
    for entry in os.scandir(folder):
        if entry.name == TILES and manifest.tiles:
            _walk(entry, TILES, manifest.size, fault)
        elif entry.name not in manifest.files and entry.name != MANIFEST:
            fault(entry.name, "is not part of a pack: it was added")
    return whole


def _plain(name: str, found: os.stat_result, fault: FaultAt) -> bool:
    if not stat.S_ISREG(found.st_mode):
        fault(name, "is not a plain file")
    elif name != ENTRIES and found.st_size > SMALL_MAX:
        fault(name, f"is longer than {SMALL_MAX} bytes")
    else:
        return True
    return False


def _walk(entry: os.DirEntry[str], path: str, size: int, fault: FaultAt) -> None:
    if entry.is_dir(follow_symlinks=False):
        held = False
        for below in os.scandir(entry.path):
            held = True
            if path.count("/") < _DEPTH_MAX:
                _walk(below, f"{path}/{below.name}", size, fault)
            else:
                fault(f"{path}/{below.name}", "is not part of a pack: it was added")
        if not held:
            fault(path, "is not part of a pack: it was added")
    elif not is_tile(path, size):
        fault(path, "is not part of a pack: it was added")
    elif not entry.is_file(follow_symlinks=False):
        fault(path, "is not a plain file")


def is_tile(path: str, size: int) -> bool:
    """Whether a tree of `size` leaves has a tile at `path`."""
    found = _TILE.fullmatch(path)
    if found is None:
        return False
    level, width = int(found[1]), int(found[3] or 256)
    number = int(found[2].replace("/", "").replace("x", ""))
    hashes = size >> 8 * level
    there = min(hashes - number * 256, 256) if number * 256 < hashes else 0
    return width == there and tile_path(level, number, width) == path
