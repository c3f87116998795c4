"""How many requests may wait for the loop, and what is said to those too many."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from gateway import admission
from gateway.admission import Admission


class Proto:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


class Watcher:
    """Granian's, as far as it is used."""

    def __init__(self, address: str) -> None:
        self.scope = {"client": (address, "50000")}
        self.proto = Proto()
        self.task: asyncio.Task[None] | None = None
        self.served = False

    def taskref(self, task: asyncio.Task[None]) -> None:
        self.task = task

    @property
    def refused(self) -> bool:
        return [m.get("status") for m in self.proto.sent] == [503, None]


async def serve(watcher: Watcher) -> None:
    watcher.served = True


async def test_one_address_leaves_room_for_others_and_all_who_wait_are_served() -> None:
    schedule = Admission(10).schedule(asyncio.get_running_loop(), contextvars.copy_context(), serve)
    greedy, other = [Watcher("203.0.113.9") for _ in range(20)], Watcher("203.0.113.10")
    for watcher in (*greedy, other):
        schedule(watcher)
    assert [w.refused for w in greedy] == [False] * 8 + [True] * 12  # four fifths
    assert not other.refused
    for _ in range(3):
        await asyncio.sleep(0)
    assert [w.served for w in greedy] == [True] * 8 + [False] * 12
    assert other.served
    again = Watcher("203.0.113.9")  # those that began wait no more
    schedule(again)
    assert not again.refused
    await asyncio.sleep(0)
    assert again.task is not None
    await again.task


async def test_a_refusal_says_when_to_come_back() -> None:
    schedule = Admission(0).schedule(asyncio.get_running_loop(), contextvars.copy_context(), serve)
    watcher = Watcher("203.0.113.9")
    schedule(watcher)
    head, body = watcher.proto.sent
    assert (b"retry-after", b"1") in head["headers"]
    assert b'"code":"unavailable"' in body["body"]
    assert body["more_body"] is False


async def test_who_has_asked_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[tuple[str, str]] = set()
    monkeypatch.setattr(admission, "asked", asked)
    schedule = Admission(0).schedule(asyncio.get_running_loop(), contextvars.copy_context(), serve)
    schedule(Watcher("203.0.113.9"))  # a refusal is an answer too
    nobody = Watcher("")
    nobody.scope.clear()  # over a Unix socket
    schedule(nobody)
    assert asked == {("203.0.113.9", "50000")}


async def test_addresses_with_nobody_waiting_are_forgotten() -> None:
    bound = Admission()
    schedule = bound.schedule(asyncio.get_running_loop(), contextvars.copy_context(), serve)
    for number in range(admission.ADDRESSES + 10):
        schedule(Watcher(f"address {number}"))
        if number % 100 == 0:
            for _ in range(3):
                await asyncio.sleep(0)
    assert len(bound._addresses) < 200
    for _ in range(3):
        await asyncio.sleep(0)
