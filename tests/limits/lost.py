"""A worker killed with its reservations open: what they had spent is charged, the rest is there again.

Twice: once the control process settles for the dead worker with what the kernel has kept (`limits.undertaker`),
once nobody does, as when a whole machine dies, and the store ends the session after its lease. Everybody draws
from one budget that does not end, so that each token is accounted for, and from slots.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.limits.protocol import LEASE_S, Standings
from gateway.limits.redis import RedisSlices
from gateway.limits.undertaker import bury
from tenants.models import LimitUnit
from tests.kit.redis import RedisServer
from tests.limits.journal import ADMITTED, Record, read
from tests.limits.judge import Verdict, Words
from tests.limits.plan import ORG, Bound, Plan
from tests.limits.race import RunError, Running, race
from tests.limits.subjects import REDIS, redis_slices

OPEN = 200
"""Reservations that the worker has open when it is killed, at least."""

GRACE_S = 0.5
"""Beyond the lease: a store ends a session when it is next asked."""

LOOK_S = 0.02

_FIGURES = {
    "open_at_kill": "reservations that the worker had open",
    "settled_ms": "from its end to the end of its session in the store",
    "tokens_used": "by everybody, in the workers' own books",
    "tokens_off": "charged beyond that",
    "tokens_lent": "in the hands of all workers when it was killed",
    "slots_left_out": "in nobody's hands, and not back",
    "tokens_left_out": "the same of tokens",
}
WORDS = Words("A worker killed with -9", _FIGURES)
WORDS_OF_MACHINE = Words("The same when nobody settles for it: what it was lent counts as spent", _FIGURES)

PLAN = Plan(
    "killed",
    requests=10_000,
    rate=2_000,
    bounds=(
        Bound("month", "org", LimitUnit.TOKENS, 10**9, 10**9, budget=True),
        Bound("at-once", "org", LimitUnit.CONCURRENCY, 10**6, 10**6, period_s=0),
    ),
    cancelled=0.45,
    lasting=True,
    outage_at=0,
    longest_s=2.5,
)


def judge(
    records: Sequence[Record],
    left: Sequence[Standings],
    *,
    open_at_kill: int,
    lent_at_kill: int,
    settled_s: float,
    buried: bool,
) -> Verdict:
    """`records` of all workers; `left` in the store when the others have ended. `lent_at_kill`: tokens in the
    hands of all workers. With the undertaker the books must be right to the token. Without, what the worker had
    been lent counts as spent."""
    budget = next(each for each in left if each.unit is LimitUnit.TOKENS)
    slots = next(each for each in left if each.unit is LimitUnit.CONCURRENCY)
    exact = sum(record.charged for record in records if record.verdict == ADMITTED)
    off = budget.used - exact
    allowed = 0 if buried else lent_at_kill
    verdict = Verdict(
        {
            "open_at_kill": open_at_kill,
            "settled_ms": round(settled_s * 1_000),
            "tokens_used": exact,
            "tokens_off": off,
            "tokens_lent": lent_at_kill,
            "slots_left_out": slots.lent,
            "tokens_left_out": budget.lent,
        }
    )
    claims = [
        (open_at_kill >= OPEN, f"only {open_at_kill} reservations were open"),
        (settled_s <= LEASE_S + GRACE_S, f"the dead worker's session ended after {settled_s:.1f} s only"),
        (abs(off) <= allowed, f"{off:+} tokens are charged beyond what was used, {allowed} may be"),
        (not slots.lent and not budget.lent, f"{slots.lent} slots and {budget.lent} tokens are in dead hands"),
    ]
    verdict.faults = [fault for holds, fault in claims if not holds]
    return verdict


async def kill_one(
    store: RedisServer, *, buried: bool, progress: Callable[[int], None], plan: Plan = PLAN
) -> Verdict:
    """Raises `RunError`."""
    shares = plan.shares()
    victim = shares.index(max(shares))
    found: dict[str, float] = {}

    async def kill(running: Running) -> None:
        await running.at(0.4)
        journal = running.journals[victim]
        while (count := _open(journal)) < OPEN:
            if running.workers[victim].returncode is not None:
                raise RunError("the worker that was to be killed has ended")
            await asyncio.sleep(LOOK_S)
        running.kill(victim)
        await running.workers[victim].wait()
        began = time.monotonic()
        found["open"] = count
        async with redis_slices(store.address) as slices:
            found["lent"] = max(each.lent for each in await slices.usage(ORG))
            while buried and not await bury(running.books, slices):
                await asyncio.sleep(LOOK_S)
            while await _sessions(slices) >= plan.workers:
                await asyncio.sleep(LOOK_S)
            found["settled"] = time.monotonic() - began

    with tempfile.TemporaryDirectory(prefix="orgate-limits-") as folder:
        outcome = await race(plan, REDIS, store, Path(folder), progress, kill)
    async with redis_slices(store.address) as slices:
        left = await slices.usage(ORG)
    return judge(
        outcome.records,
        left,
        open_at_kill=int(found["open"]),
        lent_at_kill=int(found["lent"]),
        settled_s=found["settled"],
        buried=buried,
    )


def _open(journal: Path) -> int:
    return sum(record.verdict == ADMITTED and not record.ended for record in read(journal))


async def _sessions(slices: RedisSlices) -> int:
    return max(each.sessions for each in await slices.usage(ORG))
