"""OpenAI's SDK, which sends a 409 again by itself, takes being superseded for an answer; its deadline holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI

from tests.integration.clients.conftest import World
from tests.integration.gateway.typists import settle_on

HERE = {"x-orgate-document": "3f9a-main.py"}
NEVER = {"x_first_byte_ms": 60_000}


@pytest.fixture
async def client(world: World, token: str) -> AsyncIterator[AsyncOpenAI]:
    """With the SDK's own retries."""
    await asyncio.to_thread(settle_on, world.owner, supersede=True)
    http = openai.DefaultAsyncHttpxClient(verify=world.tls())
    async with AsyncOpenAI(api_key=token, base_url=world.url, http_client=http, max_retries=3, timeout=20) as made:
        yield made
    await asyncio.to_thread(settle_on, world.owner, supersede=False)


async def test_the_older_keystroke_is_not_sent_again(world: World, client: AsyncOpenAI) -> None:
    before, entries = world.streams(), world.audit_size()
    older = asyncio.create_task(
        client.completions.create(model="code", prompt="de", extra_headers=HERE, extra_body=NEVER)
    )
    await asyncio.to_thread(world.streams, wait="opened", count=before["opened"] + 1)
    newer = await client.completions.create(model="code", prompt="def", extra_headers=HERE, max_tokens=6)
    assert newer.choices[0].text
    with pytest.raises(openai.ConflictError) as caught:
        await older
    assert caught.value.code == "superseded"
    after = await asyncio.to_thread(world.streams, wait="reset", count=before["reset"] + 1)
    assert after["opened"] == before["opened"] + 2
    found = await asyncio.to_thread(world.audit, entries, 2)
    assert {entry["outcome"] for entry in found} == {"superseded", "served"}
    assert {entry["client_version"] for entry in found} == {f"AsyncOpenAI/{openai.__version__}"}


async def test_a_stream_that_is_superseded_raises_and_ends(world: World, client: AsyncOpenAI) -> None:
    older = await client.completions.create(
        model="code", prompt="x", stream=True, extra_headers=HERE, extra_body={"x_pace_ms": 500}
    )
    assert (await anext(older)).choices
    await client.completions.create(model="code", prompt="xy", extra_headers=HERE, max_tokens=6)
    with pytest.raises(openai.APIError) as caught:
        async for _ in older:
            pass
    assert caught.value.code == "superseded"


async def test_the_callers_deadline_raises_as_the_gateways_error(world: World, client: AsyncOpenAI) -> None:
    """Not the SDK's own: that would cancel, and here the gateway says what happened."""
    with pytest.raises(openai.InternalServerError) as caught:
        await client.with_options(max_retries=0).completions.create(
            model="code", prompt="x", extra_headers={"x-request-timeout-ms": "200"}, extra_body=NEVER
        )
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")
