"""Where a request's time went, as its ledger splits it: on a clock that a test sets."""

from __future__ import annotations

import asyncio

import pytest

from gateway.ledger import Ledger
from policies.facts import Action


class Clock:
    us = 1_000

    def now(self) -> float:
        return 1_000.0

    def monotonic_us(self) -> int:
        return self.us


class Timed:
    def __init__(self) -> None:
        self.clock = Clock()
        self.ledger = Ledger("req_0", "", Action.CHAT, self.clock)

    def after(self, microseconds: int) -> Ledger:
        self.clock.us += microseconds
        return self.ledger

    async def hold(self, microseconds: int) -> None:
        async def pause() -> None:
            self.clock.us += microseconds

        await self.ledger.waiting(pause())

    def split(self) -> dict[str, int]:
        receipt = self.ledger.receipt()
        names = ("overhead_us", "held_us", "queue_us", "first_byte_us", "stream_us", "relay_us", "total_us")
        return {name: getattr(receipt, name) for name in names}


async def test_a_streams_time_adds_up() -> None:
    timed = Timed()
    await timed.hold(5_000)
    timed.after(300).sending()
    timed.after(40).progress.note_sent()
    timed.after(9_000).head_arrived()
    assert timed.after(20).split() == (320, 40, 9_000)
    timed.ledger.progress.relay_us = 500
    timed.after(70_000)
    assert timed.split() == {
        "overhead_us": 320,
        "held_us": 5_000,
        "queue_us": 40,
        "first_byte_us": 9_000,
        "stream_us": 70_020,
        "relay_us": 500,
        "total_us": 84_360,
    }


def test_the_body_of_an_answer_in_one_piece_is_waited_for_too() -> None:
    timed = Timed()
    timed.after(300).sending()
    timed.after(40).progress.note_sent()
    timed.after(9_000).head_arrived()
    timed.after(600).body_arrived(123)
    assert timed.after(20).split() == (320, 40, 9_000)
    assert timed.ledger.bytes_out == 123
    assert timed.split()["overhead_us"] == 320


def test_what_was_sent_again_waited_until_the_last_time() -> None:
    timed = Timed()
    timed.after(10).sending()
    timed.after(40).progress.note_sent()
    timed.after(500).progress.note_sent()
    timed.after(1_000).head_arrived()
    assert timed.ledger.split() == (10, 540, 1_000)


@pytest.mark.parametrize("sent", [False, True])
def test_a_wait_in_vain_is_none_of_the_gateways_own_time(sent: bool) -> None:
    timed = Timed()
    timed.after(300).sending()
    if sent:
        timed.after(40).progress.note_sent()
    timed.after(8_000)
    split = timed.split()
    assert split["overhead_us"] == 300
    assert split["queue_us"] == (40 if sent else 8_000)
    assert (split["first_byte_us"], split["stream_us"]) == (0, 0)


def test_what_never_came_to_sending_is_all_the_gateways_own() -> None:
    timed = Timed()
    timed.after(700)
    split = timed.split()
    assert (split["overhead_us"], split["queue_us"], split["total_us"]) == (700, 0, 700)


async def test_a_hold_that_is_cut_short_counts_as_long_as_it_was() -> None:
    timed = Timed()

    async def cut() -> None:
        timed.clock.us += 30
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await timed.ledger.waiting(cut())
    assert (timed.split()["held_us"], timed.split()["overhead_us"]) == (30, 0)
