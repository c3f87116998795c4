"""Both verifiers against mutated packs: `python -m tests.audit [small|full]`.

The first is `gateway.audit.verify`, the second docs/verify/verify.mjs, which shares no code with it. Ends with one
line of JSON; exits 1 when a mutation was taken for good or the two disagreed. It kills nothing: that is done in
tests/integration/audit/.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from msgspec import Struct

from gateway.audit.chain import Chain
from gateway.audit.entry import from_receipt
from gateway.audit.pack import PackWriter
from gateway.audit.verify import verify_pack
from tests.audit.mutations import SIZES, Files, Mutated, honest, mutate
from tests.fakes.audit import ACME, SIGNER, receipt
from tests.kit.programs import REPOSITORY

SECOND = REPOSITORY / "docs" / "verify" / "verify-cli.mjs"
KEYTEXT = str(SIGNER.key(ACME))
BATCH = 1_000
MUTATIONS = {"small": 6_000, "full": 100_000}
ENTRIES = {"small": 50_000, "full": 1_000_000}


class Report(Struct):
    """`mutations`: packs that no verifier may take; `detected`: by both. `resigned`: packs that the operator could
    have signed, which are compared only."""

    mutations: int = 0
    detected: int = 0
    verifiers_disagree: int = 0
    resigned: int = 0
    resigned_accepted: int = 0
    examples: list[str] = []


def second_verifier(folders: Sequence[str], cwd: Path, key: str | None = KEYTEXT) -> subprocess.Popen[bytes]:
    """Start the second verifier on packs in `cwd`; it prints a line of JSON for each into `cwd`/second.jsonl."""
    node = shutil.which("node")
    assert node is not None, "node is not installed: the Debian package nodejs has it"
    given = [] if key is None else ["--key", key]
    with (cwd / "second.jsonl").open("wb") as out:
        return subprocess.Popen([node, str(SECOND), *given, *folders], cwd=cwd, stdout=out, stderr=subprocess.PIPE)


def verdicts(process: subprocess.Popen[bytes], cwd: Path) -> list[dict[str, object]]:
    """What it said; raises when it failed for another reason than a bad pack."""
    _, errors = process.communicate()
    found = [json.loads(line) for line in (cwd / "second.jsonl").read_bytes().splitlines()]
    if process.returncode != (0 if all(one["ok"] for one in found) else 1):
        raise RuntimeError(f"the second verifier ended with {process.returncode}: {errors.decode()}")
    return found


class Shelf:
    """A folder in which packs are put for both verifiers. A file that many share is one file with many links."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shared: dict[int, tuple[bytes, Path]] = {}
        (folder / "shared").mkdir()
        for size in SIZES:
            for data in honest(size).values():
                path = folder / "shared" / str(len(self._shared))
                path.write_bytes(data)
                self._shared[id(data)] = (data, path)

    def put(self, name: str, files: Files) -> Path:
        pack = self._folder / name
        pack.mkdir()
        for part, data in files.items():
            if id(data) in self._shared:
                os.link(self._shared[id(data)][1], pack / part)
            else:
                (pack / part).write_bytes(data)
        return pack


def compare(made: Iterable[Mutated], folder: Path, report: Report) -> None:
    """Judge packs by both verifiers, each in one run, and add what came out."""
    packs = list(made)
    shelf = Shelf(folder)
    names = [f"{n:04}" for n in range(len(packs))]
    folders = [shelf.put(name, one.files) for name, one in zip(names, packs, strict=True)]
    process = second_verifier(names, folder)
    first = [verify_pack(path, KEYTEXT) for path in folders]
    second = verdicts(process, folder)
    for one, a, b in zip(packs, first, second, strict=True):
        if a.ok is not b["ok"]:
            report.verifiers_disagree += 1
            report.examples.append(f"{one.name}: first {a.faults or 'good'}, second {b['faults'] or 'good'}")
        if not one.bad:
            report.resigned += 1
            report.resigned_accepted += a.ok and b["ok"] is True
            continue
        report.mutations += 1
        if not a.ok and not b["ok"]:
            report.detected += 1
        else:
            report.examples.append(f"{one.name}: taken by {'the first' if a.ok else 'the second'}")


def mutations(count: int, seed: int = 20260101) -> Iterator[Mutated]:
    """Mutated packs without end to their kinds, until `count` of them must be refused."""
    rng = random.Random(seed)
    while count:
        one = mutate(rng)
        count -= one.bad
        yield one


def time_verify(entries: int, folder: Path) -> float:
    """Seconds that the first verifier takes for a pack of so many entries, on one core."""
    chain = Chain()
    with PackWriter(folder, org=ACME) as pack:
        for n in range(entries):
            pack.write(chain.seal(from_receipt(receipt(n), "boot", n + 1).fields) + b"\n")
        pack.finish(SIGNER.checkpoint(ACME, entries, chain.tree.root()), f"{SIGNER.key(ACME)}\n", 1_763_690_001)
    start = time.perf_counter()
    verdict = verify_pack(folder, KEYTEXT)
    took = time.perf_counter() - start
    if not verdict.ok:
        raise RuntimeError(f"an honest pack does not verify: {verdict.faults}")
    return took


def main() -> int:
    size = os.environ.get("SIZE", "full") if len(sys.argv) < 2 else sys.argv[1]
    if size not in MUTATIONS:
        sys.stderr.write(f"SIZE is small or full, not {size}\n")
        return 2
    report = Report()
    made = mutations(MUTATIONS[size])
    while batch := list(islice(made, BATCH)):
        with tempfile.TemporaryDirectory(prefix="orgate-audit-") as folder:
            compare(batch, Path(folder), report)
        say(f"{report.mutations} of {MUTATIONS[size]} mutations, {report.detected} detected")
    for example in report.examples[:20]:
        say(example)
    say(f"a pack of {ENTRIES[size]} entries")
    with tempfile.TemporaryDirectory(prefix="orgate-audit-") as folder:
        took = time_verify(ENTRIES[size], Path(folder) / "pack")
    figures = {
        "mutations": report.mutations,
        "detected": report.detected,
        "verifiers_disagree": report.verifiers_disagree,
        "resigned": report.resigned,
        "resigned_accepted": report.resigned_accepted,
        "verify_1m_s": round(took, 2),
        "verify_entries": ENTRIES[size],
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if report.detected == report.mutations and not report.verifiers_disagree else 1


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
