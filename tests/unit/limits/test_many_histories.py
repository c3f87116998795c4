"""Whatever happens to many buckets, their workers and their store: what was used is charged, once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.errors import UnavailableError
from gateway.exchange import Hold, Used
from gateway.limits.accounts import LimitOwner
from gateway.limits.book import note
from gateway.limits.protocol import LEASE_S, SliceAnswer, SliceAsk
from gateway.limits.slices import SlicedLimits
from gateway.limits.undertaker import bury
from tenants.models import LimitUnit, OnOutage
from tests.contract.test_limit_store import ACME, FakeClock
from tests.unit.limits.many import FEW, MANY, of, slot_of, use
from tests.unit.limits.test_book import kill
from tests.unit.limits.test_conservation import Careless
from tests.unit.limits.wire import Wire, budget, grown_up, standing, ticks


class Fickle(Careless):
    """Its store forgets, too, and so does it let leases run out."""

    def __init__(self, owner: LimitOwner, chance: random.Random, clock: FakeClock) -> None:
        super().__init__(owner, chance)
        self.clock = clock
        self.forgets = self.falls_silent = 0.0
        self.longest = 0

    async def ask(self, message: SliceAsk) -> SliceAnswer:
        self.longest = max(self.longest, len(message.parts))
        if self.chance.random() < self.forgets:
            self.clock.advance(1)
            self.owner = LimitOwner(self.clock)
        if self.chance.random() < self.falls_silent:
            self.clock.advance(LEASE_S)
        return await super().ask(message)


class Crowd:
    """Many with a limit each, and what they have used."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.used: Counter[int] = Counter()

    async def one(self, limits: SlicedLimits) -> None:
        chance, who = self.chance, self.chance.randrange(MANY)
        metered = budget(chance.randrange(1, 60), 10**6, limit=f"l{who}", on_outage=OnOutage.ALLOW)
        counted = budget(1, 10**6, limit=f"r{who}", unit=LimitUnit.REQUESTS, on_outage=OnOutage.ALLOW)
        asked = asyncio.ensure_future(limits.reserve([metered, counted, slot_of(who)]))
        if chance.random() < 0.1:
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            asked.cancel()
        try:
            hold = await asked
        except asyncio.CancelledError:
            return
        await self._stream(hold, who)

    async def _stream(self, hold: Hold, who: int) -> None:
        chance, tokens = self.chance, 0
        for _ in range(chance.randrange(4)):
            tokens += chance.randrange(30)
            hold.spending(Used(tokens))
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        if chance.random() < 0.1:
            hold.refund()
            return
        tokens = max(0, tokens + chance.randrange(-10, 40))
        hold.settle(Used(tokens))
        self.used[who] += tokens

    async def run(self, workers: list[SlicedLimits], clock: FakeClock) -> None:
        requests = []
        for _ in range(400):
            requests.append(asyncio.ensure_future(self.one(self.chance.choice(workers))))
            if self.chance.random() < 0.3:
                await asyncio.sleep(0)
            clock.advance(self.chance.choice((0, 0, 0.001, 0.02)))
            if self.chance.random() < 0.05:
                await self.chance.choice(workers).sync()
        await asyncio.gather(*requests)


async def charged(owner: LimitOwner, who: int) -> int:
    """Nothing of whom it does not know."""
    return sum(found.used for found in await owner.usage(ACME) if found.limit == f"l{who}")


async def lent(owner: LimitOwner, who: int) -> int:
    return sum(found.lent for found in await owner.usage(ACME) if found.limit in (f"l{who}", f"r{who}", f"s{who}"))


async def settle(workers: list[SlicedLimits]) -> None:
    for _ in range(3):
        await ticks(*workers)
    for worker in workers:
        for session in worker._sessions.values():
            for bucket in session.own:
                assert bucket.hands == bucket.avail + bucket.open + bucket.total - bucket.acked + bucket.back
        await worker.close()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("lost", [0, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(4))
async def test_what_many_used_is_what_the_store_has_charged(seed: int, lost: float) -> None:
    chance, clock = random.Random(seed), FakeClock()
    wire = Fickle(await grown_up(clock), chance, clock)
    wire.lost = lost
    workers = [SlicedLimits(f"w{n}", wire, workers=3, clock=clock, spread=chance.random) for n in range(3)]
    crowd = Crowd(chance)
    await crowd.run(workers, clock)
    wire.lost = 0
    await settle(workers)
    for who in range(MANY):
        assert await charged(wire.owner, who) == crowd.used[who]
        assert not await lent(wire.owner, who)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("lost", [0, 0.2])
@pytest.mark.parametrize("seed", range(4))
async def test_a_store_that_forgets_again_and_again_charges_what_many_used(seed: int, lost: float) -> None:
    """Before it has been told all, too."""
    chance, clock = random.Random(seed), FakeClock()
    wire = Fickle(await grown_up(clock), chance, clock)
    worker = SlicedLimits("w1", wire, clock=clock, spread=chance.random)
    crowd = Crowd(chance)
    for forgets in (0, 0.05, 0.1):
        wire.forgets, wire.lost = forgets, lost
        await crowd.run([worker], clock)
    wire.forgets, wire.lost = 0, 0
    await settle([worker])
    assert sum(crowd.used.values()) > 0
    for who in range(MANY):
        assert await charged(wire.owner, who) == crowd.used[who]
        assert not await lent(wire.owner, who)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("seed", range(4))
async def test_sessions_that_end_unheard_charge_nobody_less_than_he_used(seed: int, forgets: bool) -> None:
    """Nor those of a store that has begun anew and is being told."""
    chance, clock = random.Random(seed), FakeClock()
    wire = Fickle(await grown_up(clock), chance, clock)
    worker = SlicedLimits("w1", wire, clock=clock, spread=chance.random)
    crowd = Crowd(chance)
    await crowd.run([worker], clock)
    if forgets:
        clock.advance(1)
        wire.owner = LimitOwner(clock)
    wire.falls_silent, wire.lost = 0.1, 0.2
    await crowd.run([worker], clock)
    wire.falls_silent = wire.lost = 0
    await settle([worker])
    for who in range(MANY):
        assert await charged(wire.owner, who) >= crowd.used[who]
        assert not await lent(wire.owner, who)


class Killed(BaseException):
    pass


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("seed", range(8))
async def test_a_worker_that_dies_with_much_to_say_is_settled_for_in_parts(
    seed: int, wire: Wire, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the store cannot be asked in the midst of it, and who says it is killed as well."""
    chance = random.Random(seed)
    limits = SlicedLimits("w1", wire, clock=clock, folder=tmp_path)
    for who in range(MANY):
        await use(limits, who, 3)
        hold = await limits.reserve([of(who, 40)])
        hold.spending(Used(who))
    if chance.random() < 0.5:
        wire.lose_answers = 1
        await limits.sync()
    kill(limits, tmp_path)
    wire.messages.clear()
    buried = 0

    def noting(file: int, at: int, word: int, value: int) -> None:
        if chance.random() < 0.03:
            raise Killed
        note(file, at, word, value)

    monkeypatch.setattr("gateway.limits.undertaker.note", noting)
    while not buried:
        answers = chance.randrange(1, 4)

        class Halting:
            async def ask(self, message: SliceAsk) -> SliceAnswer:
                nonlocal answers
                answers -= 1
                if answers < 0:
                    raise UnavailableError("nobody there")
                answer = await wire.ask(message)
                if chance.random() < 0.2:
                    raise UnavailableError("the answer is lost")
                return answer

        with suppress(Killed):
            buried = await bury(tmp_path, Halting())
    assert all(len(message.parts) <= FEW for message in wire.messages)
    assert any(not message.close for message in wire.messages)
    for who in range(MANY):
        found = await standing(wire.owner, f"l{who}")
        assert (found.used, found.lent) == (3 + who, 0)
