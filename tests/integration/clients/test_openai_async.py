"""The asynchronous half of OpenAI's SDK: many requests at once, streams beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI

from tests.integration.clients.conftest import World

BACKENDS = ("code", "tiny")


@pytest.fixture
async def client(world: World, token: str) -> AsyncIterator[AsyncOpenAI]:
    http = openai.DefaultAsyncHttpxClient(verify=world.tls())
    async with AsyncOpenAI(api_key=token, base_url=world.url, http_client=http, max_retries=0, timeout=20) as made:
        yield made


@pytest.mark.parametrize("model", BACKENDS)
async def test_every_endpoint_at_once(client: AsyncOpenAI, model: str) -> None:
    completion, chat, vectors, models, one = await asyncio.gather(
        client.completions.create(model=model, prompt="def fib(n):\n", suffix="\nfib(3)\n", max_tokens=6),
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=6),
        client.embeddings.create(model={"code": "embed", "tiny": "tiny"}[model], input="x"),
        client.models.list(),
        client.models.retrieve(model),
    )
    assert completion.choices[0].text
    assert chat.choices[0].message.content
    assert len(vectors.data[0].embedding) == {"code": 256, "tiny": 32}[model]
    assert model in {found.id for found in models.data}
    assert one.id == model


@pytest.mark.parametrize("model", BACKENDS)
@pytest.mark.parametrize("usage", [True, False])
async def test_streams_of_both_kinds(client: AsyncOpenAI, model: str, usage: bool) -> None:
    completion = await client.completions.create(
        model=model, prompt="x", stream=True, max_tokens=6, stream_options={"include_usage": usage}
    )
    texts = [piece async for piece in completion]
    chat = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        max_tokens=6,
        stream_options={"include_usage": usage},
    )
    turns = [piece async for piece in chat]
    assert "".join(piece.choices[0].text for piece in texts if piece.choices)
    assert "".join(piece.choices[0].delta.content or "" for piece in turns if piece.choices)
    for pieces in (texts, turns):
        assert sum(piece.usage is not None for piece in pieces) == usage


async def test_forty_streams_beside_each_other_do_not_mix(client: AsyncOpenAI) -> None:
    async def whole(number: int) -> str:
        stream = await client.completions.create(model="code", prompt=f"def f{number}(", stream=True, max_tokens=9)
        return "".join([piece.choices[0].text async for piece in stream])

    alone = [await whole(number) for number in range(4)]
    together = await asyncio.gather(*(whole(number % 4) for number in range(40)))
    assert together == alone * 10


async def test_a_cancelled_task_cancels_its_request(world: World, client: AsyncOpenAI) -> None:
    before = world.streams()
    asking = asyncio.create_task(
        client.completions.create(model="code", prompt="x", extra_body={"x_first_byte_ms": 60_000})
    )
    view = await asyncio.to_thread(world.streams, wait="opened", count=before["opened"] + 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    view = await asyncio.to_thread(world.streams, wait="reset", count=before["reset"] + 1)
    assert view["reset"] == before["reset"] + 1
    assert view["resets"][-1]["before_headers"]
