"""Requests that are wrong: each gets its own refusal in OpenAI's dialect, and the worker lives on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.gateway.refusals import refused
from tests.integration.gateway.world import World, bind, family
from tests.kit.h2client import H2Client, H2Stream

COMPLETE, CHAT, EMBED = "/v1/completions", "/v1/chat/completions", "/v1/embeddings"
JSON = ("content-type", "application/json")


@pytest.fixture(autouse=True)
def same_processes(world: World) -> Iterator[None]:
    """Nothing a caller sends ends a worker."""
    before = family(world.gateway)
    yield
    assert family(world.gateway) == before


@pytest.fixture(scope="module")
def model(world: World) -> str:
    """An alias whose upstream is never reached in this module."""
    return bind(world.owner, world.pki, "https://127.0.0.1:9")


def body(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "def fib(n):", **fields}


MALFORMED = {
    "cut off": b'{"model":"m","prompt":"def fib(n):',
    "not JSON": b"def fib(n): pass",
    "not UTF-8": b'{"model":"m","prompt":"\xff\xfe"}',
    "an array": b'["def fib(n):"]',
    "null": b"null",
    "empty": b"",
    "two values": b"{} {}",
    "a number out of all bounds": b'{"model":"m","prompt":"p","max_tokens":1e999}',
    "nested without end": b'{"model":"m","prompt":' + b"[" * 200_000,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bodies(world: World, name: str) -> None:
    answer = world.gateway.http.post(
        world.gateway.url + COMPLETE, content=MALFORMED[name], headers=world.ada.session.bearer
    )
    if name == "a number out of all bounds":
        refused(
            answer.status_code,
            answer.headers,
            answer.content,
            expect=422,
            code="invalid_value",
            param="max_tokens",
        )
    else:
        refused(answer.status_code, answer.headers, answer.content, expect=400, code="invalid_request")


INCOMPLETE = [(COMPLETE, "model"), (COMPLETE, "prompt"), (CHAT, "messages"), (EMBED, "input")]


@pytest.mark.parametrize(("path", "missing"), INCOMPLETE)
def test_missing_fields(world: World, model: str, path: str, missing: str) -> None:
    fields = {"model": model, "prompt": "p", "messages": [{"role": "user", "content": "p"}], "input": "p"}
    del fields[missing]
    answer = world.gateway.http.post(world.gateway.url + path, json=fields, headers=world.ada.session.bearer)
    refused(answer.status_code, answer.headers, answer.content, expect=400, code="invalid_request", param=missing)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (COMPLETE, {"model": 7}, "model"),
    (COMPLETE, {"model": ""}, "model"),
    (COMPLETE, {"prompt": {"text": "def fib(n):"}}, "prompt"),
    (COMPLETE, {"suffix": ["def fib(n):"]}, "suffix"),
    (COMPLETE, {"stream": "yes"}, "stream"),
    (COMPLETE, {"stream": 1}, "stream"),
    (COMPLETE, {"max_tokens": 0}, "max_tokens"),
    (COMPLETE, {"max_tokens": "many"}, "max_tokens"),
    (COMPLETE, {"max_tokens": 10**30}, "max_tokens"),
    (COMPLETE, {"n": -1}, "n"),
    (COMPLETE, {"stream_options": []}, "stream_options"),
    (COMPLETE, {"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": "def fib(n):"}, "messages"),
    (CHAT, {"messages": ["def fib(n):"]}, "messages"),
    (EMBED, {"input": None}, "input"),
]


@pytest.mark.parametrize(("path", "fields", "param"), WRONG)
def test_wrong_types_and_ranges(world: World, model: str, path: str, fields: dict[str, Any], param: str) -> None:
    right = {"model": model, "prompt": "p", "messages": [{"role": "user", "content": "p"}], "input": "p"}
    answer = world.gateway.http.post(
        world.gateway.url + path, json={**right, **fields}, headers=world.ada.session.bearer
    )
    refused(answer.status_code, answer.headers, answer.content, expect=422, code="invalid_value", param=param)


def test_another_organizations_model_is_as_unknown_as_any(world: World) -> None:
    theirs = bind(world.eve, world.pki, "https://127.0.0.1:9")
    seen = []
    for name in (theirs, "x" * len(theirs)):
        answer = world.gateway.http.post(
            world.gateway.url + COMPLETE, json=body(name), headers=world.ada.session.bearer
        )
        refused(
            answer.status_code, answer.headers, answer.content, expect=404, code="model_not_found", param="model"
        )
        seen.append(answer.content.replace(name.encode(), b"NAME"))
    assert seen[0] == seen[1]


def test_a_task_the_model_does_not_do(world: World) -> None:
    name = bind(world.owner, world.pki, "https://127.0.0.1:9", tasks=["embeddings"])
    answer = world.gateway.http.post(
        world.gateway.url + COMPLETE, json=body(name), headers=world.ada.session.bearer
    )
    refused(answer.status_code, answer.headers, answer.content, expect=400, code="invalid_request", param="model")


def test_a_policys_refusal_names_its_rule(world: World, model: str) -> None:
    rule = {"name": "no-chat-here", "effect": "deny", "roles": ["member"], "actions": ["chat"], "models": [model]}
    world.owner.create("rules", **rule)
    answer = world.gateway.http.post(
        world.gateway.url + CHAT,
        json={"model": model, "messages": [{"role": "user", "content": "def fib(n):"}]},
        headers=world.ada.session.bearer,
    )
    error = refused(answer.status_code, answer.headers, answer.content, expect=403, code="forbidden")
    assert error["rule"] == "no-chat-here"
    assert error["type"] == "permission_error"


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
def test_compressed_bodies(world: World, model: str, encoding: str) -> None:
    answer = world.gateway.http.post(
        world.gateway.url + COMPLETE,
        content=b"\x1f\x8b" + bytes(100),
        headers={**world.ada.session.bearer, "content-encoding": encoding},
    )
    refused(answer.status_code, answer.headers, answer.content, expect=415, code="unsupported_media_type")


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/nothing", "/v1/completions/more", "/v2/completions", "/admin/v1/me"]
)
def test_unknown_paths(world: World, path: str) -> None:
    for headers in (world.ada.session.bearer, {}):
        answer = world.gateway.http.get(world.gateway.url + path, headers=headers)
        refused(answer.status_code, answer.headers, answer.content, expect=404, code="not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", COMPLETE, "POST"), ("PUT", CHAT, "POST"), ("DELETE", "/v1/models", "GET"), ("PATCH", EMBED, "POST")],
)
def test_wrong_methods(world: World, method: str, path: str, allow: str) -> None:
    answer = world.gateway.http.request(method, world.gateway.url + path, headers=world.ada.session.bearer)
    refused(answer.status_code, answer.headers, answer.content, expect=405, code="method_not_allowed")
    assert answer.headers["allow"] == allow


def h2_refused(stream: H2Stream, **expected: Any) -> dict[str, Any]:
    return refused(stream.status, stream.headers, stream.body, **expected)


@pytest.mark.parametrize("name", ["authorization", "content-encoding", "traceparent"])
async def test_headers_given_twice(world: World, model: str, name: str) -> None:
    async with await world.connect() as client:
        twice = [(name, "Bearer one"), (name, "Bearer two")]
        bearer = [] if name == "authorization" else list(world.ada.session.bearer.items())
        stream = client.request_json(COMPLETE, body(model), [*bearer, *twice])
        await stream.finished()
        h2_refused(stream, expect=400, code="invalid_request")


async def test_a_body_that_says_it_is_too_large(world: World) -> None:
    """It is refused before a byte of it is read."""
    async with await world.connect() as client:
        size = ("content-length", str(4 * 1024 * 1024 + 1))
        stream = client.open("POST", COMPLETE, [*world.ada.session.bearer.items(), JSON, size])
        await stream.head()
        await stream.received(1)
        await client.signal.until(lambda: stream.over, "the end of the refusal")
        h2_refused(stream, expect=413, code="request_too_large")
        await answers(client, world)


async def test_a_body_that_turns_out_too_large(world: World) -> None:
    async with await world.connect() as client:
        stream = client.open("POST", COMPLETE, [*world.ada.session.bearer.items(), JSON])

        def room() -> int:
            return stream.over or min(client.h2.local_flow_control_window(stream.id), 16_384)

        sent = 0
        while sent <= 4 * 1024 * 1024:
            await client.signal.until(room, "the gateway's window")
            if stream.over:
                break
            part = b" " * room()
            stream.send(part)
            sent += len(part)
        await client.signal.until(lambda: stream.over, "the refusal")
        h2_refused(stream, expect=413, code="request_too_large")
        await answers(client, world)


def test_a_chunked_body_that_turns_out_too_large(world: World) -> None:
    answer = world.gateway.http.post(
        world.gateway.url + COMPLETE,
        content=(b" " * 65_536 for _ in range(65)),
        headers=world.ada.session.bearer,
    )
    refused(answer.status_code, answer.headers, answer.content, expect=413, code="request_too_large")


async def answers(client: H2Client, world: World) -> None:
    """The connection is as good as before."""
    stream = client.request("GET", "/v1/models", list(world.ada.session.bearer.items()))
    assert (await stream.complete()).status == 200
    assert json.loads(stream.body)["object"] == "list"


async def test_a_stranger_reads_nothing(world: World) -> None:
    """What is asked without a token is refused before its body counts for anything."""
    async with await world.connect() as client:
        streams = [client.request("POST", COMPLETE, [JSON], content) for content in (b"{", b"[]", b"{}" * 500)]
        await asyncio.gather(*(stream.finished() for stream in streams))
        for stream in streams:
            h2_refused(stream, expect=401, code="invalid_token")
