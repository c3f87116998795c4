"""A request ends when its time is over: the caller's, the organization's, the upstream's, the server's.

The server's own is in `test_ended_by_the_gateway`. No test measures time: each deadline is far shorter than the
server's, and what it ends would else go on for as long as the test lets it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.gateway.bed import Bed, lay, prepare
from tests.integration.gateway.invariants import Asked
from tests.integration.gateway.test_ended_by_the_gateway import error_event
from tests.integration.gateway.typists import organize, settle_on, type_in
from tests.integration.gateway.world import SSE_HEAD, Log, World, bind, sse
from tests.kit.upstream import Request

LATE: dict[str, Any] = {"status": 504, "sent": True}
UNSENT: dict[str, Any] = {"status": 504, "sent": False, "prompt_tokens": 0, "completion_tokens": 0}


@pytest.fixture(scope="module")
def hasty(world: World) -> World:
    """An organization for the tests that change its deadline."""
    return organize(world)


async def begun(bed: Bed, headers: dict[str, str], **fields: Any) -> tuple[Asked, Request]:
    number = len(bed.upstream.requests) + 1
    asked = type_in(bed, headers, **fields)
    return asked, await (await bed.upstream.arrived(number)).complete()


async def end_both(bed: Bed, headers: dict[str, str], **fields: Any) -> None:
    """One request that is silent and one in mid-stream: both sides of both are ended."""
    (silent, first), (halfway, second) = [await begun(bed, headers, **fields) for _ in range(2)]
    for request in (first, second):  # what is left of it travels on
        assert 0 < int(request.headers["x-request-timeout-ms"]) <= 1_500
        assert "grpc-timeout" not in request.headers
    second.respond(200, SSE_HEAD)
    second.send(sse("word"))
    await silent.stream.complete()
    assert silent.stream.status == 504
    assert silent.stream.json()["error"]["code"] == "upstream_timeout"
    await halfway.stream.complete()
    assert halfway.stream.status == 200
    assert halfway.stream.body.startswith(sse("word"))
    assert error_event(halfway.stream.body)["code"] == "upstream_timeout"
    for request in (first, second):
        await request.reset()
    silent.outcome, silent.entry = "upstream_timeout", {**LATE, "completion_tokens": 0}
    halfway.outcome, halfway.entry = "upstream_timeout", {**LATE, "completion_tokens": 1}


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-timeout-ms": "1500"},
        {"grpc-timeout": "1500m"},
        {"x-request-timeout-ms": "60000", "grpc-timeout": "1500000u"},
    ],
    ids="+".join,
)
async def test_the_callers_own(world: World, headers: dict[str, str]) -> None:
    async with lay(world, slots=3) as bed:
        await end_both(bed, headers)
        await bed.verify(resets=2)


async def test_the_organizations(hasty: World) -> None:
    """What is in flight keeps the deadline it began with, and no caller can ask for more."""
    async with lay(hasty, slots=3) as bed:
        await asyncio.to_thread(settle_on, hasty.owner, deadline_ms=1_500)
        try:
            await end_both(bed, {"x-request-timeout-ms": "60000"})
        finally:
            await asyncio.to_thread(settle_on, hasty.owner, deadline_ms=0)
        await bed.verify(resets=2)


async def test_the_upstreams(world: World) -> None:
    """That of another upstream at the same address leaves the canary alone."""
    async with lay(world) as bed:
        model = await asyncio.to_thread(bind, world.owner, world.pki, bed.upstream.url, total_timeout_ms=1_500)
        await end_both(bed, {}, model=model)
        bed.connections = 2
        await bed.verify(resets=2)


async def test_in_the_line_for_the_upstream_nothing_is_sent(world: World) -> None:
    """The upstream takes one stream at a time, and the canary has it."""
    async with lay(world, slots=3, max_concurrent_streams=1) as bed:
        late = type_in(bed, {"x-request-timeout-ms": "300"})
        await late.stream.complete()
        assert late.stream.status == 504
        assert late.stream.json()["error"]["code"] == "upstream_timeout"
        late.outcome, late.entry = "upstream_timeout", UNSENT
        await bed.verify(resets=0)
        assert b"".join(request.body for request in bed.upstream.requests).count(late.request_id.encode()) == 0


async def test_while_the_caller_uploads_nothing_is_sent(world: World) -> None:
    async with lay(world) as bed:
        late, headers, body = prepare(world.ada.session, bed.model)
        late.stream = bed.client.open("POST", "/v1/completions", [*headers, ("x-request-timeout-ms", "300")])
        bed.asked.append(late)
        late.stream.send(body[:10])
        await late.stream.finished()
        assert late.stream.status == 504
        late.outcome, late.entry = "upstream_timeout", UNSENT
        await bed.verify(resets=0)
        assert len(bed.upstream.requests) == 2


async def test_a_nanosecond_is_over_before_anything_is_sent(world: World) -> None:
    async with lay(world) as bed:
        late = type_in(bed, {"grpc-timeout": "1n"})
        await late.stream.complete()
        assert late.stream.status == 504
        late.outcome, late.entry = "upstream_timeout", UNSENT
        await bed.verify(resets=0)
        assert len(bed.upstream.requests) == 2


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-request-timeout-ms", "0"),
        ("x-request-timeout-ms", "-1"),
        ("x-request-timeout-ms", "1.5"),
        ("x-request-timeout-ms", "soon"),
        ("grpc-timeout", "0S"),
        ("grpc-timeout", "123456789S"),
        ("grpc-timeout", "5s"),
        ("grpc-timeout", "5"),
        ("x-orgate-document", "two words"),
        ("x-orgate-document", "x" * 129),
    ],
)
async def test_what_cannot_be_read_is_refused_and_never_ignored(world: World, header: str, value: str) -> None:
    log = await asyncio.to_thread(Log, world.owner)
    async with await world.connect() as client:
        asked, headers, body = prepare(world.ada.session, "nothing-is-asked-of-it")
        stream = client.request("POST", "/v1/completions", [*headers, (header, value)], body)
        await stream.complete()
        assert stream.status == 400
        error = stream.json()["error"]
        assert (error["type"], error["code"], error["param"]) == (
            "invalid_request_error",
            "invalid_request",
            header,
        )
        assert header in error["message"]
        assert stream.headers["x-request-id"] == asked.request_id
        listing = client.request("GET", "/v1/models", [*world.ada.session.bearer.items(), (header, value)])
        assert (await listing.complete()).status == 400
        nobody = client.request("POST", "/v1/completions", [(header, value)], body)
        assert (await nobody.complete()).status == 401
    entry = (await log.of([asked.request_id]))[asked.request_id]
    assert (entry["outcome"], entry["status"], entry["error"]) == ("refused", 400, "invalid_request")


async def test_two_that_differ_are_refused(world: World) -> None:
    async with await world.connect() as client:
        _, headers, body = prepare(world.ada.session, "nothing-is-asked-of-it")
        twice = [("x-request-timeout-ms", "1000"), ("x-request-timeout-ms", "2000")]
        stream = client.request("POST", "/v1/completions", [*headers, *twice], body)
        assert (await stream.complete()).status == 400
        assert "given twice" in stream.json()["error"]["message"]
