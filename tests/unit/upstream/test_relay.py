"""Stage 7's way out: what is prepared once, what each request adds, and what a transport's errors become."""

from __future__ import annotations

import math
import tracemalloc

import msgspec
import pytest
from jh2.hpack import Decoder

from gateway.errors import UpstreamError, UpstreamTimeoutError
from gateway.exchange import Call, Credential, Permit, Principal, Reservation, Route
from gateway.secret import Secret
from gateway.upstream.auth.tokens import ClientTokens
from gateway.upstream.errors import TotalTimeoutError
from gateway.upstream.relay import Progress, Relay, pass_on, read_answer
from policies.facts import Action
from tenants.models import ModelAlias
from tenants.snapshot import Tenant
from tests.unit.pipeline.world import ACME, RECORD, FakeHold, FakeStream, World, upstream_answer

UPSTREAM = RECORD.upstreams[0]


def route(credential: Credential, *, stream: bool = False, ends: float = math.inf, lane: int = 0) -> Route:
    call = Call(Action.COMPLETE, "code", stream, False, None, 20, {"prompt": msgspec.Raw(b'"def f("')})
    principal = Principal(ACME, "mem_1", frozenset(), "editor", "jti", "aud", 0, 9_999_999_999)
    alias = ModelAlias(ACME, "code", "up", "real-code")
    permit = Permit(principal, Tenant(RECORD), call, alias, "all")
    return Route(Reservation(permit, FakeHold()), UPSTREAM, "real-code", credential, ends, lane)


def key(version: int) -> Credential:
    return Credential(version, Secret(b"key-%d" % version))


async def sent(world: World, route: Route) -> Progress:
    progress = Progress(lambda: 42)
    relay = Relay(world, ClientTokens(world.grant, lambda: 0.0), lambda: 1_000.0)
    answer = await relay.open(route, progress)
    answer.cancel()
    return progress


async def test_what_is_coded_is_what_is_said() -> None:
    """HTTP/2 sends the block, HTTP/1.1 the headers: the same request."""
    world = World()
    world.answers(200, FakeStream())
    await sent(world, route(key(1), stream=True))
    outgoing = world.outgoing[0]
    fields = [(bytes(name), bytes(value)) for name, value in Decoder().decode(outgoing.block, raw=True)]
    assert fields == [
        (b":method", outgoing.method),
        (b":path", outgoing.path),
        (b":scheme", b"https"),
        (b":authority", b"model.test"),
        *outgoing.headers,
    ]
    assert (b"authorization", b"Bearer key-1") in outgoing.headers
    assert (b"accept", b"text/event-stream") in outgoing.headers
    assert outgoing.path == b"/v1/completions"


async def test_a_head_is_prepared_once_for_a_lease_and_never_outlives_it() -> None:
    world = World()
    world.answers(200, FakeStream())
    first, renewed = key(1), key(1)
    for credential in (first, first, renewed, key(2)):
        await sent(world, route(credential))
    blocks = [outgoing.block for outgoing in world.outgoing]
    assert blocks[0] is blocks[1]
    assert blocks[2] is not blocks[1]  # another lease, though it names the same version
    assert b"key-2" in blocks[3]
    assert len(world.transport.kept) == 1
    assert b"key-1" not in repr(world.transport.kept).encode()


async def test_the_end_and_the_lane_go_with_the_request() -> None:
    world = World()
    world.answers(200, FakeStream())
    progress = await sent(world, route(key(1), ends=77.0, lane=2))
    assert (world.outgoing[0].ends, world.outgoing[0].lane) == (77.0, 2)
    assert (progress.sent, progress.sent_us) == (True, 42)


async def test_the_whole_time_being_over_is_said_as_such() -> None:
    world = World()
    world.raises(TotalTimeoutError("late"))
    with pytest.raises(UpstreamTimeoutError, match="the request took longer than it may"):
        await sent(world, route(key(1)))


async def test_a_key_that_no_header_can_hold_is_no_crash() -> None:
    world = World()
    with pytest.raises(UpstreamError, match="set it again"):
        await sent(world, route(Credential(1, Secret(b"two\r\nlines"))))
    assert world.outgoing == []


EVENTS = b"event: token\ndata: {}\n\ndata: [DONE]\n\n"


async def passed(*pieces: bytes) -> bytes:
    sent: list[bytes] = []

    async def send(data: bytes) -> None:
        sent.append(data)

    call = route(key(1), stream=True).reservation.permit.call
    last = await pass_on(upstream_answer(200, FakeStream(*pieces)), call, Progress(lambda: 42), send)
    return b"".join(sent) + last


@pytest.mark.parametrize("opening", [b"", b"\xef\xbb\xbf", b"\n\n", b"\r\n", b": hello\n\n"])
async def test_events_may_arrive_by_the_byte(opening: bytes) -> None:
    whole = opening + EVENTS
    assert await passed(*(whole[at : at + 1] for at in range(len(whole)))) == whole
    for at in range(1, len(whole)):
        assert await passed(whole[:at], whole[at:]) == whole


@pytest.mark.parametrize(
    "pieces",
    [(b"{}",), (b"<html>",), (b"dat", b"e: 1"), (b"\n", b"{}"), (b"dat",), (b"eve", b"nts: 1\n\n"), (b"d",)],
)
async def test_what_is_no_event_stream_is_refused_however_it_is_cut(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(UpstreamError, match="not an event stream"):
        await passed(*pieces)


async def test_an_answer_in_the_smallest_pieces_takes_the_memory_of_its_bytes() -> None:
    body = b'{"choices": [' + b"1, " * 300_000 + b"1]}"
    pieces = [body[at : at + 2] for at in range(0, len(body), 2)]
    answer = upstream_answer(200, FakeStream())
    waiting = iter(pieces)

    async def read() -> bytes:
        return bytes(bytearray(next(waiting, b"")))

    answer.stream.read = read  # type: ignore[method-assign]
    tracemalloc.start()
    try:
        assert await read_answer(answer, Progress(lambda: 42)) == body
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(body)
