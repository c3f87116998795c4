"""kill -9 of a worker's spool and of the sequencer, at random moments under load, on a real folder.

    python -m tests.audit.kills [small|full|how many]

Both are processes of their own, forked from one that has everything loaded, so that a round is short. What a
worker was told is noted in memory that it shares with this process and that outlives it: which requests were
admitted, and of which `append` returned. After each recovery the logs are read on from where they were read
before: one chain, the checkpoint over all of it, and each request once, with the outcome that was acknowledged or
`unknown`. In some rounds the disk is full or broken for a while. Ends with one line of JSON; exits 1 when anything
was lost or there twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import mmap
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from itertools import count
from pathlib import Path

import msgspec

from gateway.audit.chain import Chain, ChainError
from gateway.audit.note import parse_checkpoint
from tests.audit.killed import ACKNOWLEDGED, IN_MEMORY, ORGS, REQUESTS_MAX, Worker, serve

KILLS = {"small": 150, "full": 1_000}
PATIENCE_S = 30.0


class Killed(msgspec.Struct):
    """What came of it. `kills`: processes; `lost`: requests without an entry, or without the outcome that was
    acknowledged; `doubled`: with more than one; `forks`: logs that were not one chain under their checkpoint."""

    kills: int = 0
    requests: int = 0
    lost: int = 0
    doubled: int = 0
    forks: int = 0
    unknown: int = 0
    worst_recovery_s: float = 0.0
    examples: list[str] = []

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.forks)


def kill_for(kills: int, folder: Path, seed: int = 20_260_102) -> Killed:
    """Kill so many processes in `folder`, which is empty, and judge what is left each time."""
    rng = random.Random(seed)
    found = Killed()
    while found.kills < kills:
        place = folder / f"{found.kills:05}"
        place.mkdir()
        most = min(kills, found.kills + rng.randint(20, 60))
        House(place, rng, found, faulty=rng.random() < 0.4).live(most)
    return found


class House:
    """One audit folder, the worker and the sequencer that live in it, and what has been read of its logs."""

    def __init__(self, folder: Path, rng: random.Random, found: Killed, *, faulty: bool) -> None:
        self._folder = folder
        self._rng = rng
        self._found = found
        self._faulty = faulty
        self._boots = count(1)
        self._worker = self._sequencer = 0
        self._boot = ""
        self._told: dict[str, mmap.mmap] = {}
        self._logs = {org: Log(folder / "log" / "orgs" / org, org) for org in ORGS}

    def live(self, most: int) -> None:
        self._start_sequencer()
        self._start_worker()
        while self._found.kills < most:
            time.sleep(self._rng.uniform(0.002, 0.06))
            victims = self._rng.choice(("worker", "worker", "sequencer", "both"))
            if victims in ("sequencer", "both"):
                self._kill(self._sequencer)
            if victims in ("worker", "both"):
                self._kill(self._worker)
            if victims in ("sequencer", "both"):
                self._start_sequencer()
            if victims in ("worker", "both"):
                self._recovered()
                self._start_worker()
        for last in (self._worker, self._sequencer):
            os.kill(last, signal.SIGKILL)
            os.waitpid(last, 0)

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self._found.kills += 1

    def _start_worker(self) -> None:
        self._boot = f"boot-{next(self._boots):06}-0123456789"
        told = self._told[self._boot] = mmap.mmap(-1, REQUESTS_MAX)
        work = Worker(self._folder, self._boot, told, self._rng.random(), faulty=self._faulty)
        self._worker = _fork(work.run)

    def _start_sequencer(self) -> None:
        """It recovers before it answers, as the control process does."""
        ready, say = os.pipe()
        seed = self._rng.random()
        self._sequencer = _fork(lambda: serve(self._folder, say, seed, faulty=self._faulty))
        os.close(say)
        with open(ready, "rb") as said:
            took = said.read(8)
        if len(took) < 8:
            raise RuntimeError("the sequencer did not start")
        self._recovery_took(struct.unpack("d", took)[0])

    def _recovery_took(self, seconds: float) -> None:
        self._found.worst_recovery_s = max(self._found.worst_recovery_s, seconds)

    def _recovered(self) -> None:
        """What the dead worker left is in the logs, once, whoever else is killed on the way."""
        while self._rng.random() < 0.25:
            with _asked(self._folder, b"recover"):
                time.sleep(self._rng.uniform(0, 0.01))
                self._kill(self._sequencer)
            self._start_sequencer()
        with _asked(self._folder, b"recover") as answers:
            self._recovery_took(struct.unpack("d", _read(answers, 8))[0])
        boots = defaultdict[str, defaultdict[int, list[str]]](lambda: defaultdict(list))
        for org, log in self._logs.items():
            with _asked(self._folder, b"sign " + org.encode()) as answers:
                note = _read(answers, struct.unpack(">I", _read(answers, 4))[0]).decode()
            try:
                log.read_on(note)
            except (ChainError, ValueError) as error:
                self._found.forks += 1
                self._say(f"the log of {org}: {error}")
        for log in self._logs.values():
            for number, outcomes in log.requests.pop(self._boot, {}).items():
                boots[self._boot][number] += outcomes
        self._judge(self._told.pop(self._boot), boots[self._boot])

    def _judge(self, told: mmap.mmap, entries: dict[int, list[str]]) -> None:
        """`admit` may have written an intent, and `append` a receipt, of which they had no time to tell."""
        found = self._found
        untold = 0
        last = max(entries, default=0)
        for number in range(REQUESTS_MAX):
            state = told[number]
            outcomes = entries.get(number, [])
            if not state and number > last:
                break
            found.requests += bool(state)
            found.unknown += outcomes == ["unknown"]
            if len(outcomes) > 1:
                found.doubled += 1
                self._say(f"request {number} of {self._boot} has the outcomes {outcomes}")
            elif state and not outcomes:
                found.lost += 1
                self._say(f"request {number} of {self._boot}, told {state}, has no entry")
            elif state == ACKNOWLEDGED and outcomes != ["served"]:
                found.lost += 1
                self._say(f"request {number} of {self._boot} was acknowledged and is {outcomes}")
            elif state < IN_MEMORY and outcomes == ["served"]:
                untold += 1
        told.close()
        if untold > 1:
            found.lost += 1
            self._say(f"{untold} requests of {self._boot} have receipts, and nobody was told")

    def _say(self, what: str) -> None:
        self._found.examples.append(what)


class Log:
    """One organization's log as it is read on, from outside and without the code that writes it."""

    def __init__(self, folder: Path, org: str) -> None:
        self._folder = folder
        self._org = org
        self._chain = Chain()
        self._file = 0
        self._offset = 0
        self._last: dict[str, int] = {}
        self.requests: dict[str, dict[int, list[str]]] = {}

    def read_on(self, note: str) -> None:
        """Up to what the checkpoint signs. Raises `ChainError`, ValueError."""
        signed = parse_checkpoint(note.partition("\n\n")[0] + "\n")
        while self._chain.size < signed.size:
            path = self._folder / f"log-{self._file:08}.jsonl"
            with path.open("rb") as file:
                file.seek(self._offset)
                while self._chain.size < signed.size and (line := file.readline()).endswith(b"\n"):
                    self._offset += len(line)
                    self._take(self._chain.accept(line[:-1], self._org))
            if self._chain.size < signed.size:
                self._file, self._offset = self._file + 1, 0
        if self._chain.tree.root() != signed.root:
            raise ValueError("its root is not the one that was signed")

    def _take(self, entry: dict[str, object]) -> None:
        boot, seq = msgspec.convert(entry["spool"], tuple[str, int])
        if seq <= self._last.get(boot, 0):
            raise ValueError(f"the numbers of {boot} do not rise: {seq} after {self._last[boot]}")
        self._last[boot] = seq
        number = int(str(entry["request_id"]).removeprefix("req_"))
        self.requests.setdefault(boot, {}).setdefault(number, []).append(str(entry["outcome"]))


def _fork(work: Callable[[], Coroutine[object, object, None]]) -> int:
    """A process that does `work` until it is killed; ends at once when this one does."""
    pid = os.fork()
    if pid:
        return pid
    try:
        asyncio.run(work())
    except BaseException as error:  # noqa: BLE001  # nothing of the parent may run in the child
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    os._exit(1)


def _asked(folder: Path, what: bytes) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(PATIENCE_S)
    ends = time.monotonic() + PATIENCE_S
    while True:
        try:
            made.connect(str(folder / "sock"))
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > ends:
                raise
            time.sleep(0.001)
        else:
            made.sendall(what.ljust(16))
            return made


def _read(made: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = made.recv(size - len(data))
        if not piece:
            raise ConnectionError("the sequencer ended by itself")
        data += piece
    return data


def kill(size: str) -> Killed:
    """A `small` or `full` number of kills, or as many as it says."""
    logging.disable()
    with tempfile.TemporaryDirectory(prefix="orgate-kills-") as folder:
        found = kill_for(KILLS[size] if size in KILLS else int(size), Path(folder))
    logging.disable(logging.NOTSET)
    for example in found.examples[:20]:
        sys.stdout.write(f"{example}\n")
    return found


def in_own_process(size: str) -> tuple[dict[str, float], bool]:
    """`kill`, forked from a process without threads: its figures, and whether all was well."""
    command = [sys.executable, "-m", "tests.audit.kills", str(KILLS[size])]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    *said, figures = done.stdout.decode().splitlines()
    sys.stdout.write("".join(f"{line}\n" for line in said))
    return json.loads(figures), done.returncode == 0


def main() -> int:
    found = kill(sys.argv[1] if len(sys.argv) > 1 else "small")
    figures = msgspec.structs.asdict(found)
    del figures["examples"]
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if found.good else 1


if __name__ == "__main__":
    sys.exit(main())
