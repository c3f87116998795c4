"""One worker of a run: a process with limits as a gateway's worker has them, and its part of the arrivals.

    python -m tests.limits.worker <job, JSON>

Says `ready`, reads when to begin (µs of CLOCK_MONOTONIC), prints one line of JSON in the end.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import sys
import time
from itertools import count
from pathlib import Path

import msgspec
import uvloop
from msgspec import Struct

from gateway.errors import LimitExceededError, UnavailableError
from gateway.exchange import Hold
from gateway.limits.store import LimitStore
from tests.limits.journal import ADMITTED, REFUNDED, REFUSED, UNAVAILABLE, Journal
from tests.limits.plan import Arrival, Plan, used_of
from tests.limits.subjects import limits_of

TURN_S = 0.002
"""The loop looks at most so often who has arrived meanwhile; a request's own time is when it is called."""


class Job(Struct, frozen=True):
    """`subject`: see `subjects`. `store`: its address, if it has one. `until_s`: when budgets' windows end.
    `books`: folder of what the kernel keeps of this worker's limits."""

    plan: Plan
    number: int
    subject: str
    store: str
    journal: str
    until_s: int
    books: str


class Worker:
    def __init__(self, job: Job, limits: LimitStore, journal: Journal) -> None:
        self._plan, self._number, self._until_s = job.plan, job.number, job.until_s
        self._limits = limits
        self._journal = journal
        self._due: list[tuple[int, int, Hold, int, Arrival]] = []  # half an answer later, and at its end
        self._order = count()
        self._asking: set[asyncio.Task[None]] = set()

    async def run(self, begin_us: int) -> None:
        """Everybody arrives, is answered, and ends."""
        arrivals = enumerate(self._plan.arrivals(self._number))
        waiting = next(arrivals, None)
        while waiting or self._asking or self._due:
            now = _now_us()
            self._end(now)
            while waiting and begin_us + waiting[1].at_us <= now:
                task = asyncio.create_task(self._ask(*waiting))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
                waiting = next(arrivals, None)
            following = begin_us + waiting[1].at_us if waiting else now
            await asyncio.sleep(max((following - now) / 1e6, TURN_S))

    async def _ask(self, number: int, arrival: Arrival) -> None:
        claims = self._plan.claims(arrival, self._until_s)
        journal = self._journal
        would_use = arrival.used if arrival.sent else REFUNDED
        journal.called(number, _now_us(), arrival.who, arrival.cost, arrival.lasts_us, would_use)
        try:
            hold = await self._limits.reserve(claims)
        except LimitExceededError:
            journal.answered(number, _now_us(), REFUSED)
            return
        except UnavailableError:
            journal.answered(number, _now_us(), UNAVAILABLE)
            return
        now = _now_us()
        journal.answered(number, now, ADMITTED)
        if not arrival.lasts_us:
            hold.settle(used_of(arrival))
            journal.ended(number, now, arrival.used, sent=True)
            return
        if arrival.sent and hold.metered:
            heapq.heappush(self._due, (now + arrival.lasts_us // 2, next(self._order), hold, ~number, arrival))
        heapq.heappush(self._due, (now + arrival.lasts_us, next(self._order), hold, number, arrival))

    def _end(self, now_us: int) -> None:
        """What is due: an answer's middle (its number inverted), or its end."""
        while self._due and self._due[0][0] <= now_us:
            _, _, hold, number, arrival = heapq.heappop(self._due)
            if number < 0:
                used = used_of(arrival, 0.5)
                hold.spending(used)
                self._journal.spending(~number, used.input_tokens + used.output_tokens)
                continue
            if arrival.sent:
                hold.settle(used_of(arrival))
            else:
                hold.refund()
            self._journal.ended(number, now_us, arrival.used, sent=arrival.sent)


async def work(job: Job) -> None:
    journal = Journal(Path(job.journal), job.plan.count(job.number))
    async with limits_of(job.subject, f"worker-{job.number}", job.plan, job.store, Path(job.books)) as limits:
        print("ready", flush=True)
        begin_us = int(await asyncio.to_thread(sys.stdin.readline))
        cpu = time.process_time()
        await Worker(job, limits, journal).run(begin_us)
        cpu = time.process_time() - cpu
    journal.close()
    print(json.dumps({"cpu_s": round(cpu, 3)}), flush=True)


def _now_us() -> int:
    return time.monotonic_ns() // 1000


def main() -> int:
    uvloop.run(work(msgspec.json.decode(sys.argv[1], type=Job)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
