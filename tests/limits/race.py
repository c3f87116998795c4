"""One run: starts the workers, lets everybody arrive, kills the store in the middle, collects what was written."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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


async def race(
    plan: Plan, subject: str, store: RedisServer | None, folder: Path, progress: Callable[[int], None]
) -> Outcome:
    """`progress` is told how many requests have been answered. Raises `RunError`."""
    until_s = int(time.time()) + DAY_S
    journals = [folder / f"{plan.name}-{number}.journal" for number in range(plan.workers)]
    address = store.address if store else ""
    jobs = [Job(plan, number, subject, address, str(path), until_s) for number, path in enumerate(journals)]
    words = [folder / f"{plan.name}-{number}.log" for number in range(plan.workers)]
    workers = [await _start(job, log) for job, log in zip(jobs, words, strict=True)]
    try:
        async with asyncio.timeout(READY_S):
            for worker, log in zip(workers, words, strict=True):
                await _line(worker, log, "ready")
        begin_us = time.monotonic_ns() // 1000 + 300_000
        for worker in workers:
            assert worker.stdin
            worker.stdin.write(f"{begin_us}\n".encode())
        async with asyncio.timeout(plan.seconds * PATIENCE + READY_S):
            outage = asyncio.create_task(_outage(plan, store, begin_us))
            lines = asyncio.gather(*(_line(worker, log, "{") for worker, log in zip(workers, words, strict=True)))
            while not lines.done():
                progress(sum(map(answered, journals)))
                await asyncio.wait([lines], timeout=LOOK_S)
            reports = [json.loads(line) for line in await lines]
            for worker in workers:
                await worker.wait()
            died = await outage
    except TimeoutError:
        raise RunError(f"{plan.name}: a worker came to no end") from None
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
            await worker.wait()
    return Outcome([record for path in journals for record in read(path)], sum(r["cpu_s"] for r in reports), died)


async def _outage(plan: Plan, store: RedisServer | None, begin_us: int) -> bool:
    if store is None or not plan.outage_at:
        return False
    await asyncio.sleep(begin_us / 1e6 + plan.seconds * plan.outage_at - time.monotonic())
    await asyncio.to_thread(store.stop, kill=True)
    await asyncio.sleep(plan.outage_s)
    await asyncio.to_thread(store.start)
    return True


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
