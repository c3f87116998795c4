"""What a killed worker leaves behind, and what becomes of it: charged to the unit, at whatever moment it died."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
from pathlib import Path

import pytest

from gateway.errors import LimitExceededError
from gateway.exchange import Hold, Used
from gateway.limits.book import FIRST, SLOT, AccountLine, Book, written
from gateway.limits.protocol import LEASE_S, Part, SliceAnswer, SliceAsk
from gateway.limits.slices import SlicedLimits
from gateway.limits.undertaker import Undertaker, bury
from tenants.models import LimitUnit
from tests.contract.test_limit_store import ACME, FakeClock, admitted, claim, slots
from tests.unit.limits.wire import WINDOW, Wire, budget, grown_up, standing, ticks, used


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def wire(clock: FakeClock) -> Wire:
    return Wire(await grown_up(clock))


@pytest.fixture
def limits(wire: Wire, clock: FakeClock, tmp_path: Path) -> SlicedLimits:
    return SlicedLimits("w1", wire, clock=clock, folder=tmp_path)


def kill(limits: SlicedLimits, folder: Path) -> None:
    """As the kernel does it: what was written is there, and the lock is free."""
    left = (folder / limits._worker).read_bytes()
    limits._book.close(keep=False)
    (folder / limits._worker).write_bytes(left)


def part(limit: str, subject: str = "") -> Part:
    return Part(limit, subject, LimitUnit.TOKENS, 10, 10, 0, *WINDOW)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    book = Book(tmp_path / "w1")
    account = book.account(ACME, "w1")
    places = [book.bucket(account, part(f"l{n}")) for n in range(3 * FIRST)]  # it grows meanwhile
    for number, at in enumerate(places):
        book.words[at + 1] = number
    book.session(account, AccountLine(ACME, "w1", "s", "e"), 7, 6)
    book.free(places[5])
    [found] = written((tmp_path / "w1").read_bytes())
    assert (found.line, found.sent, found.acked) == (AccountLine(ACME, "w1", "s", "e"), 7, 6)
    assert {b.part.limit: b.total for b in found.buckets} == {
        f"l{number}": number for number in range(3 * FIRST) if number != 5
    }
    again = book.bucket(account, part("again"))
    assert again == places[5]
    assert book.words[again + 1] == 0
    book.close(keep=True)


def test_a_book_in_memory_keeps_its_figures_as_it_grows() -> None:
    book = Book(None)
    account = book.account(ACME, "w1")
    first = book.bucket(account, part("first"))
    book.words[first + 1] = 42
    for number in range(2 * FIRST):
        book.bucket(account, part(f"l{number}"))
    assert book.words[first + 1] == 42
    book.close(keep=False)


def test_a_full_disk_ends_the_book_and_not_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    book = Book(tmp_path / "w1")
    account = book.account(ACME, "w1")
    first = book.bucket(account, part("first"))
    book.words[first + 1] = 42

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gateway.limits.book.os.posix_fallocate", full)
    for number in range(2 * FIRST):
        book.bucket(account, part(f"l{number}"))
    assert book.words[first + 1] == 42
    assert "No space left on device" in caplog.text
    assert not list(tmp_path.iterdir())  # it would say what was so before
    book.close(keep=True)


def test_a_changed_limit_keeps_its_figures(tmp_path: Path) -> None:
    book = Book(tmp_path / "w1")
    account = book.account(ACME, "w1")
    at = book.bucket(account, part("one"))
    book.words[at + 1] = 9
    book.rename(at, account, part("two"))
    [found] = written((tmp_path / "w1").read_bytes())
    [bucket] = found.buckets
    assert (bucket.part.limit, bucket.total) == ("two", 9)
    book.close(keep=True)


def test_nothing_stays_of_whom_it_named_before(tmp_path: Path) -> None:
    """A member who is erased is in no file any more."""
    book = Book(tmp_path / "w1")
    opening = SliceAsk(ACME, "w1", "", "", 1, parts=(part("each", "mem_erased"),))
    account = book.account(ACME, "w1")
    book.session(account, AccountLine(ACME, "w1", opening=opening))
    at = book.bucket(account, part("each", "mem_erased"))
    assert (tmp_path / "w1").read_bytes().count(b"mem_erased") == 2
    book.session(account, AccountLine(ACME, "w1", "s1"), 1, 1)
    book.free(at)
    assert b"mem_erased" not in (tmp_path / "w1").read_bytes()
    book.close(keep=False)


def test_what_was_being_written_is_not_there(tmp_path: Path) -> None:
    book = Book(tmp_path / "w1")
    account = book.account(ACME, "w1")
    at = book.bucket(account, part("one"))
    book.bucket(account, part("x" * SLOT))  # too long for any limit's name: left to the lease
    book.words[at] = 0
    [found] = written((tmp_path / "w1").read_bytes())
    assert found.buckets == ()
    book.words[account + 4] = 10_000
    assert not list(written((tmp_path / "w1").read_bytes()))
    assert not list(written(b"\x01" * (SLOT + 3)))  # anything at all
    book.close(keep=False)
    assert not list(tmp_path.iterdir())


async def test_a_dead_worker_is_charged_what_it_spent_and_the_rest_returns(
    limits: SlicedLimits, wire: Wire, tmp_path: Path
) -> None:
    wanted = [budget(1, 1_000, limit="requests", unit=LimitUnit.REQUESTS), budget(100, 100_000), slots(300)]
    holds: list[Hold] = []
    for number in range(200):
        hold = await limits.reserve(wanted)
        if number == 100:
            await ticks(limits)  # half of it has been said
        hold.spending(Used(number))
        holds.append(hold)
    for hold in holds[:50]:
        hold.settle(Used(60))
    holds[50].refund()
    spent = 50 * 60 + sum(range(51, 200))
    kill(limits, tmp_path)
    assert await bury(tmp_path, wire.owner) == 1
    for limit, units in (("requests", 199), ("tokens", spent), ("at-once", 0)):
        found = await standing(wire.owner, limit)
        assert (found.amount - found.level, found.lent) == (units, 0)
    assert not list(tmp_path.iterdir())


async def test_a_dead_worker_is_charged_in_the_units_it_spent(
    limits: SlicedLimits, wire: Wire, tmp_path: Path
) -> None:
    """The limit was one of bytes, and is one of tokens now."""
    before, now = (budget(100, 1_000, limit="same", unit=unit) for unit in (LimitUnit.BYTES, LimitUnit.TOKENS))
    held = await limits.reserve([before])
    (await limits.reserve([now])).settle(Used(70))
    held.settle(Used(bytes=30))
    kill(limits, tmp_path)
    assert await bury(tmp_path, wire.owner) == 1
    found = {one.unit: one.used for one in await wire.owner.usage(ACME) if one.limit == "same"}
    assert found == {LimitUnit.BYTES: 30, LimitUnit.TOKENS: 70}


@pytest.mark.parametrize("counted", [False, True])
async def test_a_message_that_was_under_way_counts_once(
    limits: SlicedLimits, wire: Wire, tmp_path: Path, counted: bool
) -> None:
    wanted = [budget(10, 10_000)]
    for _ in range(5):
        (await limits.reserve(wanted)).settle(Used(7))
    hold = await limits.reserve([budget(1, 10_000)])
    if counted:
        wire.lose_answers = 1
        await limits.sync()
        await limits.sync()
    else:
        wire.gate.clear()
        wire.arrived.clear()
        ticking = asyncio.ensure_future(ticks(limits))
        await wire.arrived.wait()
        ticking.cancel()
    assert any(session.message is not None for session in limits._sessions.values())
    hold.spending(Used(3))
    kill(limits, tmp_path)
    assert await bury(tmp_path, wire.owner) == 1
    assert await used(wire.owner, "tokens") == 38
    assert (await standing(wire.owner, "tokens")).lent == 0


@pytest.mark.parametrize("counted", [False, True])
async def test_a_worker_that_dies_as_it_opens_its_session_leaves_nothing_lent(
    limits: SlicedLimits, wire: Wire, tmp_path: Path, counted: bool
) -> None:
    wire.lose_answers, wire.down = (1, False) if counted else (0, True)
    hold = await limits.reserve([budget(10, 10_000)])
    hold.settle(Used(6))
    wire.down = False
    kill(limits, tmp_path)
    assert await bury(tmp_path, wire.owner) == 1
    assert await used(wire.owner, "tokens") == 6
    assert (await standing(wire.owner, "tokens")).lent == 0


async def test_a_living_workers_book_is_left_alone(limits: SlicedLimits, wire: Wire, tmp_path: Path) -> None:
    await limits.reserve([budget(10, 10_000)])
    assert await bury(tmp_path, wire.owner) == 0
    assert (await standing(wire.owner, "tokens")).lent > 0
    await limits.close()
    assert not list(tmp_path.iterdir())


async def test_a_worker_that_could_not_say_goodbye_leaves_its_book(
    limits: SlicedLimits, wire: Wire, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hold = await limits.reserve([budget(10, 10_000)])
    hold.settle(Used(8))
    wire.down = True
    await limits.close()
    assert [path.name for path in tmp_path.iterdir()] == ["w1"]
    caplog.clear()
    assert await bury(tmp_path, wire.owner) == 1
    assert await used(wire.owner, "tokens") == 8
    assert caplog.messages == ["limits: settled for worker w1, which ended unheard: 1 accounts"]  # it did not die


async def test_a_book_waits_for_a_store_that_is_away(limits: SlicedLimits, wire: Wire, tmp_path: Path) -> None:
    (await limits.reserve([budget(10, 10_000)])).settle(Used(8))
    kill(limits, tmp_path)
    wire.down = True
    assert await bury(tmp_path, wire) == 0
    wire.down, wire.lose_answers = False, 1
    assert await bury(tmp_path, wire) == 0  # counted, and not known to be
    assert await bury(tmp_path, wire) == 1
    assert await used(wire.owner, "tokens") == 8


async def test_after_the_lease_the_store_has_settled_by_itself(
    limits: SlicedLimits, wire: Wire, clock: FakeClock, tmp_path: Path
) -> None:
    hold = await limits.reserve([budget(10, 10_000)])
    await ticks(limits)
    hold.spending(Used(4))
    kill(limits, tmp_path)
    clock.advance(LEASE_S)
    before = await used(wire.owner, "tokens")
    assert await bury(tmp_path, wire.owner) == 1
    assert await used(wire.owner, "tokens") == before


async def test_an_account_that_was_never_opened_is_no_news(wire: Wire, clock: FakeClock, tmp_path: Path) -> None:
    limits = SlicedLimits("w1", wire, clock=clock, folder=tmp_path)
    limits._session(ACME)
    kill(limits, tmp_path)
    assert await bury(tmp_path, wire) == 1
    assert not wire.messages


@pytest.mark.parametrize("seed", range(12))
async def test_at_whatever_moment_it_dies(seed: int, wire: Wire, clock: FakeClock, tmp_path: Path) -> None:
    chance = random.Random(seed)
    limits = SlicedLimits("w1", wire, clock=clock, folder=tmp_path)
    spent, holds = 0, []
    for _ in range(40):
        if chance.random() < 0.1:
            wire.lose_answers = 1
        try:
            hold = await limits.reserve([budget(chance.randrange(1, 50), 100_000)])
        except LimitExceededError:
            continue
        holds.append((hold, 0))
        if chance.random() < 0.7:
            hold, before = holds.pop(chance.randrange(len(holds)))
            more = before + chance.randrange(40)
            spent += more - before
            if chance.random() < 0.5:
                hold.settle(Used(more))
            else:
                hold.spending(Used(more))
                holds.append((hold, more))
        if chance.random() < 0.3:
            await limits.sync()
    if chance.random() < 0.5:
        wire.lose_answers = 1
        await limits.sync()
    kill(limits, tmp_path)
    assert await bury(tmp_path, wire.owner) == 1
    assert await used(wire.owner, "tokens") == spent
    assert (await standing(wire.owner, "tokens")).lent == 0


async def test_the_undertaker_looks_when_a_worker_has_left(
    limits: SlicedLimits, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.limits.undertaker.LOOK_S", 0.001)
    monkeypatch.setattr("gateway.limits.undertaker.LEASE_S", 20)
    begun, closed = asyncio.Event(), asyncio.Event()

    class Telling:
        async def ask(self, message: SliceAsk) -> SliceAnswer:
            answer = wire.owner.answer(message)
            if message.close:
                closed.set()
            return answer

    (await limits.reserve([budget(10, 10_000)])).settle(Used(8))
    undertaker = Undertaker(tmp_path, Telling())
    look = asyncio.to_thread

    async def looking(*args: object) -> object:
        begun.set()
        return await look(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("gateway.limits.undertaker.asyncio.to_thread", looking)
    running = asyncio.ensure_future(undertaker.run())
    await begun.wait()
    left = (tmp_path / "w1").read_bytes()
    undertaker.left("w1")  # its stream is closed; the kernel has not come to its files yet
    limits._book.close(keep=False)
    (tmp_path / ".w1").write_bytes(left)
    (tmp_path / ".w1").rename(tmp_path / "w1")
    async with asyncio.timeout(60):
        await closed.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await used(wire.owner, "tokens") == 8


async def test_a_folder_that_is_not_there_is_empty(wire: Wire, tmp_path: Path) -> None:
    assert await bury(tmp_path / "nowhere", wire) == 0


async def test_two_undertakers_do_not_settle_for_one_worker(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "w1"
    path.write_bytes(b"")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert await bury(tmp_path, wire) == 0
    assert await bury(tmp_path, wire) == 1
    assert not os.listdir(tmp_path)


async def test_the_book_is_the_owners_alone(limits: SlicedLimits, tmp_path: Path) -> None:
    assert (tmp_path / "w1").stat().st_mode & 0o777 == 0o600
    assert await admitted(limits, [claim(amount=3)], 5) == 3
    await limits.close()


async def test_a_worker_says_so_when_its_folder_cannot_be_made(wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        SlicedLimits("w1", wire, folder=tmp_path / "file")
