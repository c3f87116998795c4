"""Whatever is done to a pack by accident or by hand, the verifier says so: random mutations, all detected."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from gateway.audit.verify import verify_pack
from tests.fakes.audit import ACME, SIGNER, write_pack

MUTATIONS = 3_000
FILES = ("entries.jsonl", "checkpoint", "key", "manifest.json")

Mutate = Callable[[random.Random, bytes], bytes]


def flip_bit(rng: random.Random, data: bytes) -> bytes:
    spoiled = bytearray(data)
    spoiled[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(spoiled)


def insert_byte(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes([rng.randrange(256)]) + data[at:]


def delete_bytes(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 40) :]


def swap_bytes(rng: random.Random, data: bytes) -> bytes:
    spoiled = bytearray(data)
    a, b = rng.randrange(len(data)), rng.randrange(len(data))
    spoiled[a], spoiled[b] = spoiled[b], spoiled[a]
    return bytes(spoiled)


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def delete_line(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def swap_lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


def duplicate_line(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    lines.insert(rng.randrange(len(lines) + 1), lines[rng.randrange(len(lines))])
    return b"".join(lines)


def change_digit(rng: random.Random, data: bytes) -> bytes:
    places = [i for i, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    spoiled = bytearray(data)
    spoiled[rng.choice(places)] = 0x30 + rng.randrange(10)
    return bytes(spoiled)


MUTATORS: list[Mutate] = [
    flip_bit,
    insert_byte,
    delete_bytes,
    swap_bytes,
    truncate,
    delete_line,
    swap_lines,
    duplicate_line,
    change_digit,
]


def test_every_mutation_is_detected(tmp_path: Path) -> None:
    honest, spoiled = tmp_path / "honest", tmp_path / "spoiled"
    write_pack(honest, 20)
    key = str(SIGNER.key(ACME))
    assert verify_pack(honest, key).ok
    shutil.copytree(honest, spoiled)
    rng = random.Random(20260101)
    done = missed = 0
    while done < MUTATIONS:
        name, mutate = rng.choice((FILES[0], *FILES)), rng.choice(MUTATORS)
        data = (honest / name).read_bytes()
        changed = mutate(rng, data)
        if changed == data:
            continue  # swapped with itself: nothing was done
        (spoiled / name).write_bytes(changed)
        done += 1
        verdict = verify_pack(spoiled, key)
        if verdict.ok:
            missed += 1
        assert verdict.ok is not bool(verdict.faults)
        (spoiled / name).write_bytes(data)
    assert missed == 0
    assert verify_pack(spoiled, key).ok
