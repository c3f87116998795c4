"""`make races`: many processes refresh one token at once, on SQLite and on PostgreSQL. Exits 1 on a fault.

Each race is one token that 50 refresh at once, from `NODES` processes with connections of their own. One of them
may rotate it; everybody else is a retry within the grace and gets the same successor. Then, the grace being over,
one process brings the first token once more: that is a copy, the family dies, and another process, which had no
part in that, refuses the successor.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from tenants.sql.store import sqlite_url
from tests.kit.postgres import postgres_server
from tests.kit.postgres_store import control_database
from tests.races.contender import Answer, Order

NODES = 2
AT_ONCE = 50
BATCH = 16
"""Races under way at the same time."""
KILLED_WITHIN_S = 1.0
FULL, SMALL = 5_000, 100
"""On each store."""
STORES = ("sqlite", "postgresql")


class Outcome(Struct):
    """Of all races on one store. `extra`: successors more than the one there may be; `faults`: what, how often."""

    store: str
    races: int = 0
    refreshes: int = 0
    extra: int = 0
    kill_p50_s: float = 0
    kill_max_s: float = 0
    seconds: float = 0
    faults: dict[str, int] = {}

    @property
    def sound(self) -> bool:
        return self.races > 0 and not self.extra and not self.faults


class Node:
    """A process that contends."""

    def __init__(self, url: str, build: str) -> None:
        command = [sys.executable, "-m", "tests.races.contender", url, build]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, order: Order) -> None:
        assert self._process.stdin
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()

    def answers(self) -> list[Answer]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"a contender ended with {self._process.wait(5)}"
        return msgspec.json.decode(line, type=list[Answer])

    def ask(self, order: Order) -> list[Answer]:
        self.tell(order)
        return self.answers()

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)


@contextmanager
def opened(store: str) -> Iterator[str]:
    """The URL of an empty store."""
    if store == "sqlite":
        with tempfile.TemporaryDirectory(prefix="orgate-races-") as folder:
            yield sqlite_url(Path(folder) / "control.db")
    else:
        with postgres_server() as server:
            yield control_database(server).url


def race(
    store: str, url: str, races: int, *, at_once: int = AT_ONCE, nodes: int = NODES, build: str = "sound"
) -> Outcome:
    """Run them all, and judge."""
    began = time.monotonic()
    found, faults, kills = Outcome(store), Counter[str](), list[float]()
    with ExitStack() as stack:
        contenders = []
        for _ in range(nodes):
            contenders.append(Node(url, build))
            stack.callback(contenders[-1].close)
        for start in range(0, races, BATCH):
            numbers = tuple(range(start, min(start + BATCH, races)))
            kills += _batch(contenders, numbers, at_once, found, faults)
            _show(store, found.races, races)
    found.faults = dict(faults)
    found.kill_p50_s, found.kill_max_s = (statistics.median(kills), max(kills)) if kills else (0.0, 0.0)
    found.seconds = time.monotonic() - began
    return found


def _batch(
    nodes: Sequence[Node], numbers: tuple[int, ...], at_once: int, found: Outcome, faults: Counter[str]
) -> list[float]:
    """Some races, all at the same time; the seconds from a reuse to the other node's refusal, of each."""
    turn = numbers[0] // BATCH % len(nodes)
    first, other = nodes[turn], nodes[turn - 1]
    for answer in first.ask(Order("begin", numbers)):
        faults.update(answer.failed)
    for node in nodes:
        node.tell(Order("race", numbers, at_once // len(nodes)))
    seen = [node.answers() for node in nodes]
    successors = []
    for answers in zip(*seen, strict=True):
        got, won = {one for answer in answers for one in answer.got}, sum(answer.won for answer in answers)
        found.races += 1
        found.refreshes += at_once // len(nodes) * len(nodes)
        found.extra += max(len(got) - 1, 0) + max(won - 1, 0)
        faults["no successor"] += not (got and won)
        faults["refused within the grace"] += sum(answer.refused for answer in answers)
        for answer in answers:
            faults.update(answer.failed)
        successors.append(next(iter(got), ""))
    reused = first.ask(Order("reuse", numbers))
    refused = other.ask(Order("refuse", numbers, tokens=tuple(successors)))
    kills = []
    for copied, after in zip(reused, refused, strict=True):
        faults["reuse was not noticed"] += not copied.refused
        faults["a family outlived a reuse"] += not after.refused
        kills.append(after.at - copied.at)
        faults[f"it took more than {KILLED_WITHIN_S:g} s to die"] += kills[-1] > KILLED_WITHIN_S
        faults.update([*copied.failed, *after.failed])
    for name in [name for name, count in faults.items() if not count]:
        del faults[name]
    return kills


def _show(store: str, done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{store}: {done} of {of} races", end="" if done < of else "\n", file=sys.stderr, flush=True)


def report(outcomes: Sequence[Outcome]) -> None:
    """A table, and one line of JSON."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{AT_ONCE} refreshes of one token at once, from {NODES} processes")
    for head in ("store", "races", "refreshes", "extra", "dead in", "at most", "time", "faults"):
        table.add_column(head, justify="left" if head in ("store", "faults") else "right")
    for one in outcomes:
        faults = ", ".join(f"{count} × {what}" for what, count in one.faults.items()) or "none"
        kills = (f"{one.kill_p50_s * 1000:.0f} ms", f"{one.kill_max_s * 1000:.0f} ms")
        numbers = (f"{one.races:,}", f"{one.refreshes:,}", f"{one.extra:,}")
        table.add_row(one.store, *numbers, *kills, f"{one.seconds:.0f} s", faults)
    Console().print(table)
    line = {
        "races": sum(one.races for one in outcomes),
        "extra_successors": sum(one.extra for one in outcomes),
        "refreshes": sum(one.refreshes for one in outcomes),
        "kill_max_s": round(max(one.kill_max_s for one in outcomes), 3),
        "faults": sum(sum(one.faults.values()) for one in outcomes),
        "seconds": round(sum(one.seconds for one in outcomes)),
        **{f"races_{one.store}": one.races for one in outcomes},
    }
    print(msgspec.json.encode(line).decode())


def main() -> int:
    races = SMALL if os.environ.get("SIZE") == "small" else FULL
    outcomes = []
    for store in STORES:
        with opened(store) as url:
            outcomes.append(race(store, url, races))
    report(outcomes)
    return 0 if all(one.sound for one in outcomes) else 1
