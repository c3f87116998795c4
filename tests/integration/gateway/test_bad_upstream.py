"""Models that refuse, hang, die, or answer what cannot be passed on: the caller reads
what happened, and only that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.gateway.bed import Asked, prepare
from tests.integration.gateway.refusals import SECRETS, refused
from tests.integration.gateway.test_ended_by_the_gateway import error_event
from tests.integration.gateway.world import KEY, SSE_HEAD, Log, World, bind, family, sse
from tests.kit.h2client import H2Client
from tests.kit.upstream import RecordingUpstream, Request

JSON = [("content-type", "application/json")]


@pytest.fixture(autouse=True)
def same_processes(world: World) -> Iterator[None]:
    before = family(world.gateway)
    yield
    assert family(world.gateway) == before


@dataclass
class Bad:
    """One request at a model that is about to misbehave."""

    world: World
    upstream: RecordingUpstream
    client: H2Client
    model: str
    log: Log
    asked: Asked
    request: Request

    async def refused(self, expect: int, code: str, *, outcome: str = "upstream_error") -> dict[str, Any]:
        """The refusal before anything was answered. Its audit entry says the same."""
        stream = await self.asked.stream.complete()
        error = refused(stream.status, stream.headers, stream.body, expect=expect, code=code)
        await self._entered(expect, code, outcome)
        return error

    async def broke_off(
        self, code: str, said: bytes, *, outcome: str = "upstream_error", status: int = 502
    ) -> None:
        """What had come was passed on, then the error as the stream's last event."""
        stream = await self.asked.stream.complete()
        assert stream.status == 200
        assert stream.body.startswith(said)
        assert error_event(stream.body)["code"] == code
        assert not [secret for secret in SECRETS if secret.encode() in stream.body]
        await self._entered(status, code, outcome)

    async def _entered(self, status: int, code: str, outcome: str) -> None:
        entry = (await self.log.of([self.asked.request_id]))[self.asked.request_id]
        assert (entry["outcome"], entry["status"], entry["error"], entry["sent"]) == (outcome, status, code, True)


@asynccontextmanager
async def at(
    world: World, *, stream: bool = True, alpn: tuple[str, ...] = ("h2", "http/1.1"), **binding: Any
) -> AsyncIterator[Bad]:
    async with RecordingUpstream(tls=world.pki.server_context(alpn)) as upstream:
        model = await asyncio.to_thread(bind, world.owner, world.pki, upstream.url, **binding)
        log = await asyncio.to_thread(Log, world.owner)
        async with await world.connect() as client:
            asked, headers, body = prepare(world.ada.session, model, stream=stream)
            asked.stream = client.request("POST", "/v1/completions", headers, body)
            request = await (await upstream.arrived(1)).complete()
            assert request.headers["authorization"] == f"Bearer {KEY}"
            yield Bad(world, upstream, client, model, log, asked, request)
            await upstream.idle()
            again, headers, body = prepare(world.ada.session, model, stream=False)
            again.stream = client.request("POST", "/v1/completions", headers, body)
            (await (await upstream.arrived(2)).complete()).respond_json(
                {"object": "text_completion", "choices": []}
            )
            assert (await again.stream.complete()).status == 200  # and the next one is served as ever


async def test_nobody_listens(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused for certain
        url = f"https://127.0.0.1:{taken.getsockname()[1]}"
        model = await asyncio.to_thread(bind, world.owner, world.pki, url)
        await unsent(world, model, expect=502, code="upstream_error", outcome="upstream_error")


async def test_no_key_is_set(world: World) -> None:
    model = await asyncio.to_thread(bind, world.owner, world.pki, "https://127.0.0.1:9", key="")
    headers = await unsent(world, model, expect=503, code="unavailable", outcome="refused")
    assert int(headers["retry-after"]) > 0


async def test_the_key_was_taken_away(world: World) -> None:
    async with at(world) as bad:
        bad.request.respond_json({"choices": []})
        await bad.asked.stream.complete()
        path = f"/admin/v1/orgs/acme/upstreams/{bad.model}/key"
        await asyncio.to_thread(world.owner.admin, "DELETE", path)
        await unsent(world, bad.model, expect=503, code="unavailable", outcome="refused")
        await asyncio.to_thread(world.owner.admin, "PUT", path, json={"key": KEY})


async def unsent(world: World, model: str, *, expect: int, code: str, outcome: str) -> dict[str, str]:
    """A refusal for which nothing went upstream, and nothing is charged."""
    log = await asyncio.to_thread(Log, world.owner)
    async with await world.connect() as client:
        asked, headers, body = prepare(world.ada.session, model)
        stream = await client.request("POST", "/v1/completions", headers, body).complete()
        refused(stream.status, stream.headers, stream.body, expect=expect, code=code)
        entry = (await log.of([asked.request_id]))[asked.request_id]
        assert (entry["outcome"], entry["sent"], entry["prompt_tokens"]) == (outcome, False, 0)
        return stream.headers


async def test_hangs_before_its_first_byte(world: World) -> None:
    async with at(world, first_byte_timeout_ms=300) as bad:
        await bad.refused(504, "upstream_timeout", outcome="upstream_timeout")
        await bad.request.reset()


async def test_hangs_in_the_middle(world: World) -> None:
    async with at(world, idle_timeout_ms=300) as bad:
        bad.request.respond(200, SSE_HEAD)
        bad.request.send(sse("word"))
        await bad.broke_off("upstream_timeout", sse("word"), outcome="upstream_timeout", status=504)
        await bad.request.reset()


@pytest.mark.parametrize("how", ["reset", "closed", "aborted"])
@pytest.mark.parametrize("when", ["before the head", "in the middle"])
async def test_dies(world: World, how: str, when: str) -> None:
    async with at(world) as bad:
        if when == "in the middle":
            bad.request.respond(200, SSE_HEAD)
            bad.request.send(sse("word"))
            await bad.asked.stream.received(len(sse("word")))
        match how:
            case "reset":
                bad.request.send_reset(2)
            case "closed":
                bad.request.connection.close()
            case _:
                bad.request.connection.abort()
        if when == "in the middle":
            await bad.broke_off("upstream_error", sse("word"))
        else:
            await bad.refused(502, "upstream_error")


GARBAGE = {
    "a page": b"<html><body>def fib(n): sk-upstream-5e1f0c3b9a</body></html>",
    "half an object": b'{"choices":[{"text":"def fib(n):',
    "bytes": bytes(range(256)),
    "nothing": b"",
    "nested without end": b"[" * 100_000,
    "an array": b'["sk-upstream-5e1f0c3b9a"]',
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_answers_garbage_instead_of_json(world: World, name: str) -> None:
    async with at(world, stream=False) as bad:
        bad.request.respond(200, JSON)
        bad.request.send(GARBAGE[name], end=True)
        await bad.refused(502, "upstream_error")


@pytest.mark.parametrize("name", ["a page", "bytes", "half an object"])
async def test_answers_garbage_instead_of_events(world: World, name: str) -> None:
    async with at(world) as bad:
        bad.request.respond(200, SSE_HEAD)
        bad.request.send(GARBAGE[name])
        await bad.broke_off("upstream_error", b"")
        await bad.request.reset()


async def test_breaks_http(world: World) -> None:
    async with at(world) as bad:
        bad.request.connection.write_raw(b"\0\0\1\0\0\0\0\0\0x")  # DATA on stream 0, RFC 9113 section 6.1
        await bad.refused(502, "upstream_error")


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("given", "told"), [("7", "7"), ("", "1"), ("Wed, 21 Oct 2026 07:28:00 GMT", "1")])
async def test_is_at_its_limit(world: World, status: int, given: str, told: str) -> None:
    """Its quota is the organization's, so the caller's own limit was not passed: 503, not 429."""
    async with at(world) as bad:
        bad.request.respond(status, [*JSON, ("retry-after", given)] if given else JSON)
        bad.request.send(f'{{"error":{{"message":"quota of {KEY}"}}}}'.encode(), end=True)
        await bad.refused(503, "upstream_busy")
        assert bad.asked.stream.headers["retry-after"] == told


@pytest.mark.parametrize("status", [301, 401, 403, 404, 500])
async def test_refuses_and_quotes_the_key(world: World, status: int) -> None:
    async with at(world) as bad:
        bad.request.respond(status, [*JSON, ("location", f"https://elsewhere.example/{KEY}")])
        bad.request.send(f'{{"error":{{"message":"Incorrect API key provided: {KEY}"}}}}'.encode(), end=True)
        await bad.refused(502, "upstream_error")


async def test_refuses_the_request_in_its_own_words(world: World) -> None:
    said = b'{"error":{"message":"max_tokens is too large","type":"invalid_request_error","param":"max_tokens"}}'
    async with at(world) as bad:
        bad.request.respond(400, JSON)
        bad.request.send(said, end=True)
        stream = await bad.asked.stream.complete()
        assert (stream.status, stream.body) == (400, said)


async def test_answers_more_than_is_held(world: World) -> None:
    """64 MiB and a little, which is not a completion any more: given up at the limit, and reset."""
    async with at(world, stream=False, alpn=("http/1.1",), connections=2) as bad:
        bad.request.respond(200, JSON)
        piece = b'"' + b"x" * (1024 * 1024 - 1)
        for _ in range(65):
            bad.request.send(piece)
        await bad.refused(502, "upstream_error")
        await bad.request.reset()
