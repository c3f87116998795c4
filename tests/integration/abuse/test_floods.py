"""Floods over HTTP/2: bounded, refused, and nobody beside them notices."""

from __future__ import annotations

import json

import pytest

from tests.integration.abuse.beside import beside, unharmed
from tests.integration.gateway.world import World
from tests.kit.attacks import (
    ANSWERED,
    ENDED,
    RESETS,
    UNLIMITED,
    Attack,
    Target,
    empty_data_flood,
    made_you_reset_by_overflow,
)
from tests.kit.rawh2 import ENHANCE_YOUR_CALM, RawH2

REFUSED = (empty_data_flood, False)
"""A stranger's stream is answered 401 and over before the flood has begun."""


def name(attack: Attack) -> str:
    return getattr(attack, "__name__", "")


def target(world: World, *, signed: bool, share: int = 2_000) -> Target:
    bearer = world.ada.session.bearer if signed else {}
    return Target(world.gateway.public_port, world.gateway.ca, share=share, bearer=bearer)


@pytest.mark.parametrize(
    ("attack", "signed"),
    [(attack, signed) for attack in (*RESETS, *ENDED) for signed in (False, True) if (attack, signed) != REFUSED],
    ids=lambda value: name(value) or ("member" if value else "stranger"),
)
async def test_the_server_ends_the_connection(world: World, attack: Attack, signed: bool) -> None:
    async with unharmed(world) as bed:
        aim = target(world, signed=signed)
        assert await beside(bed, attack(aim)) > 0
        assert aim.ended > 0
        assert bed.upstream.opened == 1  # the canary's


@pytest.mark.parametrize("attack", RESETS, ids=name)
async def test_whole_requests_that_are_made_to_be_reset_leave_nothing_at_the_model(
    world: World, attack: Attack
) -> None:
    """What reached the model is reset there: `unharmed` waits for it to be idle."""
    async with unharmed(world) as bed:
        aim = target(world, signed=True)
        aim.body = json.dumps({"model": bed.model, "prompt": "def fib(n):", "stream": True}).encode()
        await beside(bed, attack(aim))
        assert aim.ended > 0
        await bed.upstream.until(lambda: bed.upstream.open_streams == 1, "the model to be told")
        assert bed.upstream.resets == bed.upstream.opened - 1
        fresh, request = await bed.next()
        request.respond_json({"choices": []})
        assert (await fresh.stream.complete()).status == 200


async def test_rapid_reset_is_answered_with_enhance_your_calm(world: World) -> None:
    async with unharmed(world) as bed:
        aim = target(world, signed=False)
        await beside(bed, RESETS[0](aim))
        assert ENHANCE_YOUR_CALM in aim.codes


@pytest.mark.parametrize("attack", ANSWERED, ids=name)
async def test_heads_that_are_too_large_are_refused_one_by_one(world: World, attack: Attack) -> None:
    async with unharmed(world) as bed:
        assert await beside(bed, attack(target(world, signed=True))) > 0


async def test_a_head_of_a_thousand_fields_is_answered_431(world: World) -> None:
    aim = target(world, signed=False)
    async with await aim.connect() as raw:
        stream = raw.stream()
        fields = [(f"x-{number}", "1") for number in range(1_000)]
        await raw.send(raw.head(stream, "GET", "/v1/models", fields, end=True))
        await raw.signal.until(lambda: stream in raw.statuses or raw.closed, "the refusal")
        assert raw.statuses[stream] == 431
        await answered(raw)


@pytest.mark.parametrize("attack", UNLIMITED, ids=name)
async def test_what_nobody_limits_harms_nobody(world: World, attack: Attack) -> None:
    """Ten thousand frames: the connection lives, so do the others. What it costs them: docs/security/abuse.md."""
    async with unharmed(world) as bed:
        aim = target(world, signed=False, share=10_000)
        assert await beside(bed, attack(aim)) > 0
        assert aim.ended == 0


async def answered(raw: RawH2) -> None:
    """The connection is as good as before."""
    stream = raw.stream()
    await raw.send(raw.head(stream, "GET", "/v1/models", end=True))
    await raw.signal.until(lambda: stream in raw.statuses or raw.closed, "an answer")
    assert raw.statuses[stream] == 401


async def test_requests_that_wait_are_bounded(world: World) -> None:
    """Streams that the server was made to reset are over, and their requests are not: without a bound 20,000 of
    them would stand before the next innocent's. Memory is in `unharmed`."""
    async with unharmed(world) as bed:
        aim = target(world, signed=False, share=20_000)
        assert await beside(bed, made_you_reset_by_overflow(aim)) > 0
        assert ENHANCE_YOUR_CALM in aim.codes
