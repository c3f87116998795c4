"""Nothing is lost and nothing comes of itself: three workers on one exact store, whatever becomes of messages."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from gateway.errors import LimitExceededError, UnavailableError
from gateway.exchange import Claim, Hold, Used
from gateway.limits.accounts import LimitOwner
from gateway.limits.protocol import LEASE_S, SliceAnswer, SliceAsk
from gateway.limits.slices import SlicedLimits
from tenants.ids import PLATFORM
from tenants.models import LimitUnit, OnEnd, OnOutage
from tests.contract.test_limit_store import ACME, FakeClock, slots
from tests.unit.limits.wire import budget, grown_up, standing, ticks, used

REQUESTS = 300


@dataclass
class Careless:
    """Loses messages and answers, sends some twice, and takes its time."""

    owner: LimitOwner
    chance: random.Random
    lost: float = 0.0

    async def ask(self, message: SliceAsk) -> SliceAnswer:
        await self._dawdle()
        if self.chance.random() < self.lost / 2:
            raise UnavailableError("the message is lost")
        answer = self.owner.answer(message)
        if self.chance.random() < 0.1:
            assert self.owner.answer(message) == answer or message.close
        if self.chance.random() < self.lost / 2:
            raise UnavailableError("the answer is lost")
        await self._dawdle()
        return answer

    async def _dawdle(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)


@dataclass
class History:
    """What requests really used of each limit."""

    chance: random.Random
    amount: int
    used: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("requests", "tokens", "origin"), 0))
    ended: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("served", "refused", "cancelled"), 0))

    def claims(self) -> tuple[Claim, ...]:
        chance = self.chance
        claims = [
            budget(1, self.amount, limit="requests", unit=LimitUnit.REQUESTS, on_outage=OnOutage.ALLOW),
            budget(
                chance.randrange(1, 100),
                self.amount * 40,
                least=chance.choice((-1, 1)),
                on_end=chance.choice(list(OnEnd)),
                on_outage=OnOutage.ALLOW,
            ),
            slots(20),
            budget(
                1, self.amount, limit="origin", unit=LimitUnit.REQUESTS, org=PLATFORM, on_outage=OnOutage.ALLOW
            ),
        ]
        chosen = chance.sample(claims, chance.randrange(1, len(claims) + 1))
        return tuple(chosen)

    async def request(self, limits: SlicedLimits) -> None:
        """One, from its reservation to its end, cancelled at any moment or not."""
        chance, claims = self.chance, self.claims()
        asked = asyncio.ensure_future(limits.reserve(claims))
        if chance.random() < 0.2:
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            asked.cancel()
        try:
            hold = await asked
        except LimitExceededError:
            self.ended["refused"] += 1
        except asyncio.CancelledError:
            self.ended["cancelled"] += 1
        else:
            self.ended["served"] += 1
            await self._stream(hold, {claim.quota.limit for claim in claims})

    async def _stream(self, hold: Hold, limits: set[str]) -> None:
        chance, tokens, cut = self.chance, 0, False
        for _ in range(chance.randrange(5)):
            tokens += chance.randrange(40)
            if hold.metered and hold.spending(Used(tokens)) is not None:
                cut = True
                break
            await asyncio.sleep(0)
        if chance.random() < 0.15:
            hold.refund()
            return
        if not cut:  # what the provider says in the end may be more, or less
            tokens = max(0, tokens + chance.randrange(-20, 60))
        hold.settle(Used(tokens))
        for limit, units in (("requests", 1), ("tokens", tokens), ("origin", 1)):
            if limit in limits:
                self.used[limit] += units


@pytest.mark.parametrize("seed", range(16))
async def test_what_is_used_is_what_the_store_has_charged(seed: int) -> None:
    chance, clock = random.Random(seed), FakeClock()
    owner = await grown_up(clock)
    wire = Careless(owner, chance, chance.choice((0, 0, 0.05, 0.3)))
    workers = [SlicedLimits(f"w{n}", wire, workers=3, clock=clock, spread=chance.random) for n in range(3)]
    history = History(chance, chance.choice((50, 400, 5_000)))
    requests = set()
    for _ in range(REQUESTS):
        requests.add(asyncio.ensure_future(history.request(chance.choice(workers))))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        clock.advance(chance.choice((0, 0, 0, 0.001, 0.02)))
        if chance.random() < 0.05:
            await chance.choice(workers).sync()
        if chance.random() < 0.02:
            wire.lost = chance.choice((0, 0, 0.3, 1.0))
    wire.lost = 0
    await ticks(*workers)
    await asyncio.gather(*requests)
    await ticks(*workers)
    await ticks(*workers)
    assert sum(history.ended.values()) == REQUESTS
    for worker in workers:
        for session in worker._sessions.values():
            for bucket in session.own:
                outstanding = bucket.total - bucket.acked + bucket.back
                assert bucket.hands == bucket.avail + bucket.open + outstanding
    for worker in workers:
        await worker.close()
    for limit, org in (("requests", ACME), ("tokens", ACME), ("origin", PLATFORM)):
        assert await used(owner, limit, org) == history.used[limit], limit
        assert (await standing(owner, limit, org)).lent == 0
    at_once = await standing(owner, "at-once")
    assert (at_once.level, at_once.lent) == (20, 0)


@pytest.mark.parametrize("seed", range(6))
async def test_a_store_that_loses_everything_never_charges_less_than_was_said(seed: int) -> None:
    """Each worker says again what it knows: of what was used nothing is forgotten but what only others knew."""
    chance, clock = random.Random(seed), FakeClock()
    owner = await grown_up(clock)
    wire = Careless(owner, chance)
    worker = SlicedLimits("w1", wire, clock=clock, spread=chance.random)
    history = History(chance, 5_000)
    for restarted in (False, True, True):
        if restarted:
            clock.advance(1)
            wire.owner = LimitOwner(clock)
        requests = [asyncio.ensure_future(history.request(worker)) for _ in range(60)]
        await asyncio.gather(*requests)
        await ticks(worker)
    await worker.close()
    for limit, org in (("requests", ACME), ("tokens", ACME), ("origin", PLATFORM)):
        assert await used(wire.owner, limit, org) == history.used[limit], limit


@pytest.mark.parametrize("seed", range(8))
async def test_whoever_is_silent_for_a_lease_gets_nothing_for_nothing(seed: int) -> None:
    """What it was lent may count as spent; what was used never counts as less."""
    chance, clock = random.Random(seed), FakeClock()
    owner = await grown_up(clock)
    wire = Careless(owner, chance)
    workers = [SlicedLimits(f"w{n}", wire, workers=2, clock=clock, spread=chance.random) for n in range(2)]
    history = History(chance, 5_000)
    requests = set()
    for turn in range(REQUESTS):
        requests.add(asyncio.ensure_future(history.request(chance.choice(workers))))
        await asyncio.sleep(0)
        if chance.random() < 0.1:
            await chance.choice(workers).sync()
        if turn % 50 == 49:
            clock.advance(LEASE_S + 0.1)
    await asyncio.gather(*requests)
    await ticks(*workers)
    for worker in workers:
        await worker.close()
    for limit, org in (("requests", ACME), ("tokens", ACME), ("origin", PLATFORM)):
        found = await standing(owner, limit, org)
        assert found.lent == 0
        assert history.used[limit] <= found.amount - found.level <= found.amount
    assert (await standing(owner, "at-once")).lent == 0
