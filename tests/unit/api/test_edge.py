"""The edge against an ASGI server of the test's own making: what it asks of `receive`, and when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from gateway.api.data.deadlines import Deadlines
from gateway.api.data.edge import HttpInbound
from gateway.api.data.requestid import RequestIds
from gateway.errors import BadRequestError, TooLargeError
from gateway.inflight import Abort

END = {"type": "http.request", "body": b"", "more_body": False}
GONE = {"type": "http.disconnect"}


class Client:
    """What a server says of one request, message by message; `asked` counts the calls of `receive`."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in messages:
            self.messages.put_nowait(message)
        self.asked = 0

    def receive(self) -> Awaitable[dict[str, Any]]:
        self.asked += 1
        return self.messages.get()


def part(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


def arrive(
    client: Client,
    *headers: tuple[bytes, bytes],
    host: bytes = b"gateway.test:8443",
    body_timeout_s: float = 10,
    request_timeout_s: float = 300,
) -> HttpInbound:
    task = asyncio.current_task()
    assert task is not None
    return HttpInbound(
        {"headers": [(b"host", host), *headers]},
        client.receive,
        task,
        asyncio.get_running_loop(),
        max_body=64,
        body_timeout_s=body_timeout_s,
        request_timeout_s=request_timeout_s,
        new_request_id=RequestIds(),
    )


async def ended(inbound: HttpInbound) -> None:
    """Wait, as a handler does, until the request is ended from outside."""
    with pytest.raises(asyncio.CancelledError):
        await asyncio.get_running_loop().create_future()
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
    inbound.finish()


async def test_a_body_is_whole_when_as_much_is_here_as_was_declared() -> None:
    client = Client(part(b'{"a"'), part(b":1}"))
    inbound = arrive(client, (b"content-length", b"7"))
    assert await inbound.body() == b'{"a":1}'
    assert client.asked == 3  # the third is the watch, and its answer is not waited for
    client.messages.put_nowait(END)
    client.messages.put_nowait(GONE)
    await ended(inbound)
    assert inbound.aborted is Abort.CLIENT


async def test_without_a_declared_length_the_end_is_waited_for() -> None:
    client = Client(part(b"{}"), END, GONE)
    inbound = arrive(client)
    assert await inbound.body() == b"{}"
    await ended(inbound)
    assert inbound.aborted is Abort.CLIENT


async def test_a_client_that_leaves_in_the_middle_of_its_body() -> None:
    inbound = arrive(Client(part(b"{"), GONE), (b"content-length", b"7"))
    with pytest.raises(asyncio.CancelledError):
        await inbound.body()
    assert inbound.aborted is Abort.CLIENT


@pytest.mark.parametrize("headers", [[(b"content-length", b"65")], []])
async def test_a_body_beyond_the_cap_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    inbound = arrive(Client(part(b"x" * 65)), *headers)
    with pytest.raises(TooLargeError):
        await inbound.body()


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ([(b"x-api-key", b"orgate_pt_abc")], b"Bearer orgate_pt_abc"),
        ([(b"x-api-key", b"sk-abc")], None),
        ([(b"x-api-key", b"eyJhbGciOi")], None),
        ([(b"x-api-key", b"orgate_pt_abc"), (b"authorization", b"Bearer eyJ")], b"Bearer eyJ"),
    ],
)
async def test_a_personal_token_may_come_where_tools_put_static_keys(
    headers: list[tuple[bytes, bytes]], taken: bytes | None
) -> None:
    inbound = arrive(Client(), *headers)
    assert inbound.authorization == taken
    inbound.finish()


async def test_a_body_declared_empty_is_no_call() -> None:
    inbound = arrive(Client(part(b"", more=False)), (b"content-length", b"0"))
    with pytest.raises(BadRequestError, match="empty"):
        await inbound.body()
    inbound.finish()


async def test_after_the_end_nothing_is_watched() -> None:
    client = Client(part(b"{}", more=False))
    inbound = arrive(client)
    await inbound.body()
    inbound.finish()
    client.messages.put_nowait(GONE)
    await asyncio.sleep(0)
    inbound.abort(Abort.REVOKED)
    assert inbound.aborted is None


async def test_the_sweep_ends_a_request_whose_body_is_late() -> None:
    inbound = arrive(Client(part(b"{")), (b"content-length", b"7"), body_timeout_s=0)
    Deadlines(asyncio.get_running_loop()).enter(inbound)
    with pytest.raises(asyncio.CancelledError):
        await inbound.body()
    assert inbound.aborted is Abort.BODY


@pytest.mark.parametrize("whole", [True, False])
async def test_the_sweep_ends_a_request_at_its_deadline(whole: bool) -> None:
    inbound = arrive(Client(part(b"{}", more=not whole)), request_timeout_s=0)
    deadlines = Deadlines(asyncio.get_running_loop())
    deadlines.enter(inbound)
    if whole:
        assert await inbound.body() == b"{}"
        await ended(inbound)
    else:
        with pytest.raises(asyncio.CancelledError):
            await inbound.body()
    assert inbound.aborted is Abort.DEADLINE


async def test_the_sweep_leaves_alone_what_is_in_time_or_over() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    client = Client(part(b"{}", more=False))
    early, late, last = arrive(client), arrive(client, request_timeout_s=0), arrive(Client(), request_timeout_s=0)
    for request in (early, late, last):
        deadlines.enter(request)
    deadlines.leave(late)
    await ended(last)  # the same sweep looked at all three
    assert (early.aborted, late.aborted, last.aborted) == (None, None, Abort.DEADLINE)


@pytest.mark.parametrize(("seconds", "left"), [(0.5, 0.5), (20, 20), (400, 300)])
async def test_of_two_deadlines_the_nearer_counts(seconds: float, left: float) -> None:
    inbound = arrive(Client())
    inbound.end_within(seconds)
    assert inbound.left_s() == pytest.approx(left, abs=0.1)
    assert inbound.due == min(inbound.arrived + 10, inbound.ends)
    inbound.finish()


async def test_a_near_deadline_is_kept_to_the_millisecond_without_a_sweep() -> None:
    inbound = arrive(Client())
    inbound.end_within(0.01)
    await ended(inbound)
    assert inbound.aborted is Abort.DEADLINE


@pytest.mark.parametrize(
    ("host", "name"), [(b"A.test:8443", "a.test"), (b"a.test", "a.test"), (b"[::1]:8443", "[::1]"), (b"", "")]
)
async def test_the_name_that_was_called(host: bytes, name: str) -> None:
    assert arrive(Client(), host=host).host == name


@pytest.mark.parametrize("host", [b"a test", b"a/b", b"a\x00", b"\xff", b"a\n"])
async def test_what_is_no_host_is_refused(host: bytes) -> None:
    with pytest.raises(BadRequestError, match="'host'"):
        arrive(Client(), host=host)


def test_request_ids_are_all_different_and_take_randomness_in_portions() -> None:
    drawn: list[int] = []

    def random(count: int) -> bytes:
        drawn.append(count)
        return bytes((number + len(drawn)) % 256 for number in range(count))

    new_id = RequestIds(random)
    ids = [new_id() for _ in range(64)]
    assert len(drawn) == 1
    assert new_id().startswith("req_")
    assert len(drawn) == 2
    real = RequestIds()
    assert len({real() for _ in range(1_000)}) == 1_000
    assert {len(each) for each in ids} == {28}
