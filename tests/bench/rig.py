"""Builds and runs the compiled rig: the upstream that costs next to nothing, and the load."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from tests.bench.processes import Cores, pinned
from tests.bench.targets import Target
from tests.kit.certs import Pki
from tests.kit.ports import free_port

SOURCES = Path(__file__).parent / "rig"
PROGRAMS = {
    "upstream": ("upstream.c", "answers.c", "http1.c", "wire.c"),
    "load": ("load.c", "samples.c", "wire.c"),
}
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
LIBRARIES = ("-lnghttp2", "-lssl", "-lcrypto")
_PROMPT = "def merge_sorted(left: list[int], right: list[int]) -> list[int]:\n" * 15

Figures = dict[str, float]


class RigError(Exception):
    """The rig cannot be built or run; the message says what to install or what went wrong."""


class Shape(NamedTuple):
    """What is asked and how: `connections` × `streams` requests at a time. `events`: of a whole answer."""

    name: str
    stream: bool
    user: str
    connections: int
    streams: int

    @property
    def events(self) -> int:
        return 20 if self.stream else 0

    def body(self) -> bytes:
        messages = [
            {"role": "system", "content": "Complete the code."},
            {"role": "user", "content": _PROMPT},
        ]
        request: dict[str, Any] = {"model": "bench", "messages": messages, "max_tokens": 64, "user": self.user}
        if self.stream:
            request["stream"] = True
        return json.dumps(request, separators=(",", ":")).encode()


JSON = Shape("json", stream=False, user="json", connections=4, streams=8)
BURST = Shape("sse_burst", stream=True, user="burst", connections=4, streams=8)
PACED = Shape("sse_paced", stream=True, user="paced", connections=4, streams=25)
SEQUENTIAL = Shape("sequential", stream=False, user="json", connections=1, streams=1)
SEQUENTIAL_STREAM = Shape("sequential_stream", stream=True, user="burst", connections=1, streams=1)


class Cancelled(NamedTuple):
    """Client's reset to upstream's reset, in ms, ascending. `reached`: cancelled requests the upstream had.

    `lost`: those whose upstream connection was closed instead of the stream being reset; not among the latencies.
    """

    sent: int
    reached: int
    lost: int
    latencies_ms: tuple[float, ...]

    @property
    def dangling(self) -> int:
        """Those the upstream was never told of."""
        return self.reached - self.lost - len(self.latencies_ms)


@dataclass(frozen=True)
class Rig:
    """The built programs, a folder for their files, and the running upstream's port and journal."""

    programs: Path
    folder: Path
    cores: Cores
    upstream_port: int
    upstream_journal: Path

    def run(self, target: Target, shape: Shape, *, seconds: float, count: int = 0, rate: float = 0) -> Figures:
        """Sends `shape` to `target` and returns the line of figures `load.c` describes."""
        return figures_of(self.start(target, shape, seconds=seconds, count=count, rate=rate))

    def start(
        self,
        target: Target,
        shape: Shape,
        *,
        seconds: float,
        count: int = 0,
        rate: float = 0,
        extra: tuple[str, ...] = (),
    ) -> subprocess.Popen[str]:
        body = self.folder / f"{target.name}-{shape.name}.body"
        body.write_bytes(shape.body())
        headers = self.folder / f"{target.name}-{shape.name}.headers"  # two loads may start at once
        token = f"authorization: Bearer {target.token}\n" if target.token else ""
        headers.write_text(f"content-type: application/json\n{token}")
        options = {
            "port": target.port,
            "ca": target.ca,
            "headers": headers,
            "body": body,
            "connections": shape.connections,
            "streams": shape.streams,
            "events": shape.events,
            "seconds": seconds,
            "rate": rate,
        }
        if count:
            options["count"] = count
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        with pinned(self.cores.rig):
            return subprocess.Popen(
                [str(self.programs / "load"), *arguments, *extra],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def cancel(
        self, target: Target, *, after_events: int, seconds: float, rate: float, background_rate: float
    ) -> tuple[Cancelled, list[Figures]]:
        """Cancels `rate` streams a second beside JSON requests at `background_rate` (0: as many as it takes).

        `after_events` 0: before the response's headers, 20 ms after the request was sent.
        """
        shape = Shape(f"hold-{after_events}", True, f"hold-{after_events}-########", connections=2, streams=50)
        journal = self.folder / "cancel.journal"
        seen_before = self.upstream_journal.stat().st_size
        background = self.start(target, JSON, seconds=seconds + 0.5, rate=background_rate)
        extra = ("--cancel-after", str(after_events), "--journal", str(journal))
        cancels = self.start(target, shape, seconds=seconds, rate=rate, extra=extra)
        figures = [figures_of(cancels), figures_of(background)]
        with self.upstream_journal.open() as file:
            file.seek(seen_before)
            return join_journals(journal.read_text(), file.read()), figures


def join_journals(client: str, upstream: str) -> Cancelled:
    """Matches the client's `cancel <id> <ns>` with the upstream's `open`, `reset` and `lost <id> <ns>`."""
    sent = _read_journal(client, "cancel")
    opened = _read_journal(upstream, "open")
    reset = _read_journal(upstream, "reset")
    reached = sent.keys() & opened.keys()
    latencies = sorted((reset[number] - sent[number]) / 1e6 for number in reached & reset.keys())
    lost = reached & _read_journal(upstream, "lost").keys()
    return Cancelled(sent=len(sent), reached=len(reached), lost=len(lost), latencies_ms=tuple(latencies))


def answers_in(journal: str) -> list[tuple[float, float]]:
    """Of each whole answer of a load that keeps a journal: when it was asked for, in seconds of the monotonic
    clock, and what it took in ms."""
    lines = (line.split() for line in journal.splitlines())
    return [(int(fields[1]) / 1e9, int(fields[2]) / 1e6) for fields in lines if fields[0] == "answer"]


def quantile(ascending: tuple[float, ...] | list[float], part: float) -> float:
    """NaN when there are none."""
    return ascending[min(int(len(ascending) * part), len(ascending) - 1)] if ascending else float("nan")


def build(folder: Path) -> Path:
    """Compiles the rig into `folder`. Raises `RigError` naming the Debian package that is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    compiler = shutil.which("cc")
    if compiler is None:
        raise RigError("no C compiler: apt-get install gcc libc6-dev")
    nghttp2 = _preprocessed(compiler, "nghttp2/nghttp2.h", "libnghttp2-dev")
    _preprocessed(compiler, "openssl/ssl.h", "libssl-dev")
    defines = ["-DLIMITS_RESETS"] if "nghttp2_option_set_stream_reset_rate_limit" in nghttp2 else []
    for name, sources in PROGRAMS.items():
        paths = [str(SOURCES / source) for source in sources]
        command = [compiler, *FLAGS, *defines, *paths, "-o", str(folder / name), *LIBRARIES]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RigError(f"{name} does not compile:\n{done.stderr}")
    return folder


@contextmanager
def running(folder: Path, pki: Pki, cores: Cores) -> Iterator[Rig]:
    """Builds into `folder`, starts the upstream and stops it in the end."""
    programs = build(folder / "bin")
    port = free_port()
    journal = folder / "upstream.journal"
    options = {"port": port, "certificate": pki.files.certificate, "key": pki.files.key, "journal": journal}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with pinned(cores.rig):
        upstream = subprocess.Popen([str(programs / "upstream"), *arguments], stdout=subprocess.PIPE, text=True)
    try:
        _wait_ready(upstream.stdout)
        yield Rig(programs, folder, cores, port, journal)
    finally:
        upstream.terminate()
        upstream.wait()
        if upstream.stdout is not None:
            upstream.stdout.close()


def _wait_ready(output: IO[str] | None) -> None:
    if output is None or output.readline() != "ready\n":
        raise RigError("the upstream did not start")


def figures_of(load: subprocess.Popen[str]) -> Figures:
    output, complaint = load.communicate()
    if load.returncode != 0:
        raise RigError(f"the load ended with {load.returncode}: {complaint.strip()}")
    figures: Figures = json.loads(output)
    return figures


def _preprocessed(compiler: str, header: str, package: str) -> str:
    source = f"#include <{header}>\n"
    done = subprocess.run([compiler, "-E", "-"], input=source, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RigError(f"{header} is missing: apt-get install {package}")
    return done.stdout


def _read_journal(text: str, what: str) -> dict[int, int]:
    lines = (line.split() for line in text.splitlines())
    return {int(fields[1]): int(fields[2]) for fields in lines if fields[0] == what}
