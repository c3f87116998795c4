"""One connection to Redis, against servers that say what no real one can be made to say on demand."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import hiredis
import pytest

from gateway.limits.redis import WORDS, RedisSlices, reason
from gateway.limits.redis_library import library
from gateway.limits.redis_route import Single
from gateway.limits.redis_server import Server, Times
from gateway.limits.redis_wire import Address, Login, ReplyError, Wire, WireError, connect
from gateway.secret import Secret
from tenants.ids import OrgId
from tests.integration.redis.place import Caller, unavailable
from tests.kit.wait import eventually

HELLO = b"*6\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
HOST = "127.0.0.1"

STANDINGS = b"$4\r\n\x92\xa10\x90\r\n"
"""The last page of what is used: nothing."""

Answers = Callable[[list[bytes]], bytes]


@asynccontextmanager
async def serving(answers: Answers) -> AsyncIterator[int]:
    """A server that answers each command as `answers` says; '' for nothing. Gives its port."""

    ends: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        ends[task] = writer
        parser = hiredis.Reader()
        with suppress(OSError):
            while data := await reader.read(65_536):
                parser.feed(data)
                while (said := parser.gets()) is not False:
                    writer.write(answers(said))
        writer.transport.abort()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in ends.values():
            writer.transport.abort()
        await asyncio.gather(*ends)


def greeting(then: Answers) -> Answers:
    return lambda said: HELLO if said[0] == b"HELLO" else then(said)


def slices_at(port: int, times: Times | None = None) -> RedisSlices:
    async def find() -> Address:
        return HOST, port

    text = library()
    server = Server(find, Login(), times or Times(5, 5), text)
    return RedisSlices(Single("fake", server), text=text)


async def wire_to(port: int, timeout_s: float = 5) -> Wire:
    wire, _ = await connect((HOST, port), Login(), timeout_s=timeout_s, connect_timeout_s=5)
    return wire


@pytest.mark.parametrize("code", sorted(set(WORDS) - {"NOPERM", "READONLY", "MOVED"}))
async def test_each_error_is_an_outage_that_says_what_it_is(code: str) -> None:
    async with serving(greeting(lambda said: f"-{code} and so on\r\n".encode())) as port:
        slices = slices_at(port)
        assert await unavailable(slices) == f"{WORDS[code]} ({code} and so on)"
        await slices.aclose()


async def test_whatever_the_causes_do_an_outage_is_one_line_and_its_end_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    well: list[bool] = []
    answers = itertools.cycle((b"-OOM\r\n", b"-LOADING\r\n", b"-BUSY\r\n"))

    def answer(said: list[bytes]) -> bytes:
        return STANDINGS if well else next(answers)

    async with serving(greeting(answer)) as port:
        slices = slices_at(port)
        for _ in range(30):
            await unavailable(slices)
        well.append(True)
        assert await slices.usage(OrgId("acme")) == ()
        await slices.aclose()
    lost, back = caplog.messages
    assert lost.startswith("limits: Redis cannot be used: ")
    assert re.fullmatch(r"limits: Redis answers again, after \d+\.\d s, for 3 different causes", back)


async def test_an_error_that_nobody_foresaw_is_said_as_it_is() -> None:
    async with serving(greeting(lambda said: b"-WEIRD " + b"x" * 500 + b"\r\n")) as port:
        slices = slices_at(port)
        assert await unavailable(slices) == "WEIRD " + "x" * 194
        await slices.aclose()


async def test_what_does_not_speak_resp_is_left() -> None:
    async with serving(lambda said: b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        with pytest.raises(WireError, match="it does not speak RESP"):
            await wire_to(port)


async def test_what_was_not_asked_for_ends_the_connection() -> None:
    async with serving(greeting(lambda said: b"+OK\r\n+OK\r\n")) as port:
        wire = await wire_to(port)
        assert await wire.call("PING") == b"OK"
        await eventually(lambda: wire.closed, "it is closed")
        with pytest.raises(WireError, match="closed"):
            await wire.call("PING")


async def test_answers_come_in_the_order_of_their_commands() -> None:
    async with serving(greeting(lambda said: b"$%d\r\n%s\r\n" % (len(said[1]), said[1]))) as port:
        wire = await wire_to(port)
        asked = [wire.call("ECHO", str(number)) for number in range(300)]
        asked[7].cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        expected: list[object] = [str(number).encode() for number in range(300)]
        assert [one for one in answers if isinstance(one, bytes)] == expected[:7] + expected[8:]
        wire.close()


async def test_one_that_is_late_ends_all_that_wait() -> None:
    async with serving(greeting(lambda said: b"")) as port:
        wire = await wire_to(port, timeout_s=0.05)
        asked = [wire.call("PING") for _ in range(3)]
        for one in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(one, WireError)
            assert "no answer within 50 ms" in str(one)
        assert wire.closed


async def test_it_signs_in_with_name_and_password_and_shows_neither() -> None:
    told: list[list[bytes]] = []

    def answers(said: list[bytes]) -> bytes:
        told.append(said)
        return b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"

    async with serving(answers) as port:
        with pytest.raises(ReplyError) as caught:
            await connect((HOST, port), Login("orgate", Secret("pass-word")), timeout_s=5, connect_timeout_s=5)
        assert told == [[b"HELLO", b"2", b"AUTH", b"orgate", b"pass-word", b"SETNAME", b"orgate"]]
        assert "pass-word" not in reason(caught.value)


async def test_the_default_user_has_a_password_too() -> None:
    told: list[list[bytes]] = []

    def answers(said: list[bytes]) -> bytes:
        told.append(said)
        return HELLO

    async with serving(answers) as port:
        wire, hello = await connect((HOST, port), Login("", Secret("x")), timeout_s=5, connect_timeout_s=5)
        assert told[0][2:5] == [b"AUTH", b"default", b"x"]
        assert hello["role"] == "master"
        wire.close()


async def test_a_library_that_is_never_there_is_no_endless_loop() -> None:
    def answers(said: list[bytes]) -> bytes:
        return b"-ERR Function not found\r\n" if said[0] == b"FCALL" else b"+OK\r\n"

    async with serving(greeting(answers)) as port:
        slices = slices_at(port)
        assert await unavailable(slices) == "the library is loaded and yet not there"
        await slices.aclose()


async def test_many_who_miss_the_library_load_it_once() -> None:
    loads = 0

    def answers(said: list[bytes]) -> bytes:
        nonlocal loads
        if said[0] == b"FUNCTION":
            loads += 1
            return b"+OK\r\n"
        return b"-ERR Function not found\r\n" if not loads else b"-LOADING\r\n"

    async with serving(greeting(answers)) as port:
        slices = slices_at(port)
        await asyncio.gather(*(Caller(slices, name=f"w{n}").take() for n in range(20)), return_exceptions=True)
        assert loads == 1
        await slices.aclose()


async def test_nobody_waits_for_a_connection_longer_than_for_an_answer() -> None:
    async with serving(lambda said: b"") as port:  # takes connections and says nothing
        slices = slices_at(port, Times(answer_s=0.05, connect_s=30))
        async with asyncio.timeout(60):
            assert "no connection within 50 ms" in await unavailable(slices)
        await slices.aclose()
