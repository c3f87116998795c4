"""What every `SliceStore` keeps of sessions: each message counts once, and what a silent worker had comes back."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.limits.protocol import LEASE_S, SliceAsk, Wish
from gateway.limits.store import SliceAdmin, SliceStore
from tests.contract.slice_store import ACME, OTHER, Advance, Worker, budget, rate, slots


async def test_a_message_that_is_sent_again_counts_once(worker: Worker) -> None:
    tokens = rate(100)
    opening = worker.message(tokens, wishes=((Wish(0, 10, 10),),))
    first = await worker.send(opening)
    assert await worker.store.ask(opening) == first
    again = worker.message(replace(tokens, spent=5, back=5), wishes=((Wish(0, 10, 10),),))
    second = await worker.send(again)
    assert second.slices[0].left == 85
    for _ in range(3):
        assert await worker.store.ask(again) == second
    assert await worker.left(tokens) == 85


async def test_a_message_out_of_turn_does_nothing(worker: Worker) -> None:
    tokens = rate(100)
    opened = await worker.open()
    for seq in (0, 3, 9):
        out = replace(worker.message(tokens, wishes=((Wish(0, 10, 10),),)), seq=seq)
        answer = await worker.store.ask(out)
        assert (answer.known, answer.session, answer.epoch) == (False, "", opened.epoch)
        assert answer.results == ()
        assert answer.slices == ()
    assert await worker.left(tokens) == 100


@pytest.mark.parametrize("session", ["", "nobody's"])
async def test_who_was_not_given_a_session_has_none(worker: Worker, session: str) -> None:
    answer = await worker.store.ask(SliceAsk(ACME, "w1", session, "", 2, 1, (rate(5),), ((Wish(0, 1, 1),),)))
    assert not answer.known
    assert answer.epoch
    assert await worker.left(rate(5)) == 5


async def test_a_session_is_of_one_worker_and_one_organization(store: SliceStore) -> None:
    worker = Worker(store)
    await worker.open()
    message = worker.message(rate(5), wishes=((Wish(0, 5, 5),),))
    assert not (await store.ask(replace(message, worker="w2"))).known
    assert not (await store.ask(replace(message, org=OTHER))).known
    assert await worker.take(rate(5), 5) == 5


async def test_of_a_silent_session_the_reserved_comes_back_and_the_rest_counts_as_spent(
    store: SliceStore, advance: Advance
) -> None:
    dead, alive = Worker(store, "dead"), Worker(store, "alive")
    tokens, day, at_once = rate(1_000, period_s=86_400), budget(1_000), slots(10)
    await dead.say(tokens, day, at_once, wishes=((Wish(0, 100, 100), Wish(1, 100, 100), Wish(2, 3, 3)),))
    await dead.say(*(replace(part, open=n) for part, n in ((tokens, 30), (day, 40), (at_once, 3))))
    advance(LEASE_S - 0.001)
    assert [one.left for one in (await alive.say(tokens, day, at_once)).slices] == [900, 900, 7]
    advance(0.001)
    assert [one.left for one in (await alive.say(tokens, day, at_once)).slices] == [930, 940, 10]
    answer = await dead.send(dead.message(tokens))
    assert not answer.known
    assert answer.epoch == alive.epoch
    assert (await dead.say(replace(tokens, spent=20))).slices[0].left == 910  # what it used of the reserved


async def test_a_session_that_says_anything_lives(store: SliceStore, advance: Advance) -> None:
    worker, other = Worker(store), Worker(store, "other")
    tokens = rate(100, period_s=86_400)
    await worker.take(tokens, 60)
    for _ in range(3):
        advance(LEASE_S * 0.9)
        await worker.say()
        assert await other.left(tokens) == 40
    assert worker.last is not None
    for _ in range(2):
        advance(LEASE_S * 0.9)
        await worker.send(worker.last)  # again
    assert (await worker.part(tokens, back=60)).left == 100


async def test_a_worker_that_opens_anew_has_given_up_what_it_had(store: SliceStore) -> None:
    tokens = rate(100, period_s=86_400)
    worker = Worker(store)
    await worker.take(tokens, 60)
    await worker.part(tokens, open=10)
    answer = await Worker(store).say(tokens)
    assert (answer.slices[0].left, answer.sessions) == (50, 1)
    assert not (await worker.send(worker.message(tokens))).known


async def test_another_first_message_opens_another_session(store: SliceStore) -> None:
    tokens = rate(100, period_s=86_400)
    worker = Worker(store)
    await worker.take(tokens, 60)
    assert (await Worker(store).say(tokens)).slices[0].left == 40
    assert not (await worker.send(worker.message(tokens))).known


async def test_a_session_that_is_closed_gives_back_all_that_it_had(store: SliceStore, admin: SliceAdmin) -> None:
    tokens, at_once = rate(100, period_s=86_400), slots(5)
    worker, other = Worker(store), Worker(store, "other")
    await worker.say(tokens, at_once, wishes=((Wish(0, 60, 60), Wish(1, 2, 2)),))
    answer = await worker.say(replace(tokens, spent=20), close=True)
    assert answer.known
    assert [one.left for one in (await other.say(tokens, at_once)).slices] == [80, 5]
    assert all(one.lent == 0 for one in await admin.usage(ACME))
    assert not (await worker.send(worker.message(tokens))).known


@pytest.mark.parametrize("how", ["closes", "falls silent", "gives up"])
async def test_a_session_with_much_in_its_hands_means_nothing_at_once_and_returns_it_soon(
    store: SliceStore, admin: SliceAdmin, advance: Advance, how: str
) -> None:
    """However long it takes to go through all of that: nobody waits for it."""
    many, other = [budget(1_000, limit=f"l{n}") for n in range(700)], Worker(store, "other")
    worker = Worker(store)
    for first in range(0, len(many), 350):
        wishes = tuple((Wish(place, 100, 100),) for place in range(350))
        await worker.say(*many[first : first + 350], wishes=wishes)
        await worker.say(*[replace(part, spent=30, open=20) for part in many[first : first + 350]])
    last = worker.message(close=True)
    if how == "closes":
        assert (await worker.send(last)).known
    elif how == "falls silent":
        advance(LEASE_S)
    else:
        again = Worker(store, worker.name)
        assert (await again.open()).known
        await again.say(close=True)
    assert (await other.open()).sessions == 1
    assert not (await store.ask(replace(last, seq=last.seq + 1))).known
    left = 1_000 - 30 if how == "closes" else 1_000 - 100 + 20
    for _ in range(3):
        await other.say()
    assert {part.left for part in (await other.say(*many)).slices} == {left}
    assert await other.take(many[0], left) == left
    assert {(one.lent, one.sessions) for one in await admin.usage(ACME) if one.limit != "l0"} == {(0, 1)}
