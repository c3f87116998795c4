"""HTTP/1.1 that two readers might read differently (RFC 9112 section 11.2): it is refused, and then the end.

Each case is followed by a second request on the same connection. It must never be answered as if it had been
part of the first, nor the other way round.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.integration.gateway.world import World, family

NEXT = b"GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
"""Answered 200, and nothing else here is: an answer of 200 would be the smuggled one."""


def ask(world: World, data: bytes) -> list[int]:
    """The statuses of all answers on one connection, until the server closes it."""
    context = ssl.create_default_context(cafile=str(world.gateway.ca))
    context.set_alpn_protocols(["http/1.1"])
    answer = b""
    address = ("127.0.0.1", world.gateway.public_port)
    with (
        socket.create_connection(address, 20) as tcp,
        context.wrap_socket(tcp, server_hostname="127.0.0.1") as tls,
    ):
        try:
            tls.sendall(data)
            while piece := tls.recv(65_536):
                answer += piece
        except (ConnectionError, ssl.SSLEOFError):
            pass  # cut in the middle of what we sent: what came before it counts
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]


@pytest.fixture(autouse=True)
def same_processes(world: World) -> Iterator[None]:
    before = family(world.gateway)
    yield
    assert family(world.gateway) == before


CHUNKED = b"transfer-encoding: chunked\r\n"

AMBIGUOUS = {
    "content-length and transfer-encoding": b"content-length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "transfer-encoding and content-length": CHUNKED + b"content-length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two lengths": b"content-length: 2\r\ncontent-length: 30\r\n\r\n{}",
    "a list of lengths": b"content-length: 2, 2\r\n\r\n{}",
    "a signed length": b"content-length: +2\r\n\r\n{}",
    "an unknown coding": b"transfer-encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked, but not last": b"transfer-encoding: chunked, identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a space before the colon": b"transfer-encoding : chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a folded line": b"x-a: b\r\n c: d\r\ncontent-length: 2\r\n\r\n{}",
    "a folded coding": b"transfer-encoding:\r\n chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a bare CR": b"x-a: b\rc: d\r\ncontent-length: 2\r\n\r\n{}",
    "a NUL": b"x-a: b\0c\r\ncontent-length: 2\r\n\r\n{}",
    "chunks that end in LF": CHUNKED + b"\r\n2\n{}\n0\n\n",
    "a chunk's extension that ends in LF": CHUNKED + b"\r\n2;\n{}\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": CHUNKED + b"\r\nFFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n",
    "a chunk's extension of 20 KB": CHUNKED + b"\r\n2;" + b"x" * 20_000 + b"\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_is_ambiguous_is_refused_and_ends_the_connection(world: World, case: str) -> None:
    auth = world.ada.session.bearer["authorization"].encode()
    head = b"POST /v1/completions HTTP/1.1\r\nhost: h\r\nauthorization: " + auth + b"\r\n"
    assert ask(world, head + AMBIGUOUS[case] + NEXT) == [400]


@pytest.mark.parametrize(
    ("case", "head"),
    [
        ("no host", b"GET /v1/models HTTP/1.1\r\n"),
        ("two hosts", b"GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n"),
    ],
)
def test_which_host_is_meant_must_be_said_once(world: World, case: str, head: bytes) -> None:
    auth = b"authorization: " + world.ada.session.bearer["authorization"].encode() + b"\r\n"
    assert ask(world, head + auth + b"connection: close\r\n\r\n") == [400], case


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("a giant field", b"x-a: " + b"v" * 100_000 + b"\r\n"),
        ("too many fields", b"".join(b"x-%d: 1\r\n" % number for number in range(200))),
    ],
)
def test_heads_that_are_too_large_are_answered_431(world: World, case: str, fields: bytes) -> None:
    """What was not read when the server closed makes the kernel send RST, which may overtake the answer."""
    assert ask(world, b"GET /v1/models HTTP/1.1\r\nhost: h\r\n" + fields + b"\r\n") in ([431], []), case


def test_the_next_request_is_answered_when_nothing_is_wrong(world: World) -> None:
    """What the other tests rely on: two requests on one connection get two answers."""
    head = b"POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}"
    assert ask(world, head + NEXT) == [401, 200]
