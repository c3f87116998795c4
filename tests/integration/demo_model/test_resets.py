"""The record of streams: what a client took back, and what it let end."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any

import pytest

from tests.integration.demo_model.conftest import BEARER, Running
from tests.kit.h2client import H2Client

NEVER_MS = 600_000
SECRET_PROMPT = "def canary_3141(n):"
STREAM = {"model": "demo-coder", "prompt": SECRET_PROMPT, "stream": True}


async def record(demo: Running, **query: Any) -> dict[str, Any]:
    answer = await demo.http.get("/demo/streams", params=query, timeout=30)
    assert "canary" not in answer.text
    found: dict[str, Any] = answer.json()
    return found


async def connect(demo: Running) -> H2Client:
    context = demo.pki.client_context() if demo.url.startswith("https") else None
    return await H2Client.connect("127.0.0.1", demo.port, context)


async def test_a_reset_before_the_headers(demo: Running) -> None:
    async with await connect(demo) as client:
        stream = client.request_json("/v1/completions", {**STREAM, "x_first_byte_ms": NEVER_MS}, [BEARER])
        await record(demo, wait="opened")
        stream.reset()
        seen = await record(demo, wait="reset")
    assert seen["resets"][0] | {"stream": "", "at_ms": 0, "lived_ms": 0} == {
        "stream": "",
        "at_ms": 0,
        "lived_ms": 0,
        "after_chunks": 0,
        "before_headers": True,
        "how": "rst_stream",
    }
    assert (seen["opened"], seen["ended"], seen["reset"], seen["open"]) == (1, 0, 1, 0)


async def test_a_reset_in_mid_stream_leaves_its_neighbours_alone(demo: Running) -> None:
    async with await connect(demo) as client:
        doomed = client.request_json("/v1/completions", {**STREAM, "x_pace_ms": NEVER_MS}, [BEARER])
        innocent = client.request_json("/v1/completions", {**STREAM, "x_pace_ms": 1}, [BEARER])
        await doomed.received(1)
        doomed.reset()
        seen = await record(demo, wait="reset")
        await innocent.complete()
        assert innocent.body.endswith(b"data: [DONE]\n\n")
    assert [(reset["after_chunks"], reset["before_headers"]) for reset in seen["resets"]] == [(1, False)]
    final = await record(demo)
    assert (final["opened"], final["ended"], final["reset"], final["open"]) == (2, 1, 1, 0)


async def test_headers_and_reset_in_one_packet(demo: Running) -> None:
    async with await connect(demo) as client:
        body = json.dumps(STREAM).encode()
        client.request_and_reset("POST", "/v1/completions", [BEARER], body)
        seen = await record(demo, wait="reset")
    assert (seen["opened"], seen["reset"], seen["open"]) == (1, 1, 0)


async def test_a_reset_while_the_upload_is_under_way(demo: Running) -> None:
    async with await connect(demo) as client:
        stream = client.open("POST", "/v1/completions", [BEARER])
        stream.send(b'{"prompt":"')
        stream.reset()
        assert (await record(demo, wait="reset"))["resets"][0]["before_headers"] is True


async def test_a_lost_connection_resets_all_its_streams(demo: Running) -> None:
    async with await connect(demo) as client:
        for _ in range(3):
            client.request_json("/v1/completions", {**STREAM, "x_first_byte_ms": NEVER_MS}, [BEARER])
        await record(demo, wait="opened", count=3)
    seen = await record(demo, wait="reset", count=3)
    assert [reset["how"] for reset in seen["resets"]] == ["connection"] * 3
    assert seen["open"] == 0


async def test_a_reset_after_the_end_is_not_a_reset(demo: Running) -> None:
    async with await connect(demo) as client:
        stream = client.request_json("/v1/completions", STREAM, [BEARER])
        await stream.complete()
        client.reset_again(stream.id)
        # The next answer on the same connection shows that the reset was read.
        await client.request("GET", "/v1/models", [BEARER]).complete()
    seen = await record(demo)
    assert (seen["ended"], seen["reset"]) == (1, 0)


async def test_a_client_that_stops_reading_is_reset_not_buffered_for(demo: Running) -> None:
    async with await H2Client.connect("127.0.0.1", demo.port, demo.pki.client_context(), window=300) as client:
        client.reading = False
        stream = client.request_json("/v1/completions", STREAM, [BEARER])
        await stream.received(300)
        stream.reset()
        seen = await record(demo, wait="reset")
    assert seen["open"] == 0


async def test_answers_under_way_finish_after_the_clients_goaway(demo: Running) -> None:
    async with await connect(demo) as client:
        stream = client.request_json("/v1/completions", {**STREAM, "x_pace_ms": 1}, [BEARER])
        await stream.received(1)
        client.transport.write(b"\0\0\x08\x07\0" + b"\0" * 12)  # GOAWAY, no error
        await stream.complete()
    assert (await record(demo))["ended"] == 1


@pytest.mark.parametrize("paced", [{"x_first_byte_ms": NEVER_MS}, {"x_pace_ms": NEVER_MS}])
async def test_an_http1_close_is_a_reset(demo: Running, paced: dict[str, int]) -> None:
    context = demo.pki.client_context(["http/1.1"])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", demo.port, ssl=context, server_hostname="127.0.0.1"
    )
    writer.write(http1_request({**STREAM, **paced}))
    await record(demo, wait="opened")
    if "x_pace_ms" in paced:
        assert b"chunked" in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    seen = await record(demo, wait="reset")
    assert [reset["how"] for reset in seen["resets"]] == ["connection"]
    assert seen["resets"][0]["before_headers"] is ("x_first_byte_ms" in paced)
    try:
        await writer.wait_closed()
    except (ConnectionError, ssl.SSLError):
        return


async def test_http1_keeps_the_connection_and_answers_in_turn(clear_text_demo: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", clear_text_demo.port)
    body = {**STREAM, "stream": False}
    writer.write(http1_request(body) + http1_request({**body, "model": "gpt-9"}) + http1_request(body))
    statuses = []
    for _ in range(3):
        head = await reader.readuntil(b"\r\n\r\n")
        statuses.append(head.split(b" ", 2)[1])
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
    assert statuses == [b"200", b"404", b"200"]
    writer.close()
    await writer.wait_closed()


async def test_http2_by_prior_knowledge_in_clear_text(clear_text_demo: Running) -> None:
    async with await connect(clear_text_demo) as client:
        stream = await client.request("GET", "/v1/models", [BEARER]).complete()
        assert stream.status == 200


async def test_garbage_is_refused_and_the_server_lives_on(clear_text_demo: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", clear_text_demo.port)
    writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await writer.wait_closed()
    assert (await clear_text_demo.http.get("/v1/models")).status_code == 200


async def test_waiting_ends_without_the_event_when_the_time_is_up(demo: Running) -> None:
    seen = await record(demo, wait="reset", count=1, timeout_s=0)
    assert seen["reset"] == 0


def http1_request(body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    lines = [
        "POST /v1/completions HTTP/1.1",
        "host: localhost",
        ": ".join(BEARER),
        f"content-length: {len(content)}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + content
