"""Of more buckets than one message names, each is said, once, in as many messages as it takes."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from gateway.errors import LimitExceededError
from gateway.exchange import Used
from gateway.limits.accounts import LimitOwner
from gateway.limits.protocol import LEASE_S, SliceAnswer, SliceAsk
from gateway.limits.session import NAMED, WISHES
from gateway.limits.slices import SlicedLimits
from tests.contract.test_limit_store import ACME, FakeClock
from tests.unit.limits.many import FEW, MANY, of, slot_of, spent, use
from tests.unit.limits.wire import Wire, standing, ticks, used


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
