"""OpenAI's own SDK, unchanged: a base URL and the token that `orgate token` prints are all it is given."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types import CompletionUsage

from tests.integration.clients.conftest import World

PROMPT = "def fib(n):\n"
BACKENDS = ("code", "tiny")
"""The alias on the demo model, and the one on llama.cpp's server."""


@pytest.fixture
def client(world: World, token: str) -> Iterator[OpenAI]:
    http = openai.DefaultHttpxClient(verify=world.tls())
    with OpenAI(api_key=token, base_url=world.url, http_client=http, max_retries=0, timeout=20) as made:
        yield made


@pytest.mark.parametrize("model", BACKENDS)
def test_a_completion(client: OpenAI, model: str) -> None:
    made = client.completions.create(model=model, prompt=PROMPT, suffix="\nprint(fib(3))\n", max_tokens=8)
    assert made.object == "text_completion"
    assert made.choices[0].text
    assert made.usage is not None
    _adds_up(made.usage)


@pytest.mark.parametrize("model", BACKENDS)
def test_a_streamed_completion_is_the_whole_text_in_pieces(client: OpenAI, model: str) -> None:
    whole = client.completions.create(model=model, prompt=PROMPT, temperature=0, max_tokens=12)
    pieces = list(client.completions.create(model=model, prompt=PROMPT, temperature=0, max_tokens=12, stream=True))
    assert len(pieces) > 2
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(piece.usage is None for piece in pieces)


@pytest.mark.parametrize("model", BACKENDS)
def test_usage_of_a_streamed_completion_comes_when_asked_for(client: OpenAI, model: str) -> None:
    options: openai.types.chat.ChatCompletionStreamOptionsParam = {"include_usage": True}
    pieces = list(
        client.completions.create(model=model, prompt=PROMPT, stream=True, stream_options=options, max_tokens=5)
    )
    (usage,) = [piece.usage for piece in pieces if piece.usage is not None]
    _adds_up(usage)
    assert pieces[-1].usage == usage


@pytest.mark.parametrize("model", BACKENDS)
def test_a_chat(client: OpenAI, model: str) -> None:
    made = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "write fib"}], max_completion_tokens=8
    )
    assert made.object == "chat.completion"
    assert made.choices[0].message.role == "assistant"
    assert made.choices[0].message.content
    assert made.usage is not None
    _adds_up(made.usage)


@pytest.mark.parametrize("model", BACKENDS)
def test_a_streamed_chat_without_usage(client: OpenAI, model: str) -> None:
    pieces = list(
        client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "write fib"}], stream=True, max_tokens=8
        )
    )
    assert all(piece.choices for piece in pieces)
    assert all(piece.usage is None for piece in pieces)
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert pieces[-1].choices[0].finish_reason in ("stop", "length")


@pytest.mark.parametrize("model", BACKENDS)
def test_a_streamed_chat_with_usage(client: OpenAI, model: str) -> None:
    pieces = list(
        client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "write fib"}],
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=8,
        )
    )
    last = pieces[-1]
    assert last.choices == []
    assert last.usage is not None
    _adds_up(last.usage)
    assert all(piece.usage is None for piece in pieces[:-1])


def test_the_sdks_own_stream_reader_of_chats(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="code", messages=[{"role": "user", "content": "write fib"}], max_tokens=512
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds
    assert final.choices[0].message.content


@pytest.mark.parametrize(("model", "length"), [("embed", 256), ("tiny", 32)])
def test_embeddings(client: OpenAI, model: str, length: int) -> None:
    """The SDK asks for base64 by itself and decodes it; asked for floats it passes them on."""
    texts = ["def fib(n):", "class Tree:"]
    packed = client.embeddings.create(model=model, input=texts)
    plain = client.embeddings.create(model=model, input=texts, encoding_format="float")
    assert [row.index for row in packed.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert len(one.embedding) == length
        assert one.embedding == pytest.approx(other.embedding, abs=1e-5)
        assert math.sqrt(sum(value * value for value in one.embedding)) == pytest.approx(1, abs=1e-4)
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 0


def test_embeddings_asked_for_in_base64_come_so(client: OpenAI) -> None:
    made = client.embeddings.create(model="tiny", input="x", encoding_format="base64")
    text: object = made.data[0].embedding
    assert isinstance(text, str)
    assert len(struct.unpack("<32f", base64.b64decode(text))) == 32


def test_the_models_are_the_organizations(client: OpenAI) -> None:
    found = {model.id: model for model in client.models.list()}
    assert {"code", "embed", "tiny"} <= set(found)
    assert "demo-coder" not in found
    one = client.models.retrieve("tiny")
    assert one == found["tiny"]
    assert (one.object, one.owned_by) == ("model", "llama")


def test_parameters_of_the_model_pass_through(client: OpenAI) -> None:
    """Standard ones that the gateway does not read, and llama.cpp's own."""
    made = client.completions.create(
        model="tiny", prompt="x", max_tokens=4, stop=[";"], logprobs=2, extra_body={"n_probs": 2, "top_k": 1}
    )
    assert made.choices[0].logprobs is not None
    again = client.completions.create(model="tiny", prompt="x", max_tokens=4, stop=[";"], extra_body={"top_k": 1})
    assert again.choices[0].text == made.choices[0].text


@pytest.mark.parametrize(
    ("model", "upstream", "served"), [("code", "demo", "demo-coder"), ("tiny", "llama", "tiny")]
)
def test_response_headers(client: OpenAI, model: str, upstream: str, served: str) -> None:
    raw = client.completions.with_raw_response.create(
        model=model, prompt="x", max_tokens=2, extra_headers={"x-request-id": "from-the-editor"}
    )
    assert raw.parse().choices[0].text
    assert raw.request_id == raw.headers["x-request-id"] == "from-the-editor"
    assert raw.headers["x-orgate-model"] == served
    assert raw.headers["x-orgate-upstream"] == upstream
    assert float(raw.headers["x-orgate-overhead-ms"]) > 0
    timing = dict(part.split(";dur=") for part in raw.headers["server-timing"].split(", "))
    assert list(timing) == ["gateway", "queue", "upstream"]
    assert timing["gateway"] == raw.headers["x-orgate-overhead-ms"]
    assert all(float(ms) >= 0 for ms in timing.values())
    for unit, most in (("requests", 100_000), ("tokens", 100_000_000)):
        assert int(raw.headers[f"x-ratelimit-limit-{unit}"]) == most
        assert 0 < int(raw.headers[f"x-ratelimit-remaining-{unit}"]) < most
        assert raw.headers[f"x-ratelimit-reset-{unit}"].endswith("s")
    assert raw.headers["content-type"] == "application/json"


def test_response_headers_of_a_stream_come_with_its_head(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="tiny", messages=[{"role": "user", "content": "x"}], stream=True, max_tokens=2
    ) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.request_id is not None
        assert raw.request_id.startswith("req_")
        assert raw.headers["x-orgate-upstream"] == "llama"
        assert int(raw.headers["x-ratelimit-remaining-requests"]) > 0
        assert len(list(raw.parse())) >= 2


def test_a_hundred_turns_on_one_connection(world: World, token: str) -> None:
    """The gateway never closes a kept connection under the SDK's feet."""
    seen: list[str] = []

    def trace(name: str, info: object) -> None:
        seen.append(name)

    def watch(request: httpx2.Request) -> None:
        request.extensions["trace"] = trace

    http = openai.DefaultHttpxClient(verify=world.tls(), event_hooks={"request": [watch]})
    with OpenAI(api_key=token, base_url=world.url, http_client=http, max_retries=0) as client:
        for _ in range(100):
            client.completions.create(model="code", prompt="x", max_tokens=1)
    assert seen.count("connection.connect_tcp.started") == 1


@pytest.mark.parametrize("model", BACKENDS)
def test_a_stream_read_to_its_end_was_served(world: World, client: OpenAI, model: str) -> None:
    """The SDK closes the connection at `[DONE]`, before the answer's last byte: that cancels nothing."""
    before, resets, cancels = world.audit_size(), world.streams()["reset"], world.llama_cancels()
    for _ in range(30):
        list(client.completions.create(model=model, prompt="x", max_tokens=3, stream=True))
    entries = world.audit(before, 30)
    assert [entry["outcome"] for entry in entries] == ["served"] * 30
    assert world.streams()["reset"] == resets
    assert world.llama_cancels() == cancels


def _adds_up(usage: CompletionUsage) -> None:
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0
    assert usage.prompt_tokens + usage.completion_tokens == usage.total_tokens
