"""Both verifiers against mutated packs: `python -m tests.audit [small|full]`.

The first is `gateway.audit.verify`, the second docs/verify/verify.mjs, which shares no code with it. Then
`tests.audit.kills`. Ends with one line of JSON; exits 1 when a mutation was taken for good, the two disagreed, or
anything was lost.
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
from typing import NamedTuple

from msgspec import Struct

from gateway.audit.chain import Chain
from gateway.audit.entry import from_receipt
from gateway.audit.pack import PackWriter, whole_log
from gateway.audit.policy import parse_policy
from gateway.audit.verify import Known, Verdict, verify_pack
from tests.audit import kills
from tests.audit.mutations import MODES, Mode, Mutated, mutate
from tests.audit.packs import POLICY, Files, kept
from tests.fakes.audit import ACME, SIGNER, receipt
from tests.kit.programs import REPOSITORY

SECOND = REPOSITORY / "docs" / "verify" / "verify-cli.mjs"
KEYTEXT = str(SIGNER.key(ACME))
BATCH = 1_000
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where mutated packs lie: hundreds of thousands of small files, for seconds."""
MUTATIONS = {"small": 2_500, "full": 100_000}
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


def second_verifier(folders: Sequence[str], cwd: Path, *given: str) -> subprocess.Popen[bytes]:
    """Start the second verifier on packs in `cwd`; it prints a line of JSON for each into `cwd`/second.jsonl."""
    node = shutil.which("node")
    assert node is not None, "node is not installed: the Debian package nodejs has it"
    with (cwd / "second.jsonl").open("wb") as out:
        return subprocess.Popen([node, str(SECOND), *given, *folders], cwd=cwd, stdout=out, stderr=subprocess.PIPE)


def verdicts(process: subprocess.Popen[bytes], cwd: Path) -> list[dict[str, object]]:
    """What it said; raises when it failed for another reason than a bad pack."""
    _, errors = process.communicate()
    found = [json.loads(line) for line in (cwd / "second.jsonl").read_bytes().splitlines()]
    if process.returncode != (0 if all(one["ok"] for one in found) else 1):
        raise RuntimeError(f"the second verifier ended with {process.returncode}: {errors.decode()}")
    return found


def known(mode: Mode) -> Known:
    """What the auditor has, as the first verifier takes it."""
    if mode == "witnessed":
        return Known(KEYTEXT, parse_policy(POLICY))
    return Known(KEYTEXT, checkpoints={"kept": kept().decode()} if mode == "kept" else {})


def arguments(mode: Mode, folder: Path) -> tuple[str, ...]:
    """The same for the second: files in `folder`."""
    (folder / "policy").write_bytes(POLICY)
    (folder / "kept").write_bytes(kept())
    more = {"alone": (), "witnessed": ("--witnesses", "policy"), "kept": ("--since-checkpoint", "kept")}
    return "--key", KEYTEXT, *more[mode]


class Shelf:
    """A folder in which packs are put for both verifiers. A file that many share is one file with many links."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shared: dict[int, tuple[bytes, Path]] = {}
        (folder / "shared").mkdir()

    def put(self, name: str, files: Files) -> Path:
        pack = self._folder / name
        pack.mkdir()
        for part, data in files.items():
            path = pack / part
            if "/" in part:
                path.parent.mkdir(parents=True, exist_ok=True)
            known = self._shared.get(id(data))
            if known is None:
                path.write_bytes(data)
                self._shared[id(data)] = (data, path)
            else:
                os.link(known[1], path)
        return pack


def compare(made: Iterable[Mutated], folder: Path, report: Report) -> None:
    """Judge packs by both verifiers, each in one run for each thing that an auditor may have, and add what came
    out."""
    packs = list(made)
    shelf = Shelf(folder)
    for mode in MODES:
        named = {f"{n:04}": one for n, one in enumerate(packs) if one.mode == mode}
        if not named:
            continue
        folders = [shelf.put(name, one.files) for name, one in named.items()]
        process = second_verifier(list(named), folder, *arguments(mode, folder))
        first = [verify_pack(path, known(mode)) for path in folders]
        second = verdicts(process, folder)
        for one, a, b in zip(named.values(), first, second, strict=True):
            _add(report, one, a, b)


def _add(report: Report, one: Mutated, a: Verdict, b: dict[str, object]) -> None:
    called = f"{one.name} ({one.mode})"
    if a.ok is not b["ok"]:
        report.verifiers_disagree += 1
        report.examples.append(f"{called}: first {a.faults or 'good'}, second {b['faults'] or 'good'}")
    if not one.bad:
        report.resigned += 1
        report.resigned_accepted += a.ok and b["ok"] is True
        return
    report.mutations += 1
    if not a.ok and not b["ok"]:
        report.detected += 1
    else:
        report.examples.append(f"{called}: taken by {'the first' if a.ok else 'the second'}")


def mutations(count: int, seed: int = 20260101) -> Iterator[Mutated]:
    """Mutated packs without end to their kinds, until `count` of them must be refused."""
    rng = random.Random(seed)
    while count:
        one = mutate(rng)
        count -= one.bad
        yield one


class Times(NamedTuple):
    """Seconds for one pack, on one core. `cpu`: of the first, what it had of a core that others may use too."""

    first: float
    cpu: float
    second: float


def time_verify(entries: int, folder: Path) -> Times:
    """What the verifiers take for a pack of so many entries."""
    chain = Chain()
    lines = folder.parent / "lines"
    with lines.open("wb") as file:
        for n in range(entries):
            file.write(chain.seal(from_receipt(receipt(n), "boot", n + 1).fields) + b"\n")
    checkpoint = SIGNER.checkpoint(ACME, entries, chain.tree.root())
    with PackWriter(folder, whole_log(ACME, checkpoint, KEYTEXT)) as pack, lines.open("rb") as file:
        while piece := file.read(1 << 20):
            pack.write(piece)
        pack.finish(1_763_690_001)
    start, cpu = time.perf_counter(), time.process_time()
    verdict = verify_pack(folder, KEYTEXT)
    first, cpu = time.perf_counter() - start, time.process_time() - cpu
    start = time.perf_counter()
    (second,) = verdicts(second_verifier([folder.name], folder.parent, "--key", KEYTEXT), folder.parent)
    if not (verdict.ok and second["ok"]):
        raise RuntimeError(f"an honest pack does not verify: {verdict.faults}, {second['faults']}")
    return Times(first, cpu, time.perf_counter() - start)


def main() -> int:
    size = os.environ.get("SIZE", "full") if len(sys.argv) < 2 else sys.argv[1]
    if size not in MUTATIONS:
        sys.stderr.write(f"SIZE is small or full, not {size}\n")
        return 2
    report = Report()
    made = mutations(MUTATIONS[size])
    while batch := list(islice(made, BATCH)):
        with tempfile.TemporaryDirectory(prefix="orgate-audit-", dir=MEMORY) as folder:
            compare(batch, Path(folder), report)
        say(f"{report.mutations} of {MUTATIONS[size]} mutations, {report.detected} detected")
    for example in report.examples[:20]:
        say(example)
    killed, unharmed = kills.in_own_process(size)
    say(f"a pack of {ENTRIES[size]} entries")
    with tempfile.TemporaryDirectory(prefix="orgate-audit-") as folder:
        times = time_verify(ENTRIES[size], Path(folder) / "pack")
    figures = {
        "mutations": report.mutations,
        "detected": report.detected,
        "verifiers_disagree": report.verifiers_disagree,
        "resigned": report.resigned,
        "resigned_accepted": report.resigned_accepted,
        "verify_1m_s": round(times.first, 2),
        "verify_1m_cpu_s": round(times.cpu, 2),
        "second_1m_s": round(times.second, 2),
        "verify_entries": ENTRIES[size],
        **killed,
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    good = unharmed and report.detected == report.mutations and not report.verifiers_disagree
    return 0 if good else 1


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
