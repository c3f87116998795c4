"""Nobody's code comes to rest: what passes through is found in no file, no log and no metric afterwards."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.world import KEY, Log, World, bind, connect, new_request_id, populate, sse
from tests.kit.certs import Pki
from tests.kit.gateway import PASSWORD, RunningGateway
from tests.kit.h2client import H2Client, H2Stream
from tests.kit.marker import MARKER
from tests.kit.upstream import RecordingUpstream, Request

FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"prompt": f"def {MARKER}(n):", "suffix": f"# {MARKER}"}),
    ("/v1/completions", {"prompt": [MARKER, MARKER], "user": MARKER, MARKER: {"deep": [MARKER]}}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": MARKER, "name": MARKER}]}),
    ("/v1/embeddings", {"input": f"text {MARKER}"}),
]
JSON = [("content-type", "application/json")]


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[World]:
    """A gateway that logs all it has to say."""
    home = tmp_path_factory.mktemp("zero") / "home"
    with RunningGateway(home, settings={"ORGATE_SERVER__LOG_LEVEL": "debug"}) as gateway:
        yield populate(gateway, pki)


def answer(request: Request, way: int) -> None:
    """One of the ways in which a model may say the marker."""
    said = {"choices": [{"index": 0, "text": MARKER}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    error = {"error": {"message": MARKER, "type": MARKER, "code": MARKER, "param": MARKER}}
    match way:
        case 0:
            request.respond_json(said)
        case 1:
            request.respond(200, [("content-type", "text/event-stream"), ("x-say", MARKER)])
            request.send(sse(MARKER) + b"data: " + json.dumps({**said, MARKER: 1}).encode() + b"\n\n", end=True)
        case 2 | 3 | 4 | 5:
            request.respond_json(error, {2: 400, 3: 401, 4: 429, 5: 500}[way])
        case 6:
            request.respond(200, JSON)
            request.send(f"<html>{MARKER} {{".encode(), end=True)
        case 7:
            request.respond(200, [("content-type", "text/event-stream")])
            request.send(f"<html>{MARKER}".encode(), end=True)
        case 8:
            request.respond(200, [("content-type", "text/event-stream")])
            request.send(sse(MARKER))
            request.send_reset(2)
        case _:
            request.connection.write_raw(b"\0\0\1\0\0\0\0\0\0x" + MARKER.encode())


WAYS = 10


def ask(client: H2Client, world: World, path: str, fields: dict[str, Any]) -> tuple[str, H2Stream]:
    request_id = new_request_id()
    headers = [*world.ada.session.bearer.items(), ("x-request-id", request_id), ("user-agent", MARKER)]
    return request_id, client.request_json(path, fields, headers)


async def test_what_passes_through_is_found_nowhere(talkative: World) -> None:
    world, seen = talkative, []
    log = await asyncio.to_thread(Log, world.owner)
    async with (
        RecordingUpstream(tls=world.pki.server_context()) as upstream,
        await connect(world.gateway) as client,
    ):
        model = await asyncio.to_thread(bind, world.owner, world.pki, upstream.url)
        for path, fields in FIELDS:
            for way in range(WAYS):
                number = len(upstream.requests) + 1
                body = {"model": model, "stream": way in (1, 7, 8), **fields}
                request_id, stream = ask(client, world, path, body)
                request = await (await upstream.arrived(number)).complete()
                assert MARKER in request.body.decode()
                answer(request, way)
                await stream.finished()
                seen.append(request_id)
        number = len(upstream.requests) + 1
        request_id, stream = ask(
            client, world, "/v1/completions", {"model": model, "prompt": MARKER, "stream": True}
        )
        request = await upstream.arrived(number)
        request.respond(200, [("content-type", "text/event-stream")])
        request.send(sse(MARKER))
        await stream.received(len(sse(MARKER)))
        stream.reset()
        seen.append(request_id)
        for path, wrong in wrongs(model):
            request_id, stream = ask(client, world, path, wrong)
            await stream.finished()
            assert stream.status >= 400
        bearer = [("authorization", f"Bearer {MARKER}")]
        await client.request("GET", f"/v1/models/{MARKER}?{MARKER}={MARKER}", bearer).complete()
        await client.request("POST", f"/{MARKER}", bearer, f'{{"{MARKER}'.encode()).complete()
        await log.of(seen)
    assert MARKER not in await asyncio.to_thread(exposition, world.gateway)
    nowhere(world.gateway.home, [MARKER, PASSWORD, KEY, world.ada.session.access_token])
    assert world.gateway.stop() == 0
    nowhere(world.gateway.home, [MARKER, PASSWORD, KEY, world.ada.session.access_token])


def exposition(gateway: RunningGateway) -> str:
    """The metrics, once they speak of the traffic: workers report every second."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        text = gateway.http.get(gateway.admin_url + "/metrics").text
        if 'orgate_requests_total{org="acme",task="embeddings",outcome="served"}' in text:
            return text
        time.sleep(0.1)
    raise AssertionError("the metrics never spoke of the traffic")


def wrongs(model: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("/v1/completions", {"model": MARKER, "prompt": MARKER}),
        ("/v1/completions", {"model": model, "prompt": {MARKER: MARKER}}),
        ("/v1/completions", {"model": model, "prompt": MARKER, "stream": MARKER}),
        ("/v1/chat/completions", {"model": model, "messages": MARKER}),
        ("/v1/embeddings", {"model": model, "input": {MARKER: 1}}),
    ]


def nowhere(home: Path, secrets: list[str]) -> None:
    """No file below `home` holds any of `secrets`. Sockets apart, every file is read."""
    files = [path for path in home.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert names >= {"control.db", "serve.log", "secrets.sealed", "log-00000000.jsonl"}, names
    # What is meant to be kept is seen by this very search.
    assert [path.name for path in files if b'"upstream_model":"real-model"' in path.read_bytes()]
    assert b"orgate.serve" in (home / "serve.log").read_bytes()
    held = [(str(path), secret) for path in files for secret in secrets if secret.encode() in path.read_bytes()]
    assert not held, held
