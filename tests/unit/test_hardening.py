"""A process of a server keeps its memory to itself. In processes of their own: it cannot be undone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

DUMPABLE = """
import ctypes, resource
from gateway.hardening import keep_memory_private
libc = ctypes.CDLL(None)
before = libc.prctl(3, 0, 0, 0, 0)
keep_memory_private()
print(before, libc.prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""

CRASH = """
import os, resource
_, most = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
from gateway.hardening import keep_memory_private
keep_memory_private()
os.abort()
"""

OWN_FILES = """
import os
from gateway.hardening import keep_memory_private
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
keep_memory_private()
descriptor = os.memfd_create("pem")
os.write(descriptor, b"a certificate")
with open(f"/proc/self/fd/{descriptor}", "rb") as file:
    print(file.read().decode(), len(os.listdir("/proc/self/fd")) > 2)
"""


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # The checkout need not be readable to the user the program becomes: it has imported by then.
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONFAULTHANDLER": ""}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_not_dumpable_and_leaves_no_core(tmp_path: Path) -> None:
    ended = run(DUMPABLE, tmp_path)
    assert ended.stdout == "1 0 (0, 0)\n", ended.stderr


def test_an_abort_leaves_no_file(tmp_path: Path) -> None:
    ended = run(CRASH, tmp_path)
    assert ended.returncode == -signal.SIGABRT
    assert list(tmp_path.iterdir()) == []


def test_its_own_descriptors_stay_open_to_it(tmp_path: Path) -> None:
    ended = run(OWN_FILES, tmp_path)
    assert ended.stdout == "a certificate True\n", ended.stderr
