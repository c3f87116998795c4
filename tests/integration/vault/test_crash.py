"""Every process of a server, as the kernel sees it, and what is left when one of them aborts."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.gateway import REPOSITORY, RunningGateway
from tests.kit.wait import until


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[RunningGateway]:
    """Started by somebody whose core files are not limited."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        with RunningGateway(tmp_path / "home", workers=2) as running:
            yield running
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


def tree(pid: int) -> list[int]:
    """A process and all below it (proc(5), /proc/<pid>/task/<tid>/children)."""
    found = [pid]
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text().split():
            found += tree(int(child))
    return found


def python(pid: int) -> bool:
    """Whether it runs our code: multiprocessing's resource tracker holds nothing of ours."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"resource_tracker" not in command


def test_no_process_of_a_server_leaves_its_memory_in_a_file(gateway: RunningGateway) -> None:
    assert gateway.process is not None
    supervisor = gateway.process.pid
    pids = [pid for pid in tree(supervisor) if python(pid)]
    assert len(pids) >= 5  # supervisor, control, the public tree and its two workers
    for pid in pids:
        limits = Path(f"/proc/{pid}/limits").read_text()
        line = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert line.split()[4:6] == ["0", "0"], (pid, line)
    before = set(REPOSITORY.iterdir()) | set(gateway.home.iterdir())
    os.kill(pids[-1], signal.SIGABRT)
    until(lambda: not Path(f"/proc/{pids[-1]}").exists() or _dead(pids[-1]), "the worker is gone")
    gateway.process.send_signal(signal.SIGABRT)
    assert gateway.process.wait(60) == -signal.SIGABRT
    gateway.process = None
    after = set(REPOSITORY.iterdir()) | set(gateway.home.iterdir())
    assert [path for path in after - before if path.name.startswith("core")] == []


def _dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
