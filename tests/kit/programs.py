"""Programs a test starts beside the gateway: each says where it listens, and ends with the test."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def listening(arguments: Sequence[str], log: Path) -> Iterator[str]:
    """Run a program whose first line ends with its URL; gives that URL. What it says on stderr goes to `log`."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=REPOSITORY
        )
    try:
        assert process.stdout is not None
        line = read_until(process, b"\n", 60).decode().strip()
        assert "listening on " in line, f"{arguments}: {line!r}\n{log.read_text()}"
        yield line.rpartition(" ")[2]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def read_until(process: subprocess.Popen[bytes], mark: bytes, patience_s: float) -> bytes:
    """What the program prints up to and with `mark`; less when it ends or the time is up."""
    assert process.stdout is not None
    end, seen = time.monotonic() + patience_s, b""
    while mark not in seen and (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select([process.stdout], [], [], left)
        piece = os.read(process.stdout.fileno(), 65536) if ready else b""
        if not piece:
            break
        seen += piece
    return seen
