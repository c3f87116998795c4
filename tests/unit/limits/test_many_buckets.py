"""Of more buckets than one message names, each is said, once, in as many messages as it takes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.errors import LimitExceededError, UnavailableError
from gateway.exchange import Claim, Hold, Used
from gateway.limits.accounts import LimitOwner
from gateway.limits.book import note
from gateway.limits.protocol import LEASE_S, Part, SliceAnswer, SliceAsk
from gateway.limits.session import NAMED, WISHES
from gateway.limits.slices import SlicedLimits
from gateway.limits.undertaker import bury
from tenants.models import LimitUnit, OnOutage
from tests.contract.test_limit_store import ACME, FakeClock
from tests.contract.test_limit_store import slots as at_once
from tests.unit.limits.test_book import kill
from tests.unit.limits.test_conservation import Careless
from tests.unit.limits.wire import Wire, budget, grown_up, standing, ticks, used

FEW = 8
MANY = 50
AMOUNT = 5_000


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.limits.session.NAMED", FEW)
    monkeypatch.setattr("gateway.limits.undertaker.NAMED", FEW)


def of(who: int, cost: int = 1) -> Claim:
    return budget(cost, AMOUNT, limit=f"l{who}", on_outage=OnOutage.ALLOW)


def slot_of(who: int) -> Claim:
    return at_once(20, limit=f"s{who}")


async def use(limits: SlicedLimits, who: int, units: int) -> None:
    (await limits.reserve([of(who, units)])).settle(Used(units))


def spent(messages: list[SliceAsk]) -> Counter[str]:
    """Of each bucket, over all messages."""
    return Counter({p.limit: sum(q.spent for q in parts(messages, p.limit)) for m in messages for p in m.parts})


def parts(messages: list[SliceAsk], limit: str) -> Iterator[Part]:
    return (part for message in messages for part in message.parts if part.limit == limit)


async def test_thousands_of_buckets_are_several_messages(limits: SlicedLimits, wire: Wire) -> None:
    people = range(4 * NAMED)
    for start in range(0, len(people), NAMED):
        await asyncio.gather(*(use(limits, who, 3) for who in people[start : start + NAMED]))
    wire.messages.clear()
    await asyncio.gather(*(use(limits, who, 2) for who in people))
    await ticks(limits)
    assert max(len(message.parts) for message in wire.messages) <= NAMED
    assert spent(wire.messages) == {f"l{who}": 5 for who in people}  # each said once, and none forgotten
    assert max(Counter(p.limit for message in wire.messages for p in message.parts if p.spent).values()) == 1
    for who in (0, NAMED, len(people) - 1):
        assert await used(wire.owner, f"l{who}") == 5


async def test_with_those_that_are_wished_for_there_are_no_more_than_that(
    limits: SlicedLimits, wire: Wire
) -> None:
    for start in range(0, 3 * NAMED, NAMED):
        await asyncio.gather(*(use(limits, who, 1) for who in range(start, start + NAMED)))
    holds = [await limits.reserve([of(who)]) for who in range(3 * NAMED)]
    wire.messages.clear()
    for hold in holds:
        hold.refund()  # of each bucket there is news
    asked = [[of(10_000 + 20 * who + limit) for limit in range(20)] for who in range(60)]
    await asyncio.gather(*(limits.reserve(claims) for claims in asked))
    await ticks(limits)
    assert len(wire.messages) >= 3
    assert all(len(message.parts) <= WISHES + 20 + NAMED for message in wire.messages)


@pytest.mark.usefixtures("few")
async def test_no_bucket_waits_behind_those_that_have_news_again(
    limits: SlicedLimits, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(use(limits, who, 1) for who in range(MANY)))
    await limits.settled()
    session, order = limits._session(ACME), list[str]()
    session.owed |= dict.fromkeys(session.own)
    answered = wire.owner.answer

    def answer(message: SliceAsk) -> SliceAnswer:
        order.extend(part.limit for part in message.parts)
        if len(order) < 2 * MANY:  # those whose turn it was have news at once
            said = {part.limit for part in message.parts}
            session.owed |= {bucket: None for bucket in session.own if bucket.quota.limit in said}
        return answered(message)

    monkeypatch.setattr(wire.owner, "answer", answer)
    limits._begin(session)
    await limits.settled()
    assert len(set(order[:MANY])) == MANY
    assert len(set(order[MANY : 2 * MANY + FEW])) == MANY


@pytest.mark.usefixtures("few")
async def test_slices_that_run_low_do_not_keep_the_others_from_being_said(
    limits: SlicedLimits, wire: Wire
) -> None:
    await asyncio.gather(*(use(limits, who, 1) for who in range(MANY)))
    await limits.settled()
    session = limits._session(ACME)
    low, rest = list(session.own)[: MANY // 2], list(session.own)[MANY // 2 :]
    session.low |= dict.fromkeys(low)
    session.owed |= dict.fromkeys(rest)
    wire.messages.clear()
    limits._begin(session)
    await limits.settled()
    assert all(len(message.parts) <= FEW for message in wire.messages)
    first = wire.messages[0].parts
    assert (sum(part.want > 0 for part in first), len(first)) == (FEW // 2, FEW)
    wanted = Counter(part.limit for message in wire.messages for part in message.parts if part.want)
    assert wanted == {bucket.quota.limit: 1 for bucket in low}
    assert {part.limit for message in wire.messages for part in message.parts} == {f"l{n}" for n in range(MANY)}


@pytest.mark.usefixtures("few")
async def test_one_that_is_low_and_has_news_is_named_once(limits: SlicedLimits, wire: Wire) -> None:
    await use(limits, 1, 1)
    await limits.settled()
    session = limits._session(ACME)
    [bucket] = session.own
    session.low[bucket] = session.owed[bucket] = None
    wire.messages.clear()
    limits._begin(session)
    await limits.settled()
    assert [part.want > 0 for message in wire.messages for part in message.parts] == [True]


@pytest.mark.usefixtures("few")
async def test_closing_gives_back_in_parts_and_then_ends(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    await asyncio.gather(*(use(limits, who, 3) for who in range(MANY)))
    await asyncio.gather(*(use(limits, who, 2) for who in range(MANY)))
    wire.messages.clear()
    await limits.close()
    assert all(len(message.parts) <= FEW for message in wire.messages)
    assert [message.close for message in wire.messages] == [False] * (len(wire.messages) - 1) + [True]
    # A store goes through all that is in hands at the end: of many buckets it has come back before.
    assert sum(part.back > 0 for message in wire.messages for part in message.parts) == MANY
    for who in range(MANY):
        found = await standing(wire.owner, f"l{who}")
        assert (found.used, found.lent, found.sessions) == (5, 0, 0)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("lost", [1, 2, 5])
async def test_a_worker_that_closes_while_answers_are_lost_says_nothing_twice(
    limits: SlicedLimits, wire: Wire, lost: int
) -> None:
    await asyncio.gather(*(use(limits, who, 3) for who in range(MANY)))
    for _ in range(lost):
        wire.lose_answers = 1
        await ticks(limits)
    await limits.close()
    for who in range(MANY):
        found = await standing(wire.owner, f"l{who}")
        assert (found.used, found.lent) == (3, 0)


@pytest.mark.usefixtures("few")
async def test_a_store_that_comes_back_empty_is_told_in_parts(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    holds = [await limits.reserve([of(who, 100), slot_of(who)]) for who in range(MANY)]
    for hold in holds:
        hold.spending(Used(40))
    await ticks(limits)
    clock.advance(0.5)
    wire.owner = LimitOwner(clock)
    wire.messages.clear()
    await ticks(limits)
    told = [message for message in wire.messages if message.rebuilds]
    assert all(len(message.parts) <= FEW for message in wire.messages)
    assert len(told) >= 2 * MANY // FEW
    assert sorted(part.limit for message in told for part in message.parts) == sorted(
        f"{kind}{who}" for kind in "ls" for who in range(MANY)
    )  # each once
    for who in range(MANY):
        assert (await standing(wire.owner, f"l{who}")).used == 40
        assert (await standing(wire.owner, f"s{who}")).open == 1
    for hold in holds:
        hold.settle(Used(50))
    await limits.close()
    for who in range(MANY):
        assert await used(wire.owner, f"l{who}") == 50
        assert (await standing(wire.owner, f"s{who}")).lent == 0


@pytest.mark.usefixtures("few")
async def test_who_is_asked_for_meanwhile_is_told_of_at_once(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    for who in range(MANY):
        await use(limits, who, 4_000)
        await use(limits, who, 900)  # little is left
    await ticks(limits)
    wire.owner = LimitOwner(clock)
    with pytest.raises(LimitExceededError):
        await limits.reserve([of(MANY - 1, 200)])  # the last in the line
    await ticks(limits)
    assert await used(wire.owner, f"l{MANY - 1}") == 4_900


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("then", ["forgets", "ends"])
async def test_what_happens_to_a_store_that_has_been_told_half(
    limits: SlicedLimits,
    wire: Wire,
    clock: FakeClock,
    after: int,
    then: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another one comes back empty, or the session ends by its lease. What has not been told still is."""
    for who in range(MANY):
        await use(limits, who, 40)
    await ticks(limits)
    await asyncio.gather(*(use(limits, who, 5) for who in range(MANY)))
    wire.messages.clear()
    wire.owner = first = LimitOwner(clock)
    silent: list[SliceAsk] = []

    def answer(message: SliceAsk) -> SliceAnswer:
        if sum(one.rebuilds for one in wire.messages) <= after:
            return LimitOwner.answer(first, message)
        if then == "forgets":
            wire.owner = LimitOwner(clock)
            return wire.owner.answer(message)
        if not silent:
            clock.advance(LEASE_S)
            silent.append(message)
        return LimitOwner.answer(first, message)

    with monkeypatch.context() as patch:
        patch.setattr(first, "answer", answer)
        await ticks(limits)
    await ticks(limits)
    assert all(len(message.parts) <= FEW for message in wire.messages)
    await limits.close()
    for who in range(MANY):
        found = await standing(wire.owner, f"l{who}")
        assert found.lent == 0
        if then == "forgets":
            assert found.used == 45
        else:  # what was in the hands of the session that ended counts as spent, of those that it had been told of
            assert found.used >= 45
    if then == "ends":
        exact = [who for who in range(MANY) if await used(wire.owner, f"l{who}") == 45]
        assert len(exact) >= MANY - (after + 1) * FEW


@pytest.mark.usefixtures("few")
async def test_slots_that_a_store_does_not_know_of_are_asked_for_in_turns(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    holds = [await limits.reserve([slot_of(who)]) for who in range(MANY)]
    await ticks(limits)
    clock.advance(LEASE_S)
    wire.messages.clear()
    await ticks(limits)
    assert all(len(message.requests) <= FEW // 2 for message in wire.messages)
    for who in range(MANY):
        assert (await standing(wire.owner, f"s{who}")).lent >= 1
    for hold in holds:
        hold.settle(Used(0))
    await limits.close()
    for who in range(MANY):
        assert (await standing(wire.owner, f"s{who}")).lent == 0


@pytest.mark.usefixtures("few")
async def test_slots_that_somebody_else_has_by_now_do_not_stand_in_the_way(
    limits: SlicedLimits, wire: Wire, clock: FakeClock
) -> None:
    holds = [await limits.reserve([slot_of(who)]) for who in range(MANY)]
    await ticks(limits)
    clock.advance(LEASE_S)
    other = SlicedLimits("w2", wire, clock=clock)
    theirs = [await other.reserve([slot_of(who)]) for who in range(MANY // 2) for _ in range(20)]
    await ticks(limits)
    assert not limits._session(ACME).due  # those that are refused are asked for again with what is due anyway
    for who in range(MANY // 2, MANY):
        assert (await standing(wire.owner, f"s{who}")).lent >= 1
    for hold in (*holds, *theirs):
        hold.settle(Used(0))
    await limits.close()
    await other.close()


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
