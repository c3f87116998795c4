"""The OpenAI dialect as clients see it."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import openai
import pytest

from tests.integration.demo_model.conftest import KEY, Running

FIB = {"model": "demo-coder", "prompt": "def fib(n):"}


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def test_completes_over_http2_the_same_way_each_time(demo: Running) -> None:
    first = await demo.http.post("/v1/completions", json=FIB)
    second = await demo.http.post("/v1/completions", json=FIB)
    assert first.http_version == "HTTP/2"
    text = first.json()["choices"][0]["text"]
    assert text == "\n    if n < 2:\n        return n\n    return fib(n - 1) + fib(n - 2)"
    assert second.json()["choices"] == first.json()["choices"]
    assert second.json()["usage"] == first.json()["usage"]


async def test_fills_in_the_middle_without_repeating_the_suffix(demo: Running) -> None:
    body = {
        **FIB,
        "prompt": "def fib(n):\n    if n < 2:\n        return n\n    return ",
        "suffix": " + fib(n - 2)\n",
    }
    answer = await demo.http.post("/v1/completions", json=body)
    assert answer.json()["choices"][0]["text"] == "fib(n - 1)"


@pytest.mark.parametrize("include_usage", [True, False])
async def test_streams_the_same_text_with_usage_when_asked(demo: Running, include_usage: bool) -> None:
    whole = (await demo.http.post("/v1/completions", json=FIB)).json()
    options = {"stream": True, "stream_options": {"include_usage": include_usage}}
    answer = await demo.http.post("/v1/completions", json={**FIB, **options})
    assert answer.headers["content-type"] == "text/event-stream"
    events = events_of(answer)
    if include_usage:
        last = events.pop()
        assert last["choices"] == []
        assert last["usage"] == whole["usage"]
        assert len(events) == whole["usage"]["completion_tokens"]
    assert [event.get("usage") for event in events] == [None] * len(events)
    assert ("usage" in events[0]) is include_usage
    assert "".join(event["choices"][0]["text"] for event in events) == whole["choices"][0]["text"]
    assert [event["choices"][0]["finish_reason"] for event in events][-1] == "stop"


async def test_max_tokens_and_stop_cut_the_answer(demo: Running) -> None:
    cut = (await demo.http.post("/v1/completions", json={**FIB, "max_tokens": 3})).json()
    assert cut["usage"]["completion_tokens"] == 3
    assert cut["choices"][0]["finish_reason"] == "length"
    stopped = (await demo.http.post("/v1/completions", json={**FIB, "stop": [" 2"]})).json()
    assert stopped["choices"][0] == {"index": 0, "finish_reason": "stop", "logprobs": None, "text": "\n    if n <"}


async def test_says_in_its_model_list_that_it_is_a_demo(demo: Running) -> None:
    listed = (await demo.http.get("/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == ["demo-coder", "demo-embed"]
    assert {model["owned_by"] for model in listed} == {"orgate-demo"}


async def test_the_openai_sdk_works_unchanged(demo: Running) -> None:
    http = openai.DefaultAsyncHttpxClient(verify=demo.pki.client_context(["http/1.1"]))
    async with openai.AsyncOpenAI(base_url=demo.url + "/v1", api_key=KEY, http_client=http) as client:
        chat = await client.chat.completions.create(
            model="demo-coder", messages=[{"role": "user", "content": "def add(a, b):"}]
        )
        assert chat.choices[0].message.content == "```python\ndef add(a, b):\n    return a + b\n```"
        stream = await client.chat.completions.create(
            model="demo-coder", messages=[{"role": "user", "content": "def add(a, b):"}], stream=True
        )
        pieces = [event.choices[0].delta.content or "" async for event in stream]
        assert "".join(pieces) == chat.choices[0].message.content
        # The SDK asks for base64 and unpacks it.
        vectors = await client.embeddings.create(model="demo-embed", input=["one", "two", "one"])
        one, two, again = (item.embedding for item in vectors.data)
        assert one == again != two
        assert math.sqrt(sum(value * value for value in one)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b'{"model":"demo-coder","prompt":7}', 400, "invalid_type"),
        (b'{"model":"demo-coder"}', 400, "invalid_type"),
        (b'{"model":"gpt-9","prompt":"x"}', 404, "model_not_found"),
        (b'{"model":"demo-coder","prompt":"x","x_pace_ms":-1}', 400, "invalid_type"),
        (b'{"model":"demo-coder","prompt":"\xff"}', 400, "invalid_json"),
        (b"x" * (64 * 1024 + 1), 413, None),
    ],
)
async def test_refuses_bad_bodies_in_its_dialect(
    demo: Running, body: bytes, status: int, code: str | None
) -> None:
    answer = await demo.http.post("/v1/completions", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert (await demo.http.get("/v1/models")).status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x"])
async def test_asks_for_the_key(demo: Running, header: str) -> None:
    answer = await demo.http.get("/v1/models", headers={"authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_unknown_paths_and_methods(demo: Running) -> None:
    assert (await demo.http.get("/v1/nothing")).status_code == 404
    assert (await demo.http.get("/v1/completions")).status_code == 405
    assert (await demo.http.get("/demo/streams?wait=sideways")).status_code == 400
    assert (await demo.http.get("/demo/streams?wait=reset&count=many")).status_code == 400


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_an_upload_far_beyond_the_limit_is_cut_off(demo: Running, protocol: str) -> None:
    context = demo.pki.client_context([protocol])
    async with httpx.AsyncClient(base_url=demo.url, verify=context, http2=protocol == "h2") as http:
        with pytest.raises(httpx.TransportError):
            await http.post("/v1/completions", content=b"x" * (2 * 1024 * 1024))
    seen = (await demo.http.get("/demo/streams")).json()
    assert (seen["opened"], seen["open"]) == (1, 0)
    assert (await demo.http.get("/v1/models")).status_code == 200
