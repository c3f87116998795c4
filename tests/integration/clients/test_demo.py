"""`orgate demo` as a process: what it says, how it ends, and that nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.kit.orgate import COMMAND, REPOSITORY
from tests.kit.programs import read_until

MARK = "ORGATE_TEST_MARK"

_RUN = """
import sys
from cli.main import main

sys.exit(main())
"""

# Ctrl-C in the middle of starting a thread, which the loop's executor does not know yet.
_IN_A_THREADS_START = """
import asyncio, signal, threading

lookup, start = asyncio.BaseEventLoop.getaddrinfo, threading.Thread.start

async def looked_up(loop, *arguments, **options):
    threading.Thread.start = interrupted
    return await lookup(loop, *arguments, **options)

def interrupted(thread):
    threading.Thread.start, wait = start, thread._started.wait
    thread._started.wait = lambda: (signal.raise_signal(signal.SIGINT), wait())
    start(thread)

asyncio.BaseEventLoop.getaddrinfo = looked_up
"""

# Ctrl-C when a child runs that nobody has written down yet.
_IN_A_CHILDS_START = """
import signal, subprocess

class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        signal.raise_signal(signal.SIGINT)

subprocess.Popen = Popen
"""

# Ctrl-C while the folder is being removed.
_IN_THE_REMOVAL = """
import shutil, signal

rmtree = shutil.rmtree

def remove(*arguments, **options):
    signal.raise_signal(signal.SIGINT)
    rmtree(*arguments, **options)

shutil.rmtree = remove
"""


@dataclass
class Demo:
    """A demo to start once. Every process that comes of it inherits a mark in its environment."""

    temporary: Path
    mark: str
    process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, patch: str = "") -> subprocess.Popen[bytes]:
        """`patch`: Python that its process runs first."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ORGATE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{patch}{_RUN}", "demo", *options] if patch else [*COMMAND, "demo", *options],
            cwd=REPOSITORY,
            env={
                **kept,
                "TMPDIR": str(self.temporary),
                "PYTHONUNBUFFERED": "1",
                "PYTHONFAULTHANDLER": "1",  # it says where it is when it is aborted
                MARK: self.mark,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return self.process

    def alive(self) -> dict[int, str]:
        """The command lines of its processes by number, itself included."""
        wanted = f"{MARK}={self.mark}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdecimal() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it ended meanwhile, or is another user's
        return found

    def kill(self) -> None:
        for process in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def end(self) -> str:
        """Wait for its end; the rest of what it says. Checks that it leaves no process and no file."""
        assert self.process is not None
        try:
            said, _ = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            left = self.alive()
            self.process.send_signal(signal.SIGABRT)
            said, _ = self.process.communicate()
            pytest.fail(f"it does not end; {left}\n{said.decode(errors='replace')}")
        assert self.alive() == {}
        assert list(self.temporary.iterdir()) == []
        return said.decode()


@pytest.fixture
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    made = Demo(tmp_path_factory.mktemp("d"), uuid.uuid4().hex)  # short: the path of a socket has 107 bytes
    yield made
    made.kill()
    if made.process is not None:
        made.process.communicate()


def test_it_ends_green_and_leaves_nothing(demo: Demo) -> None:
    process = demo.start()
    said = demo.end()
    assert process.returncode == 0, said
    assert "everything was as expected" in said
    assert "✘" not in said
    assert "\x1b[" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_while_it_starts_it_leaves_nothing(demo: Demo, number: signal.Signals) -> None:
    process = demo.start()
    assert b"a demo model start" in read_until(process, b"a demo model start", 60)
    process.send_signal(number)
    said = demo.end()
    assert process.returncode == 130, said
    assert "no process is left behind" in said
    assert "Traceback" not in said


def test_ctrl_c_twice_still_leaves_nothing(demo: Demo) -> None:
    process = demo.start()
    assert b"mid-stream" in read_until(process, b"mid-stream", 60)
    assert len(demo.alive()) >= 5
    process.send_signal(signal.SIGINT)
    assert b"stopping" in read_until(process, b"stopping", 60)
    process.send_signal(signal.SIGINT)
    said = demo.end()
    assert process.returncode == 130, said
    assert "Traceback" not in said


def test_stopped_while_a_thread_starts_it_ends(demo: Demo) -> None:
    process = demo.start(patch=_IN_A_THREADS_START)
    said = demo.end()
    assert process.returncode == 130, said
    assert "Traceback" not in said


def test_stopped_while_a_child_starts_it_leaves_nothing(demo: Demo, tmp_path: Path) -> None:
    # In a home that stays: a child whose home is removed ends by itself.
    process = demo.start("--home", str(tmp_path), patch=_IN_A_CHILDS_START)
    said = demo.end()
    assert process.returncode == 130, said
    assert "no process is left behind" in said


def test_stopped_again_when_all_is_over_it_leaves_nothing(demo: Demo) -> None:
    process = demo.start(patch=_IN_THE_REMOVAL)
    assert b"a demo model start" in read_until(process, b"a demo model start", 60)
    process.send_signal(signal.SIGINT)
    said = demo.end()
    assert process.returncode == 130, said
    assert "Traceback" not in said


def test_kept_it_serves_until_ctrl_c(demo: Demo) -> None:
    process = demo.start("--keep")
    said = read_until(process, b"Ctrl-C ends it", 60).decode()
    url, ca = re.search(r"OPENAI_BASE_URL=(\S+)/v1", said), re.search(r"SSL_CERT_FILE=(\S+)", said)
    assert url is not None, said
    assert ca is not None
    assert httpx.get(url[1] + "/readyz", verify=_trust(ca[1])).status_code == 200
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said = demo.end()
    assert process.returncode == 0, said
    assert "no process is left behind" in said


def _trust(file: str) -> ssl.SSLContext:

    return ssl.create_default_context(cafile=file)
