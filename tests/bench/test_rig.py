"""The compiled rig: what it sends is what it says, and no figure is made of failures."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.bench.processes import Cores
from tests.bench.rig import BURST, JSON, PACED, Rig, RigError, Shape, build, running
from tests.bench.targets import Target, direct_target
from tests.kit.certs import Pki, make_pki
from tests.kit.h2client import H2Client
from tests.kit.ports import free_port

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None or not Path("/usr/include/nghttp2/nghttp2.h").exists(),
    reason="a C compiler and libnghttp2-dev are not installed",
)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("bench") / "tls")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Rig]:
    core = min(os.sched_getaffinity(0))
    with running(tmp_path_factory.mktemp("rig"), pki, Cores(core, core)) as started:
        yield started


@pytest.fixture(scope="module")
def direct(rig: Rig, pki: Pki) -> Target:
    return direct_target(rig.upstream_port, pki)


@pytest.mark.parametrize("shape", [JSON, BURST, PACED], ids=lambda shape: shape.name)
def test_every_shape_is_answered_whole(rig: Rig, direct: Target, shape: Shape) -> None:
    figures = rig.run(direct, shape, seconds=30, count=200)
    assert (figures["ok"], figures["bad"], figures["err"], figures["hung"], figures["short"]) == (200, 0, 0, 0, 0)


def test_short_answers_are_noticed(rig: Rig, direct: Target) -> None:
    load = rig.start(direct, JSON, seconds=30, count=5, extra=("--events", "20"))
    output, _ = load.communicate()
    assert '"ok":5' in output
    assert '"short":5' in output


@pytest.mark.parametrize("after_events", [0, 3])
def test_cancels_reach_the_upstream(rig: Rig, direct: Target, after_events: int) -> None:
    cancelled, figures = rig.cancel(direct, after_events=after_events, seconds=0.3, rate=200, background_rate=50)
    assert cancelled.sent > 0
    assert cancelled.reached == cancelled.sent == len(cancelled.latencies_ms) == figures[0]["cancelled"]
    assert min(cancelled.latencies_ms) > 0
    assert [part["err"] for part in figures] == [0, 0]


@pytest.mark.parametrize(("user", "stream"), [("json", False), ("burst", True), ("paced", True)])
def test_the_upstream_speaks_http1_too(rig: Rig, pki: Pki, user: str, stream: bool) -> None:
    url = f"https://localhost:{rig.upstream_port}/v1/chat/completions"
    with httpx.Client(verify=pki.client_context(["http/1.1"])) as client:
        body = {"user": user, "stream": stream, "stream_options": {"include_usage": True}}
        answers = [client.post(url, json=body) for _ in range(3)]
    for answer in answers:
        assert answer.http_version == "HTTP/1.1"
        assert answer.text.count("data: ") == (22 if stream else 0)
        assert answer.text.count('"usage"') == 1


async def test_a_client_with_a_tiny_window_gets_all_of_it(rig: Rig, pki: Pki) -> None:
    """No event fits the window whole: it goes in parts, none is lost and the stream doesn't stall."""
    context = pki.client_context()
    async with await H2Client.connect("localhost", rig.upstream_port, context, window=100) as client:
        stream = client.request_json("/v1/chat/completions", {"user": "burst", "stream": True})
        await stream.complete()
    assert stream.body.count(b"data: ") == 21


def test_a_load_that_cannot_connect_is_an_error_with_its_cause(rig: Rig, pki: Pki) -> None:
    nowhere = Target("nowhere", free_port(), (), "", pki.files.ca)
    with pytest.raises(RigError, match="cannot connect"):
        rig.run(nowhere, JSON, seconds=1, count=1)


def test_connections_that_end_are_counted_not_fatal(rig: Rig, direct: Target, pki: Pki) -> None:
    """A connection that breaks off must not end the others: OpenSSL's error queue is common to a thread."""
    context = pki.client_context(["h2"])
    for _ in range(5):
        raw = socket.create_connection(("127.0.0.1", direct.port))
        with context.wrap_socket(raw, server_hostname="localhost") as broken:
            broken.sendall(b"this is no HTTP/2 preface")
    with socket.create_connection(("127.0.0.1", direct.port)) as raw:
        raw.sendall(b"this is no TLS")
    figures = rig.run(direct, JSON, seconds=30, count=100)
    assert (figures["ok"], figures["err"]) == (100, 0)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RigError, match="apt-get install gcc"):
        build(tmp_path)
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    with pytest.raises(RigError, match="apt-get install libnghttp2-dev"):
        build(tmp_path)
