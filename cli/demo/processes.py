"""The demo's processes: `orgate serve` and the demo model. Started on free ports, ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import httpx

from cli.demo.stopping import Stopping
from cli.errors import RefusedError
from gateway.process import environment, python

START_S = 30.0


def free_port() -> int:
    """A port nobody listens on now. Somebody may take it before we do; then the start fails and says so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Processes:
    """Children in sessions of their own, so that Ctrl-C reaches them in our order. A context manager."""

    def __init__(self, folder: Path, stopping: Stopping) -> None:
        self._folder = folder
        self._stopping = stopping
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Run `python <arguments>`; what it prints goes to `<folder>/<name>.log`."""
        # A child that is started is one that is known: an interrupt between the two would leave it behind.
        with (self._folder / f"{name}.log").open("ab") as log, self._stopping.held():
            process = subprocess.Popen(  # noqa: S603  # our own interpreter and modules, no shell
                python(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment(PYTHONUNBUFFERED="1"),
            )
            self._running.append((name, process))

    def wait(self, client: httpx.Client, url: str) -> None:
        """Until `url` answers 200. Raises with the log's end when a process dies or time runs out."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            for name, process in self._running:
                if process.poll() is not None:
                    raise RefusedError(f"{name} ended with status {process.returncode}", self._tail(name))
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == 200:
                    return
            time.sleep(0.03)
        raise RefusedError(f"{url} did not answer in {START_S:.0f} s", self._tail(self._running[-1][0]))

    def stop(self) -> None:
        """SIGTERM in reverse order, then SIGKILL to what is left of each session."""
        while self._running:
            _, process = self._running.pop()
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _tail(self, name: str) -> str:
        lines = (self._folder / f"{name}.log").read_text(errors="replace").splitlines()[-8:]
        return "its log ends:\n    " + "\n    ".join(lines)
