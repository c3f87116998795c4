"""A `SliceStore` that has lost what it knew is rebuilt from what its workers know."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.limits.protocol import REBUILD_S, Part, SliceAnswer, Wish
from gateway.limits.store import SliceStore
from tests.contract.slice_store import Advance, Backend, Worker, budget, rate, slots


async def test_two_epochs_have_two_names(store: SliceStore, backend: Backend) -> None:
    worker = Worker(store)
    first = (await worker.open()).epoch
    await backend.lose()
    answer = await worker.send(worker.message(rate(5)))
    assert not answer.known
    assert answer.epoch not in ("", first)


async def test_it_is_rebuilt_from_what_workers_know(store: SliceStore, backend: Backend, advance: Advance) -> None:
    one, two = Worker(store, "w1"), Worker(store, "w2")
    tokens, day, at_once = rate(10, burst=1_000, period_s=1), budget(1_000), slots(10)
    parts = (tokens, day, at_once)
    wishes = ((Wish(0, 200, 200), Wish(1, 200, 200), Wish(2, 2, 2)),)
    assert await one.use(tokens, 500) == 500
    knows_one = await one.say(*parts, wishes=wishes)
    advance(0.1)  # one unit of the rate comes in
    knows_two = await two.say(*parts, wishes=wishes)
    assert [part.left for part in knows_two.slices] == [101, 600, 6]
    await backend.lose()

    async def rejoin(worker: Worker, knows: SliceAnswer) -> list[int]:
        assert not (await worker.send(worker.message(*parts))).known
        had = zip(parts, knows.slices, (200, 200, 2), strict=True)
        known = [replace(part, left=was.left, left_at_us=knows.now_us, held=held) for part, was, held in had]
        said = [replace(part, spent=150, back=50) for part in known[:2]]
        return [part.left for part in (await worker.say(*said, known[2])).slices]

    # What the first one knows is older: it saw what was left before the other one took as much.
    assert await rejoin(one, knows_one) == [351, 850, 8]
    assert await rejoin(two, knows_two) == [201, 700, 6]


async def test_what_was_granted_before_anybody_spoke_stays_taken(store: SliceStore, backend: Backend) -> None:
    old, new = Worker(store, "old"), Worker(store, "new")
    tokens = rate(1_000, period_s=86_400)
    knows = await old.say(tokens, wishes=((Wish(0, 700, 700),),))
    await old.part(tokens, spent=700)
    await backend.lose()
    assert await new.take(tokens, 400) == 400
    assert not (await old.send(old.message(tokens))).known
    answer = await old.say(replace(tokens, left=300, left_at_us=knows.now_us))
    assert answer.slices[0].left == -100


@pytest.mark.parametrize("part", [budget(1_000), rate(1_000, period_s=86_400)], ids=["budget", "rate"])
async def test_newer_knowledge_wins_and_older_changes_nothing(
    store: SliceStore, backend: Backend, part: Part
) -> None:
    first = Worker(store)
    at_us = (await first.open()).now_us
    await backend.lose()

    async def joined(name: str, left: int, when_us: int) -> int:
        worker = Worker(store, name)
        worker.epoch = "another"
        return (await worker.part(part, left=left, left_at_us=when_us)).left

    assert await joined("a", 500, at_us - 50) == 500
    assert await joined("b", 700, at_us - 60) == 500
    assert await joined("c", 400, at_us - 50) == 500
    assert await joined("d", 300, at_us - 40) == 300
    assert await joined("e", 350, at_us - 30) == 350


async def test_who_knows_nothing_or_this_epoch_rebuilds_nothing(store: SliceStore) -> None:
    tokens = rate(1_000)
    first = Worker(store)
    now = (await first.open()).now_us
    false = replace(tokens, left=10, left_at_us=now, held=500)
    assert (await Worker(store, "blank").say(false)).slices[0].left == 1_000
    same = Worker(store, "same")
    same.epoch = first.epoch
    assert (await same.say(false)).slices[0].left == 1_000
    assert (await first.say(false)).slices[0].left == 1_000
    later = Worker(store, "later")
    await later.open()
    later.epoch = "another"
    assert (await later.say(false)).slices[0].left == 1_000


async def test_it_may_be_told_in_several_messages(store: SliceStore, backend: Backend) -> None:
    old, other = Worker(store, "old"), Worker(store, "other")
    parts = (rate(1_000, period_s=86_400), budget(1_000), slots(10))
    knows = await old.say(*parts, wishes=((Wish(0, 200, 200), Wish(1, 200, 200), Wish(2, 2, 2)),))
    await backend.lose()
    assert await other.take(parts[1], 100) == 100  # of one that seems to be full as yet
    assert not (await old.send(old.message(parts[0]))).known
    told = [
        replace(part, left=left, left_at_us=knows.now_us, held=held)
        for part, left, held in zip(parts, (500, 300, 8), (200, 200, 2), strict=True)
    ]
    assert [part.left for part in (await old.say(replace(told[0], spent=50))).slices] == [500]
    later = old.message(told[2], replace(told[1], back=200), rebuilds=True)
    answer = await old.send(later)
    assert [part.left for part in answer.slices] == [8, 400]  # and what was taken meanwhile stays taken
    assert await store.ask(later) == answer  # it is one message, that counts once
    assert [part.left for part in (await old.say(*parts)).slices] == [500, 400, 8]
    assert (await old.say(close=True)).known
    assert [part.left for part in (await other.say(*parts)).slices] == [650, 400, 10]


async def test_what_is_told_again_changes_nothing_but_what_is_in_hands(store: SliceStore) -> None:
    """As it is by a worker whose session ended before it knew whether that had been heard."""
    tokens, old = budget(1_000), Worker(store, "old")
    now = (await Worker(store).open()).now_us
    old.epoch = "another"
    assert (await old.say(replace(tokens, left=300, left_at_us=now - 5, held=100, open=10))).slices[0].left == 300
    await old.send(old.message(close=True))
    await old.open()
    again = old.message(replace(tokens, left=300, left_at_us=now - 5), rebuilds=True)
    assert (await old.send(again)).slices[0].left == 400


async def test_what_was_held_counts_as_being_in_the_bucket(store: SliceStore, advance: Advance) -> None:
    tokens = rate(100, period_s=10)
    now = (await Worker(store).open()).now_us
    old = Worker(store, "old")
    old.epoch = "another"
    advance(9)
    answer = await old.say(replace(tokens, left=50, left_at_us=now, held=40))
    assert answer.slices[0].left == 60
    assert (await old.part(tokens, back=40)).left == 100


async def test_nothing_is_lent_of_a_young_bucket_that_nobody_has_spoken_for(
    store: SliceStore, advance: Advance
) -> None:
    new, old = Worker(store, "new"), Worker(store, "old")
    old.epoch = "another"
    now = (await new.open()).now_us
    assert (await new.part(rate(1_000), want=8)).lent == 0
    assert (await old.part(rate(1_000), want=8, left=900, left_at_us=now - 5)).lent == 8
    assert (await new.part(rate(1_000), want=8)).lent == 8
    assert (await new.part(rate(1_000, limit="unspoken"), want=8)).lent == 0
    advance(REBUILD_S)
    assert (await new.part(rate(1_000, limit="unspoken"), want=8)).lent == 8
