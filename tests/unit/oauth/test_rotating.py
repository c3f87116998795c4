"""The signing key rotates by itself when it is old, and says so."""

from __future__ import annotations

import asyncio

from tests.unit.oauth.conftest import Bench

QUARTER_S = 90 * 86_400


async def test_a_key_of_a_quarter_gives_way_once_and_no_token_fails(bench: Bench) -> None:
    first = bench.signing.kid
    token = (await bench.login())["access_token"]
    bench.now += QUARTER_S + 1
    written = asyncio.Event()
    bench.control.subscribe(written.set)
    rotating = asyncio.create_task(bench.service.keep_rotated())
    await written.wait()
    assert bench.signing.kid != first
    assert bench.signing.own_claims(token) is not None
    (entry,) = await bench.noted("signing_key.")
    assert (entry.org, entry.action, entry.target, entry.actor.member) == (
        "platform",
        "signing_key.rotate",
        bench.signing.kid,
        "system",
    )
    assert not rotating.done()  # it waits for the next quarter
    rotating.cancel()


async def test_a_young_key_is_left_alone(bench: Bench) -> None:
    first = bench.signing.kid
    rotating = asyncio.create_task(bench.service.keep_rotated())
    await asyncio.sleep(0)
    assert (bench.signing.kid, rotating.done()) == (first, False)
    rotating.cancel()
