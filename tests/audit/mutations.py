"""Mutated packs: made from honest ones, by somebody who can write a manifest, tiles, a chain, or can even sign.

What the auditor has from elsewhere decides what can be found out. `alone`: the log's key. `witnessed`: also whom
they trust to have cosigned. `kept`: also a checkpoint of an earlier time.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Literal, NamedTuple

from gateway.audit.chain import Chain
from gateway.audit.pack import CHECKPOINT, ENTRIES, KEY, MANIFEST, README, WITNESSES
from tests.audit.packs import (
    KEPT,
    LONG,
    SHAPES,
    SMALL,
    STRANGER,
    Files,
    Shape,
    honest,
    is_tile,
    log,
    mended,
    packed,
)
from tests.audit.spoil import ACCIDENTS, ANY, JSON, NOTES, SPELLINGS, Spoil
from tests.fakes.audit import SIGNER

Mode = Literal["alone", "witnessed", "kept"]
MODES: tuple[Mode, ...] = ("alone", "witnessed", "kept")


class Mutated(NamedTuple):
    """`bad`: no verifier may take it. Otherwise it may be good, as far as anybody can know who has what `mode`
    says: the operator signed it, or it changes what nobody signs. Then both have to say the same."""

    name: str
    files: Files
    bad: bool
    mode: Mode = "alone"


class Case(NamedTuple):
    """What is mutated: an honest pack, and what the auditor has."""

    shape: Shape
    mode: Mode
    files: Files


def mutate(rng: random.Random) -> Mutated:
    """One mutated pack; at least a byte of it differs from the honest one."""
    while True:
        mode = rng.choice(MODES)
        shape = rng.choice(SHAPES) if rng.random() > 0.01 else rng.choice(LONG)
        if mode == "kept" and (shape.size < KEPT or shape.filter):
            shape = rng.choice([one for one in SMALL if one.size >= KEPT])
        if shape.format == 2 and (mode == "witnessed" or rng.random() < 0.3):
            shape = shape._replace(witnessed=True, listed=mode != "witnessed" or rng.random() < 0.5)
        elif mode == "witnessed":
            shape = shape._replace(witnessed=True)
        case = Case(shape, mode, honest(shape))
        kind = rng.choice(KINDS)
        made = kind(rng, case)
        if made is not None and made.files != case.files:
            return made._replace(mode=mode)


# -- without the operator's key --------------------------------------------------------------------------------


def raw(rng: random.Random, case: Case) -> Mutated:
    """The bytes of one file, and nothing else."""
    name = _file(rng, case)
    spoil = _any_for(rng, name)
    return Mutated(f"raw {_kind(name)} {spoil.__name__}", _with(case, name, spoil(rng, case.files[name])), True)


def hidden(rng: random.Random, case: Case) -> Mutated:
    """The bytes of one file, and a manifest that fits them."""
    name = _file(rng, case)
    spoil = _any_for(rng, name)
    spoiled = spoil(rng, case.files[name])
    same = spoiled == case.files[name] or name == MANIFEST
    made = case.files if same else mended(_with(case, name, spoiled), case.shape)
    good = (
        name in (README, WITNESSES)
        or (name == CHECKPOINT and _same_note(spoiled, case.files[name]))
        or (name == ENTRIES and _fewer(spoiled, case))
    )
    return Mutated(f"hidden {_kind(name)} {spoil.__name__}", made, not good)


def linked(rng: random.Random, case: Case) -> Mutated:
    """Other entries, their chain and manifest intact, perhaps with tiles to fit; only what was signed tells."""
    made = dict(packed(_relinked(rng, case), case.shape))
    made[CHECKPOINT] = case.files[CHECKPOINT]
    if rng.random() < 0.3:
        made = {name: data for name, data in made.items() if not is_tile(name)}
        made |= {name: data for name, data in case.files.items() if is_tile(name)}
    return Mutated("linked", mended(made, case.shape), True)


def forged(rng: random.Random, case: Case) -> Mutated:
    """All of it made anew and signed, by somebody else."""
    return Mutated("forged", packed(_relinked(rng, case), case.shape, STRANGER), True)


def half_forged(rng: random.Random, case: Case) -> Mutated:
    """A checkpoint of somebody else under the operator's key."""
    shape = case.shape
    made = packed(_relinked(rng, case), shape, STRANGER)
    return Mutated("half_forged", mended({**made, KEY: case.files[KEY]}, shape), True)


def older(rng: random.Random, case: Case) -> Mutated | None:
    """The checkpoint of an earlier time in its place: it is of a smaller tree."""
    if case.shape.size < 2:
        return None
    size = rng.randrange(case.shape.size)
    note = packed(log()[:size], Shape(size, 0, 0, witnessed=case.shape.witnessed))[CHECKPOINT]
    return Mutated("older", mended({**case.files, CHECKPOINT: note}, case.shape), True)


MEMBERS = ("count", "end", "files", "filter", "format", "made_at", "more", "org", "size", "start", "tiles")


def told_otherwise(rng: random.Random, case: Case) -> Mutated:
    """A manifest with another value in it, its digest right."""
    name = rng.choice(MEMBERS)
    value: object = rng.choice((0, 1, -1, 7, True, "", "1", "acme", "globex", [], {}, {"key": "x"}, 2**53 - 1))
    may_be = name == "filter" or (case.shape.filter and name in ("start", "end"))
    if case.shape.format == 1:
        may_be = False
    bad = not (may_be or (name == "made_at" and type(value) is int))
    return Mutated(f"told_otherwise {name}", mended(case.files, case.shape, **{name: value}), bad)


def filter_lies(rng: random.Random, case: Case) -> Mutated | None:
    """Another filter than the entries match."""
    if not case.shape.indexes or case.shape.format == 1:
        return None
    filters: tuple[dict[str, object], ...] = (
        {"action": "key.write"},
        {"action": ["limit.read", ""]},
        {"org": "globex"},
        {"since": 1_863_690_001},
        {"until": 1_063_690_001},
        {"schema": "1"},
        {"constructor": "x"},
        {**case.shape.filter, "detail": "x"},
    )
    return Mutated("filter_lies", mended(case.files, case.shape, filter=rng.choice(filters)), True)


def left_out(rng: random.Random, case: Case) -> Mutated | None:
    """A line fewer in a pack with a filter, or in its place or twice: to leave out cannot be proved."""
    if not case.shape.filter or not case.shape.picked:
        return None
    picked = list(case.shape.picked)
    at, bad = rng.randrange(len(picked)), True
    match rng.randrange(3):
        case 0:
            del picked[at]
            bad = False
        case 1:
            picked.insert(at, picked[at])
        case _:
            picked.insert(rng.randrange(len(picked)), picked.pop(at))
    made = b"".join(log()[n] + b"\n" for n in picked)
    bad = bad and picked != list(case.shape.picked)
    return Mutated("left_out", mended({**case.files, ENTRIES: made}, case.shape), bad)


def added(rng: random.Random, case: Case) -> Mutated:
    """A file more."""
    path = rng.choice(ADDED)
    taken = any(name.startswith(f"{path}/") or path.startswith(f"{name}/") for name in case.files)
    if path in case.files or taken:
        path = "taken"
    return Mutated("added", {**case.files, path: rng.choice((b"", b"x", log()[0], bytes(32), bytes(8192)))}, True)


ADDED = (
    "notes.txt",
    "manifest.part",
    "manifest.json~",
    ".DS_Store",
    "tile/0/999",
    "tile/0/000.p/256",
    "tile/0/000.p/0",
    "tile/0/0000",
    "tile/0/x000/000",
    "tile/1/000.p/7",
    "tile/9/000",
    "tile/00/000",
    "tile/entries/000",
    "tile/x",
    "entries.jsonl.1/x",
    "tile/0/001.p/1/x",
    "a/b/c/d/e/f/g/h/i/j/k/l/m",
)


def removed(rng: random.Random, case: Case) -> Mutated:
    """A file fewer, also from the manifest where that names it. A list of witnesses may be left out."""
    name = rng.choice(sorted(case.files))
    made = {path: data for path, data in case.files.items() if path != name}
    hide = name not in (MANIFEST, ENTRIES, CHECKPOINT, KEY) and case.shape.format == 2
    return Mutated("removed", mended(made, case.shape) if hide else made, not (hide and name == WITNESSES))


def tiles_moved(rng: random.Random, case: Case) -> Mutated | None:
    """Hashes of one tile in another order, or of one tile in another, and a manifest that fits."""
    tiles = [name for name in case.files if is_tile(name)]
    if not tiles:
        return None
    name, other = rng.choice(tiles), rng.choice(tiles)
    data, more = bytearray(case.files[name]), case.files[other]
    a, b = 32 * rng.randrange(len(data) // 32), 32 * rng.randrange(len(more) // 32)
    data[a : a + 32] = more[b : b + 32]
    return Mutated("tiles_moved", mended(_with(case, name, bytes(data)), case.shape), True)


# -- by the operator -------------------------------------------------------------------------------------------


def spelt(rng: random.Random, case: Case) -> Mutated | None:
    """The last line in another spelling, and all around it made and signed anew by the operator, and cosigned:
    only the rules of canonical JSON tell."""
    spoil = rng.choice(SPELLINGS)
    made = _last_line(rng, case, spoil, witnessed=case.shape.witnessed)
    return made if made is None else Mutated(f"spelt {spoil.__name__}", made, True)


def signed_anew(rng: random.Random, case: Case) -> Mutated | None:
    """Whatever became of the last line, the operator signed it. It may be good, and both have to say the same."""
    spoil = rng.choice((*ACCIDENTS, *JSON))
    made = _last_line(rng, case, spoil, witnessed=False)
    bad = case.mode == "witnessed" or (case.mode == "kept" and case.shape.size <= KEPT)
    return made if made is None else Mutated(f"signed_anew {spoil.__name__}", made, bad or case.shape.listed)


def resigned(rng: random.Random, case: Case) -> Mutated:
    """The operator signs another log, with the cosignatures of the true one, or without.

    Nothing in the pack can tell. Witnesses whom the auditor trusts can, and a checkpoint that was kept."""
    lines = _relinked(rng, case, upto=KEPT - 1 if case.mode == "kept" else None)
    shape = case.shape
    made = packed(lines, shape, SIGNER, witnessed=False)
    if case.shape.witnessed and rng.random() < 0.5:
        stolen = b"".join(case.files[CHECKPOINT].rpartition(b"\n\n")[2].splitlines(keepends=True)[1:])
        made = mended({**made, CHECKPOINT: made[CHECKPOINT] + stolen}, shape)
    return Mutated("resigned", made, case.mode != "alone" or case.shape.listed)


def cut_off(rng: random.Random, case: Case) -> Mutated | None:
    """The last entries gone, and the operator's signature over the others."""
    shape = case.shape
    most = KEPT if case.mode == "kept" else shape.size
    size = rng.randrange(shape.start, most) if shape.start < most else -1
    if size < 0 or shape.filter:
        return None
    made = packed(log()[:size], shape._replace(size=size, end=min(shape.end, size)), SIGNER, witnessed=False)
    return Mutated("cut_off", made, case.mode != "alone" or shape.listed)


def counted_otherwise(rng: random.Random, case: Case) -> Mutated | None:
    """A request taken out of a day, or a count changed, and all of it signed and cosigned anew: the log's own
    count does not fit."""
    if case.shape.start or case.shape.filter or case.shape.end < 8:
        return None
    entries = [json.loads(line) for line in log()[: case.shape.size]]
    request = rng.choice([n for n in range(7) if "spool" in entries[n]])
    match rng.randrange(3):
        case 0:
            del entries[request]
        case 1:
            del entries[request]["spool"]
        case _:
            entries[7]["detail"][rng.choice(("requests", "start", "end"))] += rng.choice((1, 2, -1, -2))
    size = len(entries)
    shape = case.shape._replace(size=size, end=min(case.shape.end, size))
    return Mutated("counted_otherwise", packed(_sealed(entries), shape), True)


KINDS: tuple[Callable[[random.Random, Case], Mutated | None], ...] = (
    raw,
    raw,
    raw,
    hidden,
    hidden,
    hidden,
    linked,
    forged,
    half_forged,
    older,
    told_otherwise,
    filter_lies,
    left_out,
    added,
    removed,
    tiles_moved,
    spelt,
    spelt,
    signed_anew,
    resigned,
    resigned,
    cut_off,
    counted_otherwise,
)


def _file(rng: random.Random, case: Case) -> str:
    tiles = [name for name in case.files if is_tile(name)]
    names = [name for name in case.files if not is_tile(name)]
    return rng.choice((ENTRIES, ENTRIES, *names, *(tiles and [rng.choice(tiles)] * 2)))


def _kind(name: str) -> str:
    return "tile" if is_tile(name) else name


def _with(case: Case, name: str, data: bytes) -> Files:
    return {**case.files, name: data}


def _any_for(rng: random.Random, name: str) -> Spoil:
    if name in (ENTRIES, MANIFEST):
        return rng.choice((*ANY, *JSON))
    if is_tile(name):
        return rng.choice(ANY)
    return rng.choice((*ANY, *NOTES, *NOTES))


def _same_note(a: bytes, b: bytes) -> bool:
    """The order of signatures says nothing."""
    (text, _, lines), (other, _, others) = a.rpartition(b"\n\n"), b.rpartition(b"\n\n")
    return text == other and sorted(lines.split(b"\n")) == sorted(others.split(b"\n"))


def _fewer(spoiled: bytes, case: Case) -> bool:
    """Whether it is an honest pack of a part: with a filter some of the lines, without one the first."""
    if case.shape.format == 1 or (spoiled and not spoiled.endswith(b"\n")):
        return False
    found, rest = spoiled.split(b"\n")[:-1], iter(case.files[ENTRIES].split(b"\n")[:-1])
    if case.shape.filter:
        return all(line in rest for line in found)
    return all(line == next(rest, None) for line in found)


def _last_line(rng: random.Random, case: Case, spoil: Spoil, *, witnessed: bool) -> Files | None:
    shape = case.shape
    if shape.filter or shape.end != shape.size or shape.start == shape.end:
        return None
    lines = list(log()[: shape.size])
    spoiled = spoil(rng, lines[-1])
    if spoiled == lines[-1] or b"\n" in spoiled:
        return None
    return packed([*lines[:-1], spoiled], shape, SIGNER, witnessed=witnessed)


def _relinked(rng: random.Random, case: Case, upto: int | None = None) -> list[bytes]:
    """As many entries with one gone, repeated, moved or changed (of the first `upto`), as a whole chain."""
    size = case.shape.size
    entries = [json.loads(line) for line in log()[:size]]
    at = rng.randrange(min(size, upto or size))
    match rng.randrange(4):
        case 0:
            del entries[at]
            entries.append(json.loads(log()[size % len(log())]))
        case 1:
            entries.insert(at, dict(entries[at]))
            entries.pop()
        case 2:
            entries.insert(at, entries.pop())
        case _:
            entries[at]["actor"] = f"per_{rng.randrange(10**6)}"
    return _sealed(entries)


def _sealed(entries: list[dict[str, object]]) -> list[bytes]:
    chain = Chain()
    return [chain.seal({k: v for k, v in entry.items() if k not in ("index", "prev")}) for entry in entries]
