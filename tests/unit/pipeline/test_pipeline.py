"""The pipeline's promises: order, one settlement and one receipt for every outcome, nothing charged unsent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from msgspec import structs

from gateway.api.data.openai import decoder
from gateway.errors import (
    BadRequestError,
    ForbiddenError,
    GatewayError,
    LimitExceededError,
    SuspendedError,
    UnauthenticatedError,
    UnavailableError,
    UnknownModelError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamTimeoutError,
)
from gateway.exchange import Outcome
from gateway.inflight import Abort, InFlight
from gateway.upstream.transport import UpstreamAnswer
from policies.facts import Action, Role
from policies.rules import Effect
from tenants.ids import OrgId
from tenants.models import Org, OrgRule, State
from tenants.snapshot import Snapshot, TenantRecord
from tests.unit.pipeline.world import (
    ACME,
    BODY,
    KEY,
    PLAIN,
    PROMPT,
    RECORD,
    RULE,
    USAGE,
    FakeAnswer,
    FakeInbound,
    FakeStream,
    World,
    run,
    settled,
)


async def test_a_stream_is_served_and_settled_on_its_usage() -> None:
    world = World()
    stream = world.answers(200, FakeStream(b'data: {"choices":[{"text":"x"}]}\n\n', USAGE))
    answer = await run(world)
    assert (answer.status, answer.done) == (200, True)
    assert b"usage" not in answer.body
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert world.hold.ends == [9]
    assert stream.closed
    receipt = settled(world)
    assert (receipt.outcome, receipt.prompt_tokens, receipt.completion_tokens) == (Outcome.SERVED, 7, 2)
    assert (receipt.model, receipt.upstream_model, receipt.key_version, receipt.rule) == (
        "code",
        "real-code",
        3,
        "all",
    )
    assert receipt.tokens_counted is False
    assert answer.headers[b"x-orgate-model"] == b"real-code"
    assert answer.headers[b"x-ratelimit-remaining-requests"] == b"9"
    own_ms, queue_ms, upstream_ms = map(
        b"%.3f".__mod__, (receipt.overhead_us / 1000, receipt.queue_us / 1000, receipt.first_byte_us / 1000)
    )
    assert answer.headers[b"x-orgate-overhead-ms"] == own_ms
    assert answer.headers[b"server-timing"] == b"gateway;dur=%b, queue;dur=%b, upstream;dur=%b" % (
        own_ms,
        queue_ms,
        upstream_ms,
    )
    assert 0 < receipt.relay_us < receipt.stream_us < receipt.total_us
    assert world.requests[0].headers["authorization"] == "Bearer " + KEY.decode()
    assert b"stream_options" in world.requests[0].content


async def test_a_json_answer_is_settled_before_it_is_sent() -> None:
    world = World()
    world.answers(
        200,
        FakeStream(b'{"choices":[],', b'"usage":{"prompt_tokens":4,"completion_tokens":1}}'),
        "application/json",
    )
    answer = await run(world, FakeInbound(PLAIN))
    assert answer.body.startswith(b'{"choices"')
    assert world.hold.ends == [5]
    assert settled(world).outcome is Outcome.SERVED


@pytest.mark.parametrize("usage", [b"", b',"usage":null', b',"usage":{"prompt_tokens":-9,"completion_tokens":-9}'])
async def test_a_json_answer_that_tells_no_usage_is_not_free(usage: bytes) -> None:
    world = World()
    body = b'{"choices":[{"text":"' + b"x" * 400 + b'"}]' + usage + b"}"
    world.answers(200, FakeStream(body), "application/json")
    await run(world, FakeInbound(PLAIN))
    receipt = settled(world)
    assert (receipt.prompt_tokens, receipt.completion_tokens) == (PROMPT, 100)
    assert receipt.tokens_counted
    assert world.hold.ends == [receipt.prompt_tokens + receipt.completion_tokens]


@pytest.mark.parametrize(
    ("change", "kind", "status"),
    [
        (lambda w: setattr(w, "accepting", False), UnavailableError, 503),
        (
            lambda w: setattr(w, "limit_error", LimitExceededError("no", limit="l", scope="org", retry_after_s=2)),
            LimitExceededError,
            429,
        ),
    ],
)
async def test_refusals_before_the_upstream(
    change: Callable[[World], None], kind: type[GatewayError], status: int
) -> None:
    world = World()
    change(world)
    with pytest.raises(kind) as caught:
        await run(world)
    assert caught.value.status == status
    assert world.requests == []
    assert world.hold.ends == []
    assert world.in_flight.count == 0


async def test_without_a_token_nothing_is_read_and_nobodys_log_is_written() -> None:
    world = World()
    with pytest.raises(UnauthenticatedError):
        await run(world, FakeInbound(authorization=None))
    assert world.receipts == []
    assert world.observed[0].org == ""
    assert world.admitted == 0


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", BadRequestError),
        (b'{"model":"nope","prompt":"x"}', UnknownModelError),
        (b'{"model":"lost","prompt":"x"}', UnavailableError),
    ],
)
async def test_bad_calls_leave_one_refused_receipt(body: bytes, kind: type[GatewayError]) -> None:
    world = World()
    with pytest.raises(kind):
        await run(world, FakeInbound(body))
    receipt = settled(world)
    assert (receipt.outcome, receipt.sent, receipt.prompt_tokens) == (Outcome.REFUSED, False, 0)
    assert world.hold.ends in ([], [None])  # admitted only where the route was missing, and then refunded


async def test_the_policys_refusal_names_the_rule() -> None:
    world = World()
    deny = OrgRule(ACME, "no-code", Effect.DENY, (Role.MEMBER,), (Action.COMPLETE,), ("code",))
    world.snapshot = Snapshot(1, [TenantRecord(RECORD.org, RECORD.upstreams, RECORD.models, (), (RULE, deny))])
    with pytest.raises(ForbiddenError) as caught:
        await run(world)
    assert caught.value.rule == "no-code"
    assert settled(world).rule == "no-code"


async def test_a_suspended_organization_is_refused() -> None:
    world = World()
    world.snapshot = Snapshot(1, [TenantRecord(Org(ACME, "Acme", State.SUSPENDED), rules=(RULE,))])
    with pytest.raises(SuspendedError):
        await run(world)
    settled(world)


@pytest.mark.parametrize(
    ("status", "kind", "retry"),
    [
        (429, UpstreamBusyError, 7),
        (503, UpstreamBusyError, 7),
        (401, UpstreamError, None),
        (500, UpstreamError, None),
        (302, UpstreamError, None),
    ],
)
async def test_the_upstreams_faults_are_not_the_callers(
    status: int, kind: type[GatewayError], retry: int | None
) -> None:
    world = World()
    stream = world.answers(
        status, FakeStream(b'{"error":{"message":"bad key ' + KEY + b'"}}'), **{"retry-after": "7"}
    )
    with pytest.raises(kind) as caught:
        await run(world)
    assert caught.value.retry_after_s == retry
    assert KEY.decode() not in caught.value.message
    assert stream.closed
    assert settled(world).outcome is Outcome.UPSTREAM_ERROR


async def test_the_models_own_no_reaches_the_caller_and_costs_no_tokens() -> None:
    world = World()
    world.answers(400, FakeStream(b'{"error":{"message":"prompt too long"}}'), "application/json")
    answer = await run(world)
    assert (answer.status, answer.body) == (400, b'{"error":{"message":"prompt too long"}}')
    assert world.hold.ends == [0]
    assert settled(world).status == 400


async def test_a_refusal_that_quotes_the_key_is_not_shown() -> None:
    world = World()
    world.answers(400, FakeStream(b'{"error":{"message":"key ' + KEY + b'"}}'), "application/json")
    with pytest.raises(UpstreamError) as caught:
        await run(world)
    assert KEY.decode() not in caught.value.message
    settled(world)


@pytest.mark.parametrize(
    ("error", "kind", "ends"),
    [
        (httpx.ConnectError("x"), UpstreamError, [None]),
        (httpx.ConnectTimeout("x"), UpstreamTimeoutError, [None]),
        (httpx.ReadTimeout("x"), UpstreamTimeoutError, [PROMPT]),
        (httpx.RemoteProtocolError("x"), UpstreamError, [PROMPT]),
    ],
)
async def test_only_what_was_sent_is_charged(
    error: Exception, kind: type[GatewayError], ends: list[int | None]
) -> None:
    world = World()
    world.sends = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    world.raises(error)
    with pytest.raises(kind):
        await run(world)
    assert world.hold.ends == ends
    settled(world)


@pytest.mark.parametrize("garbage", [b"<html>busy</html>", b"\x00\x01"])
async def test_garbage_is_an_upstream_error(garbage: bytes) -> None:
    for body, content_type in ((BODY, "text/event-stream"), (PLAIN, "application/json")):
        world = World()
        stream = world.answers(200, FakeStream(garbage), content_type)
        with pytest.raises(UpstreamError):
            await run(world, FakeInbound(body))
        assert stream.closed
        assert settled(world).outcome is Outcome.UPSTREAM_ERROR


async def test_an_upstream_that_dies_midway_is_charged_for_what_came() -> None:
    world = World()
    world.answers(200, FakeStream(b"data: {}\n\ndata: {}\n\n", httpx.RemoteProtocolError("x")))
    with pytest.raises(UpstreamError):
        await run(world)
    assert world.hold.ends == [PROMPT + 2]
    assert settled(world).completion_tokens == 2


@pytest.mark.parametrize(
    ("reason", "outcome", "status"),
    [
        (Abort.CLIENT, Outcome.CANCELLED_BY_CLIENT, 499),
        (Abort.DEADLINE, Outcome.UPSTREAM_TIMEOUT, 504),
        (Abort.REVOKED, Outcome.REVOKED, 401),
        (Abort.SUPERSEDED, Outcome.SUPERSEDED, 409),
    ],
)
async def test_an_abort_midway_closes_the_upstream_and_settles_once(
    reason: Abort, outcome: Outcome, status: int
) -> None:
    world, inbound, answer = World(), FakeInbound(), FakeAnswer()
    stream = world.answers(200, FakeStream(b"data: {}\n\n", asyncio.Event()))
    inbound.task = asyncio.create_task(
        world.pipeline.complete(Action.COMPLETE, inbound, decoder(Action.COMPLETE), answer)
    )
    await answer.first.wait()
    if reason is Abort.REVOKED:
        assert world.in_flight.reset(ACME, "mem_other") == 0
        assert world.in_flight.reset(OrgId("globex")) == 0
        assert world.in_flight.reset(ACME, "mem_1") == 1
    else:
        inbound.abort(reason)
    with pytest.raises(asyncio.CancelledError):
        await inbound.task
    assert stream.closed
    assert world.hold.ends == [PROMPT + 1]
    receipt = settled(world)
    assert (receipt.outcome, receipt.status, receipt.tokens_counted) == (outcome, status, True)


async def test_a_client_that_leaves_after_done_was_served() -> None:
    world, inbound, answer = World(), FakeInbound(), FakeAnswer()
    stream = world.answers(200, FakeStream(USAGE, asyncio.Event()))
    inbound.task = asyncio.create_task(
        world.pipeline.complete(Action.COMPLETE, inbound, decoder(Action.COMPLETE), answer)
    )
    await answer.first.wait()
    inbound.abort(Abort.CLIENT)
    with pytest.raises(asyncio.CancelledError):
        await inbound.task
    assert stream.closed
    assert world.hold.ends == [9]
    receipt = settled(world)
    assert (receipt.outcome, receipt.status, receipt.tokens_counted) == (Outcome.SERVED, 200, False)


async def test_a_cancel_while_waiting_for_the_limit_costs_nothing() -> None:
    world, inbound = World(), FakeInbound()
    world.limit_gate = asyncio.Event()
    inbound.task = asyncio.create_task(run_task(world, inbound))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    inbound.abort(Abort.CLIENT)
    with pytest.raises(asyncio.CancelledError):
        await inbound.task
    assert world.hold.ends == []
    assert settled(world).sent is False


async def run_task(world: World, inbound: FakeInbound) -> None:
    await run(world, inbound)


async def test_a_cancel_before_the_head_settles_what_was_sent() -> None:
    world, inbound = World(), FakeInbound()
    reached = asyncio.Event()

    async def respond(request: httpx.Request) -> UpstreamAnswer:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.respond = respond
    inbound.task = asyncio.create_task(run_task(world, inbound))
    await reached.wait()
    inbound.abort(Abort.CLIENT)
    with pytest.raises(asyncio.CancelledError):
        await inbound.task
    assert world.hold.ends == [PROMPT]
    receipt = settled(world)
    assert (receipt.outcome, receipt.sent) == (Outcome.CANCELLED_BY_CLIENT, True)


async def test_too_many_in_flight_are_refused_before_the_token_is_looked_at() -> None:
    world = World()
    for number in range(2):
        world.in_flight.enter(ACME, f"mem_{number}", FakeInbound())
    with pytest.raises(UnavailableError):
        await run(world)
    assert world.admitted == 0


async def test_an_organization_cannot_hold_all_the_room_there_is() -> None:
    """The others' share is there whatever one does: with slow bodies it could else hold all, free of any limit."""
    in_flight, most = InFlight(), 2_000
    for org, number in ((ACME, 1_600), (OrgId("globex"), 320)):
        for _ in range(number):
            assert in_flight.has_room(org, most)
            in_flight.enter(org, "mem_1", FakeInbound())
        assert not in_flight.has_room(org, most)
    assert in_flight.has_room(OrgId("initech"), most)
    world = World()
    world.pipeline._max_in_flight = 5
    held = [FakeInbound() for _ in range(4)]
    for inbound in held:
        world.in_flight.enter(ACME, "mem_1", inbound)
    with pytest.raises(UnavailableError, match="your organization"):
        await run(world)
    assert world.admitted == 0
    for inbound in held:
        world.in_flight.leave(ACME, "mem_1", inbound)
    assert world.in_flight.has_room(ACME, 1)


async def test_an_unexpected_fault_is_settled_as_failed() -> None:
    world = World()
    world.raises(KeyError("boom"))
    with pytest.raises(KeyError):
        await run(world)
    assert settled(world).outcome is Outcome.FAILED


async def test_an_organizations_weight_goes_with_its_requests() -> None:
    world = World()
    world.snapshot = Snapshot(1, [structs.replace(RECORD, org=Org(ACME, "Acme", weight=5))])
    world.answers(200, FakeStream(USAGE))
    await run(world)
    assert [outgoing.weight for outgoing in world.outgoing] == [5]
