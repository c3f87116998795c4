"""Honest packs of one log, and packs built around whatever lines: what mutations are made from.

The log has requests and changes, texts with several spellings, and daily counts; it is long enough for tiles of
two levels. Witnesses have cosigned it, and an auditor has kept the checkpoint of its first entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.canonical import canonical, parse
from gateway.audit.chain import Chain
from gateway.audit.cosignature import cosign, key_of
from gateway.audit.entry import from_change, from_receipt
from gateway.audit.instructions import README_TEXT
from gateway.audit.merkle import leaf_hash
from gateway.audit.pack import CHECKPOINT, ENTRIES, KEY, MANIFEST, README, TILES, WITNESSES, digest
from gateway.audit.signer import Signer
from gateway.audit.tiletree import TileTree, tile_path
from tests.fakes.audit import ACME, SIGNER, change, receipt

Files = Mapping[str, bytes]
"""A pack: its files by path."""

STRANGER = Signer("gateway.example", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
"""Has the operator's name and another key."""
TEXTS = ("code", 'quo"ted \\ back/slash', "ünïcode 🦉", "bell\x07 tab\t line\n", "\u2028\x7f\x85", "")
MADE_AT = 1_763_690_001
LENGTH = 600
DAYS = {7: (0, 7), 200: (7, 198), 401: (198, 400)}
"""At which index a daily count stands, and what it counts."""
KEPT = 9
"""Entries of the checkpoint that the auditor kept."""

_NAMES = ("one", "two", "three")
_PRIVATE = {name: Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n, name in enumerate(_NAMES, 7)}
_WITNESSES = "".join(f"witness {name} {key_of(f'{name}.example', key)}\n" for name, key in _PRIVATE.items())
POLICY = f"# who has to have cosigned\n{_WITNESSES}group two-of 2 one two three\nquorum two-of\n".encode()


class Shape(NamedTuple):
    """Which entries of a tree of `size` a pack has: [start, end), or with a `filter` those of `picked`."""

    size: int
    start: int
    end: int
    filter: Mapping[str, object] = {}
    picked: tuple[int, ...] = ()
    format: int = 2
    witnessed: bool = False
    """Whether the checkpoint is cosigned."""
    listed: bool = False
    """Whether the pack has a list of witnesses."""

    @property
    def indexes(self) -> Sequence[int]:
        return self.picked if self.filter else range(self.start, self.end)


def whole(size: int, **more: object) -> Shape:
    return Shape(size, 0, size, **more)  # type: ignore[arg-type]  # as its fields are


@cache
def log() -> tuple[bytes, ...]:
    """The lines of the honest log."""
    chain, made = Chain(), list[bytes]()
    for n in range(LENGTH):
        text = TEXTS[n % len(TEXTS)]
        draft = from_receipt(receipt(n, model=text, trace_id="4bf92f3577b34da6a3ce929d0e0e4736"), "boot", n + 1)
        if n % 3 == 2:
            draft = from_change(change(n, "limit.write", note=text, times=n, on=True))
        fields: dict[str, object] = dict(draft.fields)
        if n in DAYS:
            start, end = DAYS[n]
            count = sum("spool" in parse(line) for line in made[start:end])
            detail = {"day": f"2026-11-{10 + len(made) // 200}", "start": start, "end": end, "requests": count}
            fields = {**from_change(change(n, "audit.day")).fields, "detail": detail}
        made.append(chain.seal(fields))
    return tuple(made)


def kept() -> bytes:
    """The checkpoint that the auditor kept."""
    tree = TileTree(_nowhere)
    tree.add(b"".join(map(leaf_hash, log()[:KEPT])))
    return SIGNER.checkpoint(ACME, KEPT, tree.tree().root()).encode()


_HONEST: dict[str, Files] = {}


def honest(shape: Shape) -> Files:
    """The same bytes in the same objects each time: files on disk are shared by what they are."""
    return _HONEST.get(repr(shape)) or _HONEST.setdefault(repr(shape), packed(log()[: shape.size], shape))


def packed(lines: Sequence[bytes], shape: Shape, signer: Signer = SIGNER, witnessed: bool | None = None) -> Files:
    """All of a pack around these lines, signed, whatever they hold. They are the whole log."""
    files: dict[str, bytes] = {}
    tree = TileTree(_nowhere)
    if shape.format > 1:
        tree = TileTree(lambda level, number, hashes: files.update({_path(level, number, hashes): hashes}))
        files[README] = README_TEXT.encode()
        if shape.listed:
            files[WITNESSES] = POLICY
    tree.add(b"".join(map(leaf_hash, lines)))
    note = signer.checkpoint(ACME, len(lines), tree.finish())
    if shape.witnessed if witnessed is None else witnessed:
        note = cosigned(note)
    files[ENTRIES] = b"".join(lines[n] + b"\n" for n in shape.indexes)
    files[CHECKPOINT] = note.encode()
    files[KEY] = f"{signer.key(ACME)}\n".encode()
    return mended(files, shape)


def cosigned(note: str) -> str:
    text = note.partition("\n\n")[0] + "\n"
    by = ("one", "three")
    return note + "".join(cosign(text, f"{name}.example", _PRIVATE[name], MADE_AT) for name in by)


def mended(files: Files, shape: Shape, /, **changes: object) -> Files:
    """With a manifest that fits the other files: what somebody does who hides a change."""
    count = files[ENTRIES].count(b"\n")
    end = shape.end if shape.filter else shape.start + count
    members: dict[str, object] = {
        "format": shape.format,
        "org": ACME,
        "start": shape.start,
        "made_at": MADE_AT,
        "count": count,
        "end": end,
    }
    if shape.format == 1:
        hashes = {name: sha256(files[name]).hexdigest() for name in (ENTRIES, CHECKPOINT, KEY)}
        manifest = {**members, "sha256": hashes, **changes}
    else:
        named = {name: part(data) for name, data in files.items() if not is_tile(name) and name != MANIFEST}
        levels: dict[str, bytes] = {}
        for name in sorted(name for name in files if is_tile(name)):
            level = name.split("/")[1]
            levels[level] = levels.get(level, b"") + files[name]
        tiles = [part(levels[level]) for level in sorted(levels)]
        size = {"size": max(shape.size, end), "filter": shape.filter, "files": named, "tiles": tiles}
        manifest = {**members, **size, **changes}
    return {**files, MANIFEST: canonical({**manifest, "digest": digest(manifest)}) + b"\n"}


def part(data: bytes) -> dict[str, object]:
    return {"bytes": len(data), "sha256": sha256(data).hexdigest()}


def is_tile(path: str) -> bool:
    return path.startswith(f"{TILES}/")


def _path(level: int, number: int, hashes: bytes) -> str:
    return tile_path(level, number, len(hashes) // 32)


def _nowhere(level: int, number: int, hashes: bytes) -> None:
    """Only the root is wanted."""


SMALL = tuple(whole(size) for size in (1, 2, 3, 5, 8, 12, 30))
PARTS = (Shape(12, 3, 9), Shape(30, 0, 29), Shape(30, 10, 30), Shape(262, 250, 260), Shape(12, 5, 5))
SOME = (
    Shape(30, 0, 30, {"action": "limit.write"}, tuple(n for n in range(30) if n % 3 == 2)),
    Shape(30, 4, 30, {"action": ["completion.create"], "model": "code"}, (6, 12, 18, 24)),
    Shape(30, 0, 30, {"since": 1_763_690_000, "until": 1_763_690_001, "status": "no"}, ()),
    Shape(262, 0, 262, {"action": "audit.day"}, (7, 200)),
    Shape(258, 200, 258, {"org": "acme"}, (*range(200, 204), 255, 256, 257)),
)
LONG = (whole(256), whole(257), whole(512), whole(LENGTH))
OLD = tuple(whole(size, format=1) for size in (1, 3, 12))
SHAPES = (*SMALL, *SMALL, *PARTS, *PARTS, *SOME, *SOME, *OLD, LONG[0])
