"""Who takes whose place, in any order of coming and going."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequestError
from gateway.inflight import Abort
from gateway.latest import Latest, Place, Turn, document_of
from tenants.ids import OrgId

HERE = Place(OrgId("acme"), "mem_1", "editor", "vim/9", b"dmain.py")
ELSEWHERE = [
    HERE._replace(org=OrgId("globex")),
    HERE._replace(member="mem_2"),
    HERE._replace(client="cli"),
    HERE._replace(version="vim/8"),
    HERE._replace(document=b"dother.py"),
    HERE._replace(document=b"smain.py"),
]


class Asked:
    """A request that notes what ended it."""

    peer = ("", "")

    def __init__(self) -> None:
        self.aborts: list[Abort] = []

    def abort(self, reason: Abort) -> None:
        self.aborts.append(reason)


async def test_the_newer_ends_the_older_and_waits_for_it() -> None:
    latest, older, newer = Latest(), Asked(), Asked()
    first = latest.enter(HERE, older, 1)
    await first.alone()
    second = latest.enter(HERE, newer, 2)
    assert (older.aborts, newer.aborts) == ([Abort.SUPERSEDED], [])
    waiting = asyncio.create_task(second.alone())
    await asyncio.sleep(0)
    assert not waiting.done()
    first.end()
    await waiting
    second.end()
    assert len(latest) == 0


async def test_one_that_leaves_early_leaves_the_place_to_its_holder() -> None:
    """The second is cancelled while it waits for the first; a third must still find and wait for what is there."""
    latest, requests = Latest(), [Asked(), Asked(), Asked()]
    first = latest.enter(HERE, requests[0], 0)
    second = latest.enter(HERE, requests[1], 1)
    waiting = asyncio.create_task(second.alone())
    await asyncio.sleep(0)
    third = latest.enter(HERE, requests[2], 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    second.end()
    first.end()
    await third.alone()
    assert [request.aborts for request in requests] == [[Abort.SUPERSEDED], [Abort.SUPERSEDED], []]
    assert len(latest) == 1
    third.end()
    assert len(latest) == 0


async def test_keystrokes_that_came_together_are_not_held_by_the_last() -> None:
    """Each ends the one before while that one waits still, as when a packet brings many of them."""
    latest = Latest()
    requests = [Asked() for _ in range(5)]
    turns = [latest.enter(HERE, request, number) for number, request in enumerate(requests)]
    waiting = [asyncio.create_task(turn.alone()) for turn in turns[1:]]
    await asyncio.sleep(0)
    for task in waiting[:-1]:
        task.cancel()
    await asyncio.wait(waiting[:-1])
    assert [task.cancelled() for task in waiting[:-1]] == [True] * 3
    for turn in turns[1:-1]:
        turn.end()
    held = [weakref.ref(request) for request in requests[:-1]]
    first, last, task = turns[0], turns[-1], waiting[-1]
    del requests, turns, waiting, turn
    gc.collect()
    assert [request() is None for request in held] == [False, True, True, False]
    first.end()
    await task
    last.end()
    assert len(latest) == 0


async def test_a_keystroke_that_comes_after_the_next_one_is_the_one_that_ends() -> None:
    """Its body was slow. It is told to end, and waits for that."""
    latest, slow, quick = Latest(), Asked(), Asked()
    holder = latest.enter(HERE, quick, 2)
    late = latest.enter(HERE, slow, 1)
    assert (slow.aborts, quick.aborts) == ([Abort.SUPERSEDED], [])
    waiting = asyncio.create_task(late.alone())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    late.end()
    assert len(latest) == 1
    holder.end()
    assert len(latest) == 0


@pytest.mark.parametrize("there", ELSEWHERE)
async def test_no_other_place_is_touched(there: Place) -> None:
    latest, mine, theirs = Latest(), Asked(), Asked()
    turns = [latest.enter(HERE, mine, 1), latest.enter(there, theirs, 2)]
    for turn in turns:
        await turn.alone()
    assert (mine.aborts, theirs.aborts) == ([], [])


@given(st.lists(st.tuples(st.sampled_from([HERE, *ELSEWHERE]), st.booleans()), max_size=40))
def test_each_place_has_one_holder_and_the_end_finds_none(steps: list[tuple[Place, bool]]) -> None:
    """`steps`: somebody comes to a place, or the oldest there goes."""
    latest = Latest()
    turns: dict[Place, list[tuple[Turn, Asked]]] = {}
    for place, comes in steps:
        there = turns.setdefault(place, [])
        if comes:
            asked = Asked()
            there.append((latest.enter(place, asked, 0), asked))
        elif there:
            there.pop(0)[0].end()
        for each in turns.values():
            assert all(asked.aborts == [Abort.SUPERSEDED] for _, asked in each[:-1])
            assert not each or each[-1][1].aborts == []
    assert len(latest) == sum(1 for each in turns.values() if each)
    for each in turns.values():
        for turn, _ in each:
            turn.end()
    assert len(latest) == 0


@pytest.mark.parametrize("document", [b"", b"a b", b"x" * 129, b"\xc3\xa9", b"a\x00b", b"a\n"])
def test_a_document_that_is_none_is_refused(document: bytes) -> None:
    with pytest.raises(BadRequestError, match="1 to 128 visible ASCII") as caught:
        document_of(document, b"session", None)
    assert caught.value.param == "x-orgate-document"
    assert "session" not in caught.value.message
    assert document_of(None, document, None) is None  # another header was not meant for the gateway


def test_a_session_stands_in_for_a_document_and_is_never_taken_for_one() -> None:
    assert document_of(None, None, b"copilot-ghost") is None
    ghost, panel = (document_of(None, b"s-1", intent) for intent in (b"copilot-ghost", b"copilot-panel"))
    assert len({ghost, panel, document_of(None, b"s-1", None), document_of(b"s-1", None, None)}) == 4
    assert document_of(b"main.py", b"s-1", None) == document_of(b"main.py", b"s-2", None)
    assert document_of(None, b"s-1", b"not visible") == document_of(None, b"s-1", None)
