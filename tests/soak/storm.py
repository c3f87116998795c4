"""Builds and runs the compiled storm, and reads what it and the upstream wrote down."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.processes import Cores, pinned
from tests.bench.rig import FLAGS, LIBRARIES, RigError
from tests.bench.rig import SOURCES as BENCH

SOURCES = Path(__file__).parent / "rig"
PARTS = (SOURCES / "storm.c", SOURCES / "plan.c", BENCH / "wire.c", BENCH / "answers.c")

WHOLE, CANCEL, FAIL = "whole", "cancel", "fail"


HTTP1_IDS = 50_000_000
"""Where the ids of HTTP/1.1 requests begin: those of the storm, and of the innocents beside it, end before."""


class Principal(NamedTuple):
    """Somebody who asks: an access token and the model it asks for."""

    token: str
    model: str


class Done(NamedTuple):
    """One request as its client saw it: WHOLE, CANCEL or FAIL, and the status (0: none had come)."""

    outcome: str
    status: int


@dataclass(frozen=True)
class Size:
    """`requests` of the storm; the HTTP/1.1 clients' come on top. Paces in turns of 5 ms."""

    requests: int
    http1: int
    innocents: int = 40
    innocent_events: int = 600
    innocent_pace: int = 10
    connections: int = 2
    """For each principal."""
    streams: int = 6
    share: float = 0.45


FULL = Size(requests=98_000, http1=2_000)
SMALL = Size(requests=4_900, http1=100, innocent_events=100)


@dataclass
class Upstream:
    """The upstream's journal: for each request the number of times it was opened, reset, lost, ended."""

    opened: Counter[int] = field(default_factory=Counter)
    ended: Counter[int] = field(default_factory=Counter)
    reset: Counter[int] = field(default_factory=Counter)
    lost: Counter[int] = field(default_factory=Counter)
    connections: int = 0

    @property
    def dangling(self) -> list[int]:
        over = self.ended + self.reset + self.lost
        return sorted((self.opened - over).keys())


def build(folder: Path) -> Path:
    """Compile the storm. Raises `RigError` with the compiler's words."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "storm"
    done = subprocess.run(
        ["cc", *FLAGS, *map(str, PARTS), "-o", str(program), *LIBRARIES],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RigError(f"the storm does not compile:\n{done.stderr}")
    return program


async def run(
    program: Path,
    folder: Path,
    cores: Cores,
    size: Size,
    seed: int,
    *,
    port: int,
    ca: Path,
    principals: Iterable[Principal],
    progress: Callable[[int], None],
) -> tuple[dict[str, Any], dict[int, Done]]:
    """Let it rage; returns its own totals and what became of each request. `progress`: how many are over."""
    people = folder / "principals"
    people.touch(mode=0o600)
    people.write_text("".join(f"{each.token} {each.model}\n" for each in principals))
    journal = folder / "storm.journal"
    options = {
        "port": port,
        "ca": ca,
        "principals": people,
        "journal": journal,
        "requests": size.requests,
        "share": size.share,
        "seed": seed,
        "connections": size.connections,
        "streams": size.streams,
        "innocents": size.innocents,
        "innocent-events": size.innocent_events,
        "innocent-pace": size.innocent_pace,
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with pinned(cores.rig):
        process = await asyncio.create_subprocess_exec(
            str(program), *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    assert process.stdout
    assert process.stderr
    complaint = asyncio.ensure_future(process.stderr.read())
    totals: dict[str, Any] = {}
    try:
        async for line in process.stdout:
            if line.startswith(b"progress "):
                progress(int(line.split()[1]))
            else:
                totals = json.loads(line)
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    words = (await complaint).decode().strip()
    if code != 0 or not totals:
        raise RigError(f"the storm ended with {code}: {words}")
    totals["complaint"] = words
    return totals, read_storm(journal.read_text())


def read_storm(journal: str) -> dict[int, Done]:
    done = {}
    for line in journal.splitlines():
        outcome, number, status = line.split()
        done[int(number)] = Done(outcome, int(status))
    return done


def read_upstream(journal: str) -> Upstream:
    found = Upstream()
    books = {"open": found.opened, "end": found.ended, "reset": found.reset, "lost": found.lost}
    for line in journal.splitlines():
        what, number, _ = line.split()
        if what == "accept":
            found.connections += 1
        else:
            books[what][int(number)] += 1
    return found
