"""Mutated packs: made from honest ones, by somebody who can write a manifest, link a chain, or even sign."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.canonical import canonical
from gateway.audit.chain import Chain
from gateway.audit.entry import from_change, from_receipt
from gateway.audit.merkle import Tree
from gateway.audit.pack import CHECKPOINT, ENTRIES, FILES, KEY, MANIFEST, digest
from gateway.audit.signer import Signer
from tests.audit.spoil import ACCIDENTS, ANY, JSON, NOTES, SPELLINGS, Spoil
from tests.fakes.audit import ACME, SIGNER, change, receipt

Files = Mapping[str, bytes]
"""A pack: its files by name."""

STRANGER = Signer("gateway.example", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
"""Has the operator's name and another key."""
TEXTS = ("code", 'quo"ted \\ back/slash', "ünïcode 🦉", "bell\x07 tab\t line\n", "\u2028\x7f\x85", "")


MADE_AT = 1_763_690_001


class Mutated(NamedTuple):
    """`bad`: no verifier may take it. Otherwise the operator signed it, or it changes what nobody signs."""

    name: str
    files: Files
    bad: bool


@cache
def honest(size: int) -> Files:
    """A pack of `size` entries: requests and changes, with texts that have several spellings."""
    chain, lines = Chain(), []
    for n in range(size):
        text = TEXTS[n % len(TEXTS)]
        draft = from_receipt(receipt(n, model=text, trace_id="4bf92f3577b34da6a3ce929d0e0e4736"), "boot", n + 1)
        if n % 3 == 2:
            draft = from_change(change(n, "limit.write", note=text, times=n, on=True))
        lines.append(chain.seal(draft.fields))
    return packed(lines, SIGNER)


def packed(lines: list[bytes], signer: Signer, end: bytes = b"\n") -> Files:
    """All of a pack around these lines, signed, whatever they hold."""
    tree = Tree()
    for line in lines:
        tree.append(line)
    files = {
        ENTRIES: b"".join(line + end for line in lines),
        CHECKPOINT: signer.checkpoint(ACME, len(lines), tree.root()).encode(),
        KEY: f"{signer.key(ACME)}\n".encode(),
    }
    return mended(files)


def mended(files: Files, **changes: object) -> Files:
    """With a manifest that fits the other files: what somebody does who hides a change."""
    count = files[ENTRIES].count(b"\n")
    members: dict[str, object] = {
        "format": 1,
        "org": ACME,
        "start": 0,
        "made_at": MADE_AT,
        "count": count,
        "end": count,
    }
    hashes = {name: sha256(files[name]).hexdigest() for name in FILES}
    manifest = {**members, "sha256": hashes, **changes}
    return {**files, MANIFEST: canonical({**manifest, "digest": digest(manifest)}) + b"\n"}


def mutate(rng: random.Random) -> Mutated:
    """One mutated pack; at least a byte of it differs from the honest one."""
    while True:
        files = honest(rng.choice(SIZES))
        made = rng.choice(KINDS)(rng, files)
        if made.files != files:
            return made


SIZES = (1, 2, 3, 5, 8, 12)


def raw(rng: random.Random, files: Files) -> Mutated:
    """The bytes of one file, and nothing else."""
    name = rng.choice((ENTRIES, ENTRIES, *FILES, MANIFEST))
    spoil = _any_for(rng, name)
    return Mutated(f"raw {name} {spoil.__name__}", {**files, name: spoil(rng, files[name])}, True)


def hidden(rng: random.Random, files: Files) -> Mutated:
    """The bytes of one file, and a manifest that fits them."""
    name = rng.choice((ENTRIES, ENTRIES, CHECKPOINT, KEY))
    spoil = _any_for(rng, name)
    spoiled = spoil(rng, files[name])
    made = files if spoiled == files[name] else mended({**files, name: spoiled})
    return Mutated(f"hidden {name} {spoil.__name__}", made, True)


def linked(rng: random.Random, files: Files) -> Mutated:
    """Other entries, their chain and manifest intact; only what was signed tells."""
    lines = _relinked(rng, files)
    made = {**files, ENTRIES: b"".join(line + b"\n" for line in lines)}
    return Mutated("linked", mended(made) if made != files else files, True)


def forged(rng: random.Random, files: Files) -> Mutated:
    """All of it made anew and signed, by somebody else."""
    return Mutated("forged", packed(_relinked(rng, files), STRANGER), True)


def half_forged(rng: random.Random, files: Files) -> Mutated:
    """A checkpoint of somebody else under the operator's key."""
    made = packed(_relinked(rng, files), STRANGER)
    return Mutated("half forged", mended({**made, KEY: files[KEY]}), True)


def told_otherwise(rng: random.Random, files: Files) -> Mutated:
    """A manifest with another value in it, its digest right."""
    name = rng.choice(("count", "end", "format", "org", "start", "more", "sha256", "made_at"))
    value: object = rng.choice((0, 1, -1, 7, True, "", "1", "acme", "globex", [], {}, {"key": "x"}, 2**53 - 1))
    bad = not (name == "made_at" and type(value) is int)
    return Mutated(f"manifest {name}", mended(files, **{name: value}), bad)


def spelt(rng: random.Random, files: Files) -> Mutated:
    """The last line in another spelling, and all around it made and signed anew by the operator: only the rules
    of canonical JSON tell."""
    spoil = rng.choice(SPELLINGS)
    made = _last_line(rng, files, spoil)
    return Mutated(f"spelt {spoil.__name__}", made, True)


def signed_anew(rng: random.Random, files: Files) -> Mutated:
    """Whatever became of the last line, the operator signed it. It may be good, and both have to say the same."""
    spoil = rng.choice((*ACCIDENTS, *JSON))
    return Mutated(f"signed anew {spoil.__name__}", _last_line(rng, files, spoil), False)


def shortened(rng: random.Random, files: Files) -> Mutated:
    """The operator signs a log again that is shorter, or another: nothing in the pack can tell."""
    return Mutated("shortened", packed(_relinked(rng, files), SIGNER), False)


KINDS = (
    raw,
    raw,
    hidden,
    hidden,
    linked,
    forged,
    half_forged,
    told_otherwise,
    spelt,
    spelt,
    signed_anew,
    shortened,
)


def _any_for(rng: random.Random, name: str) -> Spoil:
    if name in (ENTRIES, MANIFEST):
        return rng.choice((*ANY, *JSON))
    return rng.choice((*ANY, *NOTES, *NOTES))


def _last_line(rng: random.Random, files: Files, spoil: Spoil) -> Files:
    lines = files[ENTRIES].splitlines()
    spoiled = spoil(rng, lines[-1])
    if spoiled == lines[-1] or b"\n" in spoiled:
        return files
    return packed([*lines[:-1], spoiled], SIGNER)


def _relinked(rng: random.Random, files: Files) -> list[bytes]:
    """The entries with one gone, repeated, moved or changed, as a whole chain."""
    entries = [json.loads(line) for line in files[ENTRIES].splitlines()]
    at = rng.randrange(len(entries))
    match rng.randrange(4):
        case 0:
            del entries[at]
        case 1:
            entries.insert(rng.randrange(len(entries) + 1), dict(entries[at]))
        case 2:
            entries.insert(rng.randrange(len(entries)), entries.pop(at))
        case _:
            entries[at]["actor"] = f"per_{rng.randrange(10**6)}"
    chain = Chain()
    return [chain.seal({k: v for k, v in entry.items() if k not in ("index", "prev")}) for entry in entries]
