"""A worker's limits on an owner in this process, and the wire between them: it counts, holds up and loses."""

from __future__ import annotations

import asyncio

from gateway.errors import UnavailableError
from gateway.exchange import Claim
from gateway.limits.accounts import LimitOwner
from gateway.limits.protocol import Part, SliceAnswer, SliceAsk, Standings
from gateway.limits.slices import SLOW_TICKS, SlicedLimits
from gateway.quota import Quota
from tenants.ids import PLATFORM, OrgId
from tenants.models import LimitUnit, OnEnd, OnOutage
from tests.contract.test_limit_store import ACME, FakeClock

WINDOW = (1, 4_000_000_000)
"""A budget's: from the beginning of time to the year 2096."""


class Wire:
    """`down`: nothing arrives. `lose_answers`: so many messages are counted and not answered. `gate`: messages
    wait before it; `arrived` is set by each."""

    def __init__(self, owner: LimitOwner) -> None:
        self.owner = owner
        self.messages: list[SliceAsk] = []
        self.answers: list[SliceAnswer] = []
        self.down = False
        self.lose_answers = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()

    async def ask(self, message: SliceAsk) -> SliceAnswer:
        if self.down:
            raise UnavailableError("nobody there")
        self.messages.append(message)
        self.arrived.set()
        await self.gate.wait()
        answer = self.owner.answer(message)
        self.answers.append(answer)
        if self.lose_answers:
            self.lose_answers -= 1
            raise UnavailableError("the answer is lost")
        return answer


async def grown_up(clock: FakeClock) -> LimitOwner:
    """An owner whose accounts have been there for a while, so that it lends."""
    owner = LimitOwner(clock)
    old = Part("old", "", LimitUnit.TOKENS, 1, 1, 0, *WINDOW)
    for org in (ACME, PLATFORM):
        await owner.ask(SliceAsk(org, "somebody", "", "", 1, parts=(old,), close=True))
    clock.advance(2)
    return owner


async def ticks(*workers: SlicedLimits) -> None:
    for _ in range(SLOW_TICKS):
        for worker in workers:
            await worker.sync()


def budget(
    cost: int,
    amount: int,
    *,
    limit: str = "tokens",
    least: int = -1,
    on_end: OnEnd = OnEnd.FINISH,
    on_outage: OnOutage = OnOutage.LOCAL,
    unit: LimitUnit = LimitUnit.TOKENS,
    org: OrgId = ACME,
) -> Claim:
    return Claim(
        Quota(
            org=org,
            limit=limit,
            scope="org",
            subject="",
            unit=unit,
            amount=amount,
            burst=amount,
            period_s=0,
            starts_s=WINDOW[0],
            ends_s=WINDOW[1],
            on_end=on_end,
            on_outage=on_outage,
        ),
        cost,
        least,
    )


async def standing(owner: LimitOwner, limit: str, org: OrgId = ACME) -> Standings:
    return next(found for found in await owner.usage(org) if found.limit == limit)


async def used(owner: LimitOwner, limit: str, org: OrgId = ACME) -> int:
    """Of a budget."""
    found = await standing(owner, limit, org)
    return found.amount - found.level - found.lent
