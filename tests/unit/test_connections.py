"""Which connections a worker ends, and how: a rule, and real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import connections
from gateway.connections import (
    Connection,
    Peer,
    Unlistened,
    accepted,
    beginning,
    cut,
    keep_house,
    listening,
    to_end,
)


def connection(number: int, silent_s: float) -> Connection:
    return Connection(number, ("198.51.100.1", str(number)), silent_s, silent_s)


def chosen(found: list[Connection], busy: set[int] = frozenset(), **rule: float) -> list[int]:  # type: ignore[assignment]
    peers = {("198.51.100.1", str(number)) for number in busy}
    rule = {"idle_s": 100, "most": 20, **rule}
    return [c.fd for c in to_end(found, peers, idle_s=rule["idle_s"], most=int(rule["most"]))]


def test_the_silent_are_ended_and_the_busy_are_not() -> None:
    found = [connection(1, 100), connection(2, 99.9), connection(3, 500), connection(4, 500)]
    assert sorted(chosen(found, {4})) == [1, 3]


def test_while_there_is_room_nobody_gives_way() -> None:
    assert chosen([connection(number, 50) for number in range(18)]) == []


def test_when_nearly_full_the_silent_longest_give_way_until_a_tenth_is_free() -> None:
    found = [connection(number, number) for number in range(1, 21)]
    assert chosen(found) == [20, 19, 18, 17]  # 20 less 18, and two more


def test_those_that_just_spoke_and_the_busy_never_give_way() -> None:
    found = [connection(number, 0.9) for number in range(1, 11)] + [
        connection(number, 50) for number in range(11, 21)
    ]
    assert chosen(found, set(range(12, 21))) == [11]


def test_only_those_that_never_asked_and_spoke_lately_are_on_their_way_to_a_request() -> None:
    found = [connection(1, 0.0), connection(2, 1.9), connection(3, 2.0), connection(4, 0.1)]
    never = {("198.51.100.1", "4"), ("198.51.100.1", "9")}
    assert [c.fd for c in beginning(found, never, patience_s=2.0)] == [1, 2]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def port_of(server: socket.socket) -> int:
    found: int = server.getsockname()[1]
    return found


def test_the_kernel_tells_who_is_connected_and_for_how_long_they_are_silent(listener: socket.socket) -> None:
    port = port_of(listener)
    assert listening(port) == [listener.fileno()]
    with socket.create_connection(("127.0.0.1", port)) as client:
        served, address = listener.accept()
        with served:
            (found,) = accepted(port)  # not the client's end, whose port is another
            assert found.fd == served.fileno()
            assert found.peer == (address[0], str(address[1]))
            client.sendall(b"x")
            assert served.recv(1) == b"x"
            assert accepted(port)[0].heard_s < 5
            assert cut([found]) == 1
            assert client.recv(1) == b""
            assert served.recv(1) == b""
    assert accepted(port) == []


def test_a_descriptor_that_is_another_connections_by_now_is_left_alone(listener: socket.socket) -> None:
    port = port_of(listener)
    with socket.create_connection(("127.0.0.1", port)) as client:
        served, _ = listener.accept()
        with served:
            (found,) = accepted(port)
            assert cut([Connection(found.fd, ("127.0.0.1", "1"), 0, 0)]) == 0
            served.sendall(b"still here")
            assert client.recv(10) == b"still here"


async def test_connections_that_are_gone_are_forgotten_among_those_that_asked(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not one that came and asked while the others were looked at."""
    port = port_of(listener)
    gone, late = ("198.51.100.1", "1"), ("198.51.100.1", "2")
    known: asyncio.Future[set[Peer]] = asyncio.get_running_loop().create_future()

    def look(port: int) -> list[Connection]:
        found = accepted(port)
        asked.add(late)
        return found

    def busy() -> set[Peer]:
        if not known.done():
            known.set_result(asked.copy())
        return set()

    asked: set[Peer] = set()
    monkeypatch.setattr(connections, "asked", asked)
    monkeypatch.setattr(connections, "LOOK_S", 0)
    monkeypatch.setattr(connections, "accepted", look)
    with socket.create_connection(("127.0.0.1", port)) as client:
        served, _ = listener.accept()
        with served:
            there = ("127.0.0.1", str(client.getsockname()[1]))
            asked.update({there, gone})
            house = asyncio.create_task(keep_house(port, busy, idle_s=100, most=100))
            assert await known == {there, late}
            house.cancel()
            await asyncio.gather(house, return_exceptions=True)


async def test_a_listener_is_taken_away_from_under_its_loop(listener: socket.socket, tmp_path: Path) -> None:
    """The loop that accepts on it notices nothing; another holder of the same socket goes on accepting."""
    loop = asyncio.get_running_loop()
    port = port_of(listener)
    listener.setblocking(False)
    with socket.socket(fileno=os.dup(listener.fileno())) as successor:
        successor.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        await asyncio.sleep(0)
        door = Unlistened(listener.fileno(), tmp_path)
        assert not list(tmp_path.iterdir())
        with socket.create_connection(("127.0.0.1", port)):
            taken, _ = await loop.sock_accept(successor)
            taken.close()
            assert not accepting.done()
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        assert [door.dropped] == [False]
        listener.close()
        assert [door.dropped] == [True]
        door.refuse()
        door.close()
        with socket.socket() as late:  # refused, like any port nobody listens on
            assert late.connect_ex(("127.0.0.1", port)) != 0
