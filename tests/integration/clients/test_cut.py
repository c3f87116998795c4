"""A stream that is cut when a budget is gone: OpenAI's SDK raises, and takes what came for no whole answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk

from tests.integration.clients.conftest import World

TOKENS = 40
LONG = "def f(" + ", ".join(f"a{n}" for n in range(300)) + "):\n"
"""The demo model begins with what it was given."""
PACED = {"x_pace_ms": 2}


@pytest.fixture
async def client(world: World, token: str) -> AsyncIterator[AsyncOpenAI]:
    """With the SDK's own retries, and a budget of the day for everybody's answers."""
    path, owner = "/admin/v1/orgs/acme/limits", world.owner
    fields = {"scope": "org", "unit": "output_tokens", "amount": TOKENS, "window": "day", "on_end": "cut"}
    await asyncio.to_thread(owner.create, "limits", name="answers", **fields)
    http = openai.DefaultAsyncHttpxClient(verify=world.tls())
    async with AsyncOpenAI(api_key=token, base_url=world.url, http_client=http, max_retries=3, timeout=20) as made:
        yield made
    await asyncio.to_thread(owner.admin, "DELETE", f"{path}/answers", headers={"if-match": "*"})


async def read(stream: AsyncStream[ChatCompletionChunk]) -> None:
    async for _ in stream:
        pass


def about_answers(world: World, after: int) -> list[dict[str, Any]]:
    """The next two entries that name the limit. What came just before may still be on its way into the log."""
    found: list[dict[str, Any]] = []
    count = 1
    while len(found) < 2:
        count += 1
        found = [entry for entry in world.audit(after, count) if entry.get("limit") == "answers"]
    return found


async def test_a_cut_stream_raises_and_is_reset_at_the_model(world: World, client: AsyncOpenAI) -> None:
    before, entries = world.streams(), world.audit_size()
    stream = await client.chat.completions.create(
        model="code",
        messages=[{"role": "user", "content": LONG}],
        stream=True,
        max_tokens=4_000,
        extra_body=PACED,
    )
    with pytest.raises(openai.APIError) as caught:
        await read(stream)
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    assert "'answers'" in caught.value.message
    await asyncio.to_thread(world.streams, wait="reset", count=before["reset"] + 1)
    with pytest.raises(openai.RateLimitError) as refused:  # at once: it is not tried three times more
        await client.completions.create(model="code", prompt="de")
    assert refused.value.code == "insufficient_quota"
    found = await asyncio.to_thread(about_answers, world, entries)
    assert [entry["outcome"] for entry in found] == ["cut", "refused"]
