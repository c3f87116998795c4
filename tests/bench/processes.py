"""Cores and CPU time of process trees, from /proc (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Cores(NamedTuple):
    """`target`: the gateway's or HAProxy's, whole tree. `rig`: the upstream's and the load's."""

    target: int
    rig: int


class Usage(NamedTuple):
    parent: int
    ticks: int


def choose_cores() -> Cores:
    """The first two cores this process may use. Raises `RuntimeError` when there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise RuntimeError("the benchmark needs two cores: one for the gateway, one for upstream and load")
    return Cores(target=allowed[0], rig=allowed[1])


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Processes started inside run on `core` alone, as under `taskset -c`: a child inherits its parent's cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tree_cpu_s(roots: Iterable[int]) -> float:
    """CPU seconds (user and system) of the trees under `roots`, including children that ended and were reaped."""
    table = dict(_read_all())
    children: dict[int, list[int]] = {}
    for pid, usage in table.items():
        children.setdefault(usage.parent, []).append(pid)
    ticks = 0
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid in table:
            ticks += table[pid].ticks
            waiting += children.get(pid, [])
    return ticks / _TICKS_PER_SECOND


def tree_cpu_ns(roots: Iterable[int]) -> int:
    """CPU nanoseconds of every thread of the trees under `roots` (proc(5), schedstat): finer than `tree_cpu_s`,
    but without those that have ended."""
    table = dict(_read_all())
    found = 0
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        waiting += [child for child, usage in table.items() if usage.parent == pid]
        for entry in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(FileNotFoundError, ProcessLookupError):
                found += int(entry.read_text().split()[0])
    return found


def threads_cpu_s(roots: Iterable[int]) -> dict[tuple[int, int], float]:
    """CPU seconds by (process, thread) of the trees under `roots`. A process' first thread has its own number."""
    table = dict(_read_all())
    found: dict[tuple[int, int], float] = {}
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        waiting += [child for child, usage in table.items() if usage.parent == pid]
        for entry in Path(f"/proc/{pid}/task").glob("*/stat"):
            with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                fields = entry.read_text().rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                found[pid, int(entry.parent.name)] = ticks / _TICKS_PER_SECOND
    return found


def core_busy_s(core: int) -> float:
    """Seconds `core` was not idle since the machine started, whoever used it (proc_stat(5))."""
    prefix = f"cpu{core} "
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(prefix))
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_SECOND


def parse_stat(text: str) -> Usage:
    """One line of /proc/<pid>/stat (proc(5)). The name, in parentheses, may hold anything, also parentheses."""
    fields = text.rpartition(")")[2].split()
    # Counted from field 3, the state: 4 ppid, 14 utime, 15 stime, 16 cutime, 17 cstime.
    return Usage(parent=int(fields[1]), ticks=sum(int(field) for field in fields[11:15]))


def _read_all() -> Iterator[tuple[int, Usage]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), parse_stat((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended since the folder was listed
