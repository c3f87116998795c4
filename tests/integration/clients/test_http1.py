"""A plain HTTP/1.1 client, Python's own: kept connections, chunked uploads, pipelines of small clients' habits."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.clients.conftest import World


@pytest.fixture
def connection(world: World) -> Iterator[http.client.HTTPSConnection]:
    made = http.client.HTTPSConnection("127.0.0.1", world.gateway.public_port, context=world.tls(), timeout=20)
    made.connect()
    made.auto_open = 0  # a connection that the gateway closed is not opened again in silence
    yield made
    made.close()


@pytest.fixture
def headers(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "content-type": "application/json"}


def _body(model: str, **more: object) -> bytes:
    return json.dumps({"model": model, "prompt": "def fib(n):\n", "max_tokens": 4, **more}).encode()


@pytest.mark.parametrize("model", ["code", "tiny"])
def test_a_connection_is_kept_through_answers_streams_and_refusals(
    connection: http.client.HTTPSConnection,
    headers: dict[str, str],
    events: Callable[[bytes], list[Any]],
    model: str,
) -> None:
    for _ in range(3):
        connection.request("POST", "/v1/completions", _body(model), headers)
        answer = connection.getresponse()
        assert (answer.version, answer.status) == (11, 200)
        assert json.loads(answer.read())["choices"][0]["text"]
        connection.request("POST", "/v1/completions", _body(model, stream=True), headers)
        answer = connection.getresponse()
        assert answer.getheader("transfer-encoding") == "chunked"
        assert events(answer.read())[-1] == "[DONE]"
        connection.request("POST", "/v1/completions", _body("no-such-model"), headers)
        answer = connection.getresponse()
        assert answer.status == 404
        assert json.loads(answer.read())["error"]["code"] == "model_not_found"
        connection.request("GET", "/v1/models", headers=headers)
        answer = connection.getresponse()
        assert json.loads(answer.read())["object"] == "list"
        assert not answer.will_close


@pytest.mark.parametrize("model", ["code", "tiny"])
def test_a_chunked_upload(connection: http.client.HTTPSConnection, headers: dict[str, str], model: str) -> None:
    """A body of unknown length, in pieces cut anywhere, one of a single byte."""
    whole = _body(model)
    pieces = [whole[:1], whole[1:7], whole[7:40], whole[40:]]
    connection.request("POST", "/v1/completions", iter(pieces), headers, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["choices"]
    assert not answer.will_close


def test_a_chunked_upload_that_grows_too_large(
    connection: http.client.HTTPSConnection, headers: dict[str, str]
) -> None:
    """Five megabytes that no header announced. The refusal arrives although the client goes on sending."""
    connection.putrequest("POST", "/v1/completions")
    for name, value in {**headers, "transfer-encoding": "chunked"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    piece = b"x" * 65536
    try:
        for _ in range(80):
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.send(b"0\r\n\r\n")
    except OSError:
        pass  # it stopped listening, which is its right; the answer is there all the same
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["error"]["code"] == "request_too_large"


def test_an_answer_read_slowly_arrives_whole(
    world: World, connection: http.client.HTTPSConnection, headers: dict[str, str]
) -> None:
    """A small receive buffer: what llama.cpp generates waits for the reader at every station."""
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.request("POST", "/v1/completions", _body("tiny", max_tokens=2_000, stream=True), headers)
    answer = connection.getresponse()
    read = b"".join(iter(lambda: answer.read(100), b""))
    assert read.endswith(b"data: [DONE]\n\n")
    assert read.count(b'"finish_reason":"length"') == 1
    assert world.llama_busy() == 0


def test_a_client_without_tls_is_turned_away(world: World) -> None:
    plain = http.client.HTTPConnection("127.0.0.1", world.gateway.public_port, timeout=20)
    plain.request("GET", "/v1/models")
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.getresponse()
    plain.close()
    assert world.gateway.http.get(world.gateway.url + "/livez").status_code == 200
