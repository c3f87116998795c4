"""One run: starts the workers, lets everybody arrive, kills the store in the middle, collects what was written."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.kit.redis import RedisServer
from tests.limits.journal import Record, answered, read
from tests.limits.plan import DAY_S, Plan
from tests.limits.worker import Job

READY_S = 60.0
PATIENCE = 4.0
"""A run may take so many times as long as planned, and `READY_S` more, before it counts as hung."""

LOOK_S = 0.1


class RunError(Exception):
    """A worker ended early or came to no end; the message has its last words."""


@dataclass
class Outcome:
    """`cpu_s`: of all workers, their part in the load included. `store_died`: it was killed and started again."""

    records: list[Record]
    cpu_s: float
    store_died: bool


@dataclass
class Running:
    """A run that has begun, for what is to happen in its middle."""

    plan: Plan
    begin_us: int
    workers: list[asyncio.subprocess.Process]
    journals: list[Path]
    books: Path
    killed: set[int] = field(default_factory=set)

    async def at(self, part: float) -> None:
        """Until so much of the time is over."""
        await asyncio.sleep(self.begin_us / 1e6 + self.plan.seconds * part - time.monotonic())

    def kill(self, number: int) -> None:
        self.killed.add(number)
        self.workers[number].kill()


async def race(
    plan: Plan,
    subject: str,
    store: RedisServer | None,
    folder: Path,
    progress: Callable[[int], None],
    incident: Callable[[Running], Awaitable[None]] | None = None,
) -> Outcome:
    """`progress` is told how many requests have been answered. `incident`: what happens meanwhile, beside the
    plan's outage. Raises `RunError`."""
    until_s = int(time.time()) + DAY_S
    address = store.address if store else ""
    names = [f"{plan.name}-{number}" for number in range(plan.workers)]
    journals, logs = ([folder / f"{name}.{kind}" for name in names] for kind in ("journal", "log"))
    books = folder / "books"
    workers = []
    try:
        for number, (path, log) in enumerate(zip(journals, logs, strict=True)):
            job = Job(plan, number, subject, address, str(path), until_s, str(books))
            workers.append(await _start(job, log))
        async with asyncio.timeout(READY_S):
            for worker, log in zip(workers, logs, strict=True):
                await _line(worker, log, "ready")
        running = Running(plan, time.monotonic_ns() // 1000 + 300_000, workers, journals, books)
        for worker in workers:
            assert worker.stdin
            worker.stdin.write(f"{running.begin_us}\n".encode())
        async with asyncio.timeout(plan.seconds * PATIENCE + READY_S), asyncio.TaskGroup() as tasks:
            outage = tasks.create_task(_outage(running, store))
            if incident is not None:
                tasks.create_task(_as_task(incident(running)))
            ends = [
                tasks.create_task(_end(running, number, worker, log))
                for number, (worker, log) in enumerate(zip(workers, logs, strict=True))
            ]
            while not all(end.done() for end in ends):
                progress(sum(map(answered, journals)))
                await asyncio.wait(ends, timeout=LOOK_S)
    except TimeoutError:
        raise RunError(f"{plan.name}: a worker came to no end") from None
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
            await worker.wait()
    records = [record for path in journals for record in read(path)]
    return Outcome(records, sum(end.result() for end in ends), outage.result())


async def _outage(running: Running, store: RedisServer | None) -> bool:
    plan = running.plan
    if store is None or not plan.outage_at:
        return False
    await running.at(plan.outage_at)
    await asyncio.to_thread(store.stop, kill=True)
    await asyncio.sleep(plan.outage_s)
    await asyncio.to_thread(store.start)
    return True


async def _end(running: Running, number: int, worker: asyncio.subprocess.Process, log: Path) -> float:
    """When it has ended by itself, or been killed: its CPU seconds."""
    try:
        report = json.loads(await _line(worker, log, "{"))
    except RunError:
        if number not in running.killed:
            raise
        return 0.0
    await worker.wait()
    return float(report["cpu_s"])


async def _as_task(work: Awaitable[None]) -> None:
    await work


async def _start(job: Job, log: Path) -> asyncio.subprocess.Process:
    with log.open("wb") as words:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.limits.worker",
            msgspec.json.encode(job).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=words,
        )


async def _line(worker: asyncio.subprocess.Process, log: Path, begins: str) -> str:
    """The next line of a worker."""
    assert worker.stdout
    line = (await worker.stdout.readline()).decode()
    if not line.startswith(begins):
        raise RunError(f"a worker ended early: {line}{log.read_text().strip()}")
    return line
