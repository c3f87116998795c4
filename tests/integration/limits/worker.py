"""A worker process with requests in flight, which does nothing more: somebody will kill it.

    python -m tests.integration.limits.worker <bus socket> <folder of books> <requests>

Prints one line of JSON when all are in flight: what has been used of each limit.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from gateway.api.bus import slices_over
from gateway.bus.client import BusClient
from gateway.clock import SystemClock
from gateway.exchange import Claim, Hold, Used
from gateway.limits.slices import SlicedLimits
from gateway.quota import Quota
from tenants.ids import OrgId
from tenants.models import LimitUnit, OnEnd

ORG = OrgId("acme")
ENDS_S = 4_000_000_000
COST = 50
AMOUNT = 1_000_000
SLOTS = 500
NAME = "worker-1"


def claims() -> tuple[Claim, ...]:
    """Budgets, in which nothing comes in meanwhile, and slots."""
    return (
        Claim(Quota(ORG, "requests", "org", "", LimitUnit.REQUESTS, AMOUNT, AMOUNT, 0, 1, ENDS_S), 1),
        Claim(
            Quota(ORG, "tokens", "org", "", LimitUnit.TOKENS, AMOUNT, AMOUNT, 0, 1, ENDS_S, on_end=OnEnd.CUT),
            COST,
            1,
        ),
        Claim(Quota(ORG, "at-once", "org", "", LimitUnit.CONCURRENCY, SLOTS, SLOTS, 0), 1),
    )


async def main(socket: Path, folder: Path, requests: int) -> None:
    bus = BusClient(socket, NAME, lambda _: None, lambda *_: None, clock=SystemClock())
    bus.start()
    await bus.known()
    limits = SlicedLimits(NAME, slices_over(bus), clock=SystemClock(), folder=folder)
    running = asyncio.create_task(limits.run())
    used = {"requests": 0, "tokens": 0, "at-once": 0}
    holds: list[Hold] = []
    for number in range(requests):
        hold = await limits.reserve(claims())
        tokens = number % (2 * COST)  # some have used more than they reserved
        if hold.spending(Used(tokens)) is not None:
            raise RuntimeError("there is plenty left")
        used["requests"] += 1
        used["tokens"] += tokens
        holds.append(hold)
        if number % 50 == 49:
            await limits.sync()  # what was used so far has been said; what follows has not
    for hold in holds[: requests // 10]:
        hold.refund()
    used["requests"] -= requests // 10
    used["tokens"] -= sum(number % (2 * COST) for number in range(requests // 10))
    print(json.dumps(used), flush=True)
    await running


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
