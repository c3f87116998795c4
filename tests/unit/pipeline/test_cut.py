"""A stream whose limit ends in its middle: the upstream is reset at once, the caller told, what passed charged."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from gateway.api.data.openai import decoder, error_event
from gateway.errors import GatewayError, LimitExceededError, QuotaExceededError
from gateway.exchange import Claim, Outcome, Used
from gateway.inflight import Abort
from gateway.quota import Quota
from gateway.upstream.relay import METER_BYTES, METER_EVENTS
from policies.facts import Action
from tenants.models import LimitUnit, OnEnd, Price
from tenants.snapshot import Snapshot
from tests.unit.pipeline.world import (
    ACME,
    BODY,
    PLAIN,
    PROMPT,
    RECORD,
    USAGE,
    FakeAnswer,
    FakeHold,
    FakeInbound,
    FakeStream,
    World,
    run,
    settled,
)

BUDGET = Claim(
    Quota(
        ACME, "monthly", "org", "", LimitUnit.TOKENS, 1_000, 1_000, 0, starts_s=0, ends_s=2_000, on_end=OnEnd.CUT
    ),
    100,
    1,
)


def changed(**changes: Any) -> Claim:
    return structs.replace(BUDGET, quota=structs.replace(BUDGET.quota, **changes))


EVENT = b'data: {"choices":[{"text":"word"}]}\n\n'
DONE = b"data: [DONE]\n\n"


class MeteredHold(FakeHold):
    """Has `left` tokens more than nothing, and notes what it was told."""

    metered = True

    def __init__(self, left: int, claim: Claim = BUDGET) -> None:
        super().__init__()
        self.left = left
        self.claim = claim
        self.told: list[Used] = []
        self.settled: Used | None = None

    def spending(self, used: Used) -> Claim | None:
        if self.told:
            last = self.told[-1]
            assert used.input_tokens >= last.input_tokens
            assert used.output_tokens >= last.output_tokens
            assert used.bytes >= last.bytes
            assert used.nanodollars >= last.nanodollars
        self.told.append(used)
        return self.claim if used.of(self.claim.quota.unit) > self.left else None

    def settle(self, used: Used) -> None:
        self.settled = used
        super().settle(used)


class Told(FakeAnswer):
    """Notes whether the upstream had been reset when the last piece came."""

    def __init__(self, stream: FakeStream) -> None:
        super().__init__()
        self.stream = stream
        self.closed: list[bool] = []

    async def send(self, data: bytes) -> None:
        self.closed.append(self.stream.closed)
        await super().send(data)


def world_with(hold: FakeHold) -> World:
    world = World()
    world.hold = hold
    return world


async def cut(world: World, stream: FakeStream) -> tuple[Told, LimitExceededError]:
    answer = Told(stream)
    with pytest.raises(LimitExceededError) as caught:
        await world.pipeline.complete(Action.COMPLETE, FakeInbound(BODY), decoder(Action.COMPLETE), answer)
    return answer, caught.value


async def test_a_stream_is_ended_when_its_budget_is_gone() -> None:
    hold = MeteredHold(PROMPT + 20)
    world = world_with(hold)
    stream = world.answers(200, FakeStream(*[EVENT] * 100, DONE))
    answer, error = await cut(world, stream)
    assert isinstance(error, QuotaExceededError)
    assert answer.body == EVENT * 32  # looked at each sixteenth: the first look that finds more than twenty
    assert answer.closed == [False] * 31 + [True]
    assert not answer.done  # the edge says why, then ends it
    receipt = settled(world)
    assert (receipt.outcome, receipt.limit, receipt.error) == (Outcome.CUT, "monthly", "insufficient_quota")
    assert (receipt.prompt_tokens, receipt.completion_tokens, receipt.tokens_counted) == (PROMPT, 32, True)
    assert hold.ends == [PROMPT + 32]
    assert hold.settled == Used(PROMPT, 32, len(BODY) + len(EVENT) * 32)


async def test_the_last_event_names_the_limit_and_tells_an_sdk_to_raise() -> None:
    stream = FakeStream(*[EVENT] * 100)
    world = world_with(MeteredHold(0))
    world.answers(200, stream)
    _, error = await cut(world, stream)
    event = error_event(error)
    assert event.startswith(b'data: {"error":{"message":"limit \'monthly\' (for the whole organization)')
    assert b'"code":"insufficient_quota"' in event
    assert b'"resets_at":"1970-01-01T00:33:20Z"' in event
    assert b"[DONE]" not in event  # who sees that takes the answer for complete


async def test_a_rate_that_ends_a_stream_is_no_quota() -> None:
    stream = FakeStream(*[EVENT] * 100)
    world = world_with(MeteredHold(0, changed(starts_s=0, ends_s=0, period_s=60)))
    world.answers(200, stream)
    _, error = await cut(world, stream)
    assert (error.code, error.limit) == ("rate_limit_exceeded", "monthly")
    assert settled(world).outcome is Outcome.CUT


@pytest.mark.parametrize("last", [USAGE, DONE], ids=["usage", "done"])
async def test_an_answer_that_is_whole_is_not_cut(last: bytes) -> None:
    hold = MeteredHold(0)
    world = world_with(hold)
    world.answers(200, FakeStream(*[EVENT] * (METER_EVENTS - 1), EVENT + last))
    answer = await run(world)
    assert answer.done
    assert hold.told == []
    assert settled(world).outcome is Outcome.SERVED


async def test_a_stream_is_not_looked_at_more_often_than_it_need_be() -> None:
    hold = MeteredHold(10**9)
    world = world_with(hold)
    world.answers(200, FakeStream(*[EVENT] * 100, DONE))
    await run(world)
    assert [used.output_tokens for used in hold.told] == list(range(METER_EVENTS, 100, METER_EVENTS))


async def test_a_stream_that_was_given_less_than_it_claimed_is_looked_at_at_each_event() -> None:
    hold = MeteredHold(PROMPT + 3)
    hold.tight = True
    stream = FakeStream(*[EVENT] * 100)
    world = world_with(hold)
    world.answers(200, stream)
    answer, _ = await cut(world, stream)
    assert [used.output_tokens for used in hold.told] == [1, 2, 3, 4]
    assert answer.body.count(EVENT) == 4


async def test_long_events_are_looked_at_sooner() -> None:
    hold = MeteredHold(10**9)
    world = world_with(hold)
    long = b'data: {"choices":[{"text":"' + b"w" * METER_BYTES + b'"}]}\n\n'
    world.answers(200, FakeStream(long, long, long, DONE))
    await run(world)
    assert [used.bytes for used in hold.told] == [len(BODY) + len(long) * n for n in (1, 2, 3)]


async def test_what_is_not_metered_is_never_looked_at() -> None:
    hold = MeteredHold(0)
    hold.metered = False
    world = world_with(hold)
    world.answers(200, FakeStream(*[EVENT] * 100, DONE))
    assert (await run(world)).done
    assert hold.told == []


async def test_an_answer_that_is_no_stream_is_not_cut() -> None:
    hold = MeteredHold(0)
    world = world_with(hold)
    world.answers(200, FakeStream(b'{"choices":[{"text":"' + b"x" * 40_000 + b'"}]}'), "application/json")
    assert (await run(world, FakeInbound(PLAIN))).done
    assert hold.told == []


async def test_what_the_provider_has_said_so_far_goes_before_what_is_counted() -> None:
    """Some servers report usage with every event."""
    running = b'data: {"choices":[{"text":"a b c"}],"usage":{"prompt_tokens":7,"completion_tokens":%d}}\n\n'
    hold = MeteredHold(10**9)
    world = world_with(hold)
    world.answers(200, FakeStream(*[running % (3 * n) for n in range(1, 33)], DONE))
    await run(world)
    assert [(used.input_tokens, used.output_tokens) for used in hold.told] == [(7, 48), (7, 96)]


async def test_money_is_counted_as_it_is_spent() -> None:
    price = Price(ACME, "real-code", 2_000_000, 10_000_000)
    hold = MeteredHold(PROMPT * 2 + 300, changed(unit=LimitUnit.SPEND))
    world = world_with(hold)
    world.snapshot = Snapshot(1, [structs.replace(RECORD, prices=(price,))])
    stream = world.answers(200, FakeStream(*[EVENT] * 100, DONE))
    await cut(world, stream)
    receipt = settled(world)
    assert receipt.completion_tokens == 32
    assert receipt.cost_nanodollars == PROMPT * 2 + 320
    assert hold.settled is not None
    assert hold.settled.nanodollars == receipt.cost_nanodollars


async def test_a_client_that_goes_as_it_is_cut_off_is_settled_once() -> None:
    gate = asyncio.Event()

    class Slow(FakeAnswer):
        async def send(self, data: bytes) -> None:
            await super().send(data)
            if stream.closed:
                gate.set()
                await asyncio.Event().wait()

    hold = MeteredHold(0)
    world = world_with(hold)
    stream = world.answers(200, FakeStream(*[EVENT] * 100, DONE))
    inbound = FakeInbound(BODY)
    inbound.task = asyncio.create_task(
        world.pipeline.complete(Action.COMPLETE, inbound, decoder(Action.COMPLETE), Slow())
    )
    await asyncio.wait_for(gate.wait(), 60)
    inbound.abort(Abort.CLIENT)
    with pytest.raises(asyncio.CancelledError):
        await inbound.task
    assert settled(world).outcome is Outcome.CANCELLED_BY_CLIENT
    assert hold.ends == [PROMPT + METER_EVENTS]


async def test_what_passed_of_a_stream_that_several_tokens_share_an_event_is_charged_by_its_text() -> None:
    """Before the provider has reported anything: what is around the text is the same in each event."""
    text = b"12345678" * 10
    events = [b'data: {"id":"x","choices":[{"text":"%b"}]}\n\n' % text] * 50
    world = World()
    world.answers(200, FakeStream(*events, GatewayError("broke")))
    with pytest.raises(GatewayError):
        await run(world)
    assert settled(world).completion_tokens == 50 * len(text) // 4


async def test_how_many_tokens_an_event_is_is_learned_from_what_was_reported_before() -> None:
    world = World()
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":30}}\n\n'
    world.answers(200, FakeStream(*[EVENT] * 9, usage, DONE))
    await run(world)
    world.answers(200, FakeStream(*[EVENT] * 22, GatewayError("broke")))
    with pytest.raises(GatewayError):
        await run(world)
    assert [receipt.completion_tokens for receipt in world.receipts] == [30, 60]


async def test_a_broken_stream_of_another_shape_is_counted_by_its_events() -> None:
    world = World()
    world.answers(200, FakeStream(*[b'data: {"delta":"x"}\n\n'] * 5, GatewayError("broke")))
    with pytest.raises(GatewayError):
        await run(world)
    assert settled(world).completion_tokens == 5
