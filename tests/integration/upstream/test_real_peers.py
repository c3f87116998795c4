"""The engine against servers that others wrote: nghttp2, HAProxy, Granian (hyper). Each gives back what it got."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from gateway.upstream.transport import TransportPool, UpstreamTransport
from tenants.ids import OrgId
from tenants.models import Upstream, WireProtocol
from tests.integration.upstream.caller import LOOPBACK
from tests.kit.certs import Pki
from tests.kit.ports import free_port
from tests.kit.upstream import RecordingUpstream, Request
from tests.kit.wait import until

SIZES = (1, 100, 16_383, 16_384, 16_385, 65_535, 65_536, 300_000)

ECHO = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-size", b"%d" % len(body))]})
    for at in range(0, len(body), 10_000):
        await send({"type": "http.response.body", "body": body[at : at + 10_000], "more_body": True})
    await send({"type": "http.response.body", "body": b""})
"""

PROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend front
  bind 127.0.0.1:{port} ssl crt {pem} alpn h2
  default_backend back
backend back
  server one 127.0.0.1:{backend} proto h2
"""


def program(name: str) -> str:
    """Debian keeps servers where users' PATH may not lead."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: tests/kit/debian-packages.sh")
    return found


@contextmanager
def running(command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        until(lambda: process.poll() is not None or answers(port), f"{command[0]} to listen: {log.read_text()}")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(60)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def echo(request: Request) -> None:
    request.respond(200)
    request.send(bytes(request.body), end=True)


@pytest.fixture(params=["nghttpd", "nghttpd, awkward", "haproxy", "granian"])
async def peer(request: pytest.FixtureRequest, pki: Pki, tmp_path: Path) -> AsyncIterator[int]:
    """The port of a TLS server that answers a POST with its body."""
    port, log, environment = free_port(), tmp_path / "log", dict(os.environ)
    certificate, key = str(pki.files.certificate), str(pki.files.key)
    if request.param == "haproxy":
        pem, configuration = tmp_path / "both.pem", tmp_path / "haproxy.cfg"
        pem.write_text(Path(certificate).read_text() + Path(key).read_text())
        async with RecordingUpstream(script=echo) as backend:
            configuration.write_text(PROXY.format(port=port, pem=pem, backend=backend.port))
            with running([program("haproxy"), "-db", "-f", str(configuration)], port, log, environment):
                yield port
        return
    if request.param == "granian":
        (tmp_path / "echo_app.py").write_text(ECHO)
        command = [sys.executable, "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--http", "2", "--ssl-certificate", certificate, "--ssl-keyfile", key]
        command += ["--no-ws", "echo_app:app"]
        environment["PYTHONPATH"] = str(tmp_path)
    else:
        # Padding, trailers, a table of no size, windows smaller than a frame, few streams.
        awkward = ["-b", "100", "--trailer", "x-trailer: 1", "-c", "0", "-w", "13", "-m", "5"]
        command = [program("nghttpd"), "-a", "127.0.0.1", "-d", str(tmp_path), "--echo-upload"]
        command += [*(awkward if "awkward" in request.param else []), str(port), key, certificate]
    with running(command, port, log, environment):
        yield port


@asynccontextmanager
async def connected(port: int, pki: Pki) -> AsyncIterator[UpstreamTransport]:
    pool = TransportPool(allowed=LOOPBACK)
    bound = Upstream(
        OrgId("acme"),
        "main",
        f"https://localhost:{port}",
        protocol=WireProtocol.H2,
        ca_pem=pki.ca_pem,
        connections=1,
        connect_timeout_ms=10_000,
    )
    try:
        yield pool.for_upstream(bound)
    finally:
        await pool.aclose()


async def ask(transport: UpstreamTransport, body: bytes) -> bytes:
    headers = ((b"content-type", b"application/json"), (b"authorization", b"Bearer key"))
    answer = await transport.open(transport.outgoing(b"POST", b"/echo", headers, body))
    try:
        assert answer.status == 200
        got = b""
        while data := await answer.stream.read():
            got += data
        return got
    finally:
        answer.cancel()


async def test_what_goes_there_comes_back(peer: int, pki: Pki) -> None:
    async with connected(peer, pki) as transport:
        bodies = [bytes((65 + number % 26,)) * size for number, size in enumerate(SIZES * 4)]
        assert await asyncio.gather(*(ask(transport, body) for body in bodies)) == bodies
        assert (transport.gauges.handshakes, transport.gauges.streams, transport.gauges.refused) == (1, 0, 0)


async def test_cancels_leave_the_connection_as_it_was(peer: int, pki: Pki) -> None:
    async with connected(peer, pki) as transport:
        await ask(transport, b"warm")
        for number in range(200):
            task = asyncio.ensure_future(ask(transport, b"x" * (50_000 if number % 2 else 10)))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if number % 10 == 9:
                assert await ask(transport, b"beside") == b"beside"  # hyper takes no more than 20 in one flight
        bodies = [b"%d" % number for number in range(20)]
        assert await asyncio.gather(*(ask(transport, body) for body in bodies)) == bodies
        assert (transport.gauges.handshakes, transport.gauges.streams) == (1, 0)
