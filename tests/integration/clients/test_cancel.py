"""A client that stops reading stops the model: the demo model counts resets, llama.cpp says what its slots do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from tests.integration.clients.conftest import World
from tests.kit.wait import until


@pytest.fixture
def client(world: World, token: str) -> Iterator[OpenAI]:
    http = openai.DefaultHttpxClient(verify=world.tls())
    with OpenAI(api_key=token, base_url=world.url, http_client=http, max_retries=0, timeout=20) as made:
        yield made


def test_a_stream_closed_early_is_reset_at_the_demo_model(world: World, client: OpenAI) -> None:
    before, entries = world.streams(), world.audit_size()
    stream = client.completions.create(model="code", prompt="x", stream=True, extra_body={"x_pace_ms": 200})
    next(stream)
    stream.close()
    after = world.streams(wait="reset", count=before["reset"] + 1)
    assert after["reset"] == before["reset"] + 1
    assert after["open"] == 0
    assert after["resets"][-1]["how"] == "rst_stream"
    (entry,) = world.audit(entries, 1)
    assert entry["outcome"] == "cancelled_by_client"


def test_llama_stops_generating_when_its_reader_leaves(world: World, client: OpenAI) -> None:
    entries, cancels = world.audit_size(), world.llama_cancels()
    stream = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "x"}], stream=True, max_tokens=100_000
    )
    list(itertools.islice(stream, 5))
    assert world.llama_busy() == 1
    stream.close()
    until(lambda: world.llama_cancels() == cancels + 1, "llama.cpp stops generating")
    until(lambda: world.llama_busy() == 0, "its slot is free")
    (entry,) = world.audit(entries, 1)
    assert entry["outcome"] == "cancelled_by_client"
    assert 0 < entry["completion_tokens"] < 100_000


def test_llama_stops_generating_an_answer_nobody_waits_for(world: World, client: OpenAI) -> None:
    """Not a stream: nothing has been answered when the client gives up."""
    entries, cancels = world.audit_size(), world.llama_cancels()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).completions.create(model="tiny", prompt="x", max_tokens=100_000)
    until(lambda: world.llama_cancels() == cancels + 1, "llama.cpp stops generating")
    until(lambda: world.llama_busy() == 0, "its slot is free")
    (entry,) = world.audit(entries, 1)
    assert entry["outcome"] == "cancelled_by_client"


def test_llama_serves_on_after_twenty_cancels(world: World, client: OpenAI) -> None:
    """More than the four slots it has: one that is not given back would leave the last requests waiting."""
    cancels = world.llama_cancels()
    for _ in range(20):
        stream = client.completions.create(model="tiny", prompt="x", stream=True, max_tokens=100_000)
        next(stream)
        stream.close()
    until(lambda: world.llama_cancels() == cancels + 20, "llama.cpp stops generating 20 times")
    assert client.completions.create(model="tiny", prompt="x", max_tokens=3).choices[0].text
    assert world.llama_busy() == 0
