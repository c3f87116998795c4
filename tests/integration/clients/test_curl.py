"""curl, over HTTP/2 and HTTP/1.1: what a person types, and what many scripts are made of."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clients.conftest import World
from tests.kit.programs import read_until

CURL = shutil.which("curl")
VERSIONS = [("--http2", "2"), ("--http1.1", "1.1")]
SHOWN = "\n%{http_version} %{http_code} %{num_connects}"

Curl = Callable[..., list[str]]


@pytest.fixture
def curl(world: World, token: str, tmp_path: Path) -> Curl:
    """The command line of one call. The token stands in a file: arguments are seen by everybody."""
    assert CURL is not None, "curl is missing: install the package curl"
    header = tmp_path / "authorization"
    header.write_text(f"Authorization: Bearer {token}\n")

    def line(version: str, path: str, *more: str, body: dict[str, Any] | None = None) -> list[str]:
        sent = [] if body is None else ["--json", json.dumps(body)]
        trust = ["--cacert", str(world.gateway.ca), "--header", f"@{header}"]
        return [CURL, "--silent", "--show-error", "--no-buffer", version, *trust, *sent, *more, world.url + path]

    return line


def _run(command: list[str], given: bytes = b"") -> bytes:
    ended = subprocess.run(command, input=given, capture_output=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


@pytest.mark.parametrize(("option", "version"), VERSIONS)
@pytest.mark.parametrize("model", ["code", "tiny"])
def test_json(curl: Curl, option: str, version: str, model: str) -> None:
    body = {"model": model, "prompt": "def fib(n):\n", "suffix": "\n", "max_tokens": 5}
    answer, _, told = _run(curl(option, "/completions", "--write-out", SHOWN, body=body)).rpartition(b"\n")
    assert told.split()[:2] == [version.encode(), b"200"]
    assert json.loads(answer)["choices"][0]["text"]


@pytest.mark.parametrize(("option", "version"), VERSIONS)
@pytest.mark.parametrize("model", ["code", "tiny"])
def test_a_stream(curl: Curl, events: Callable[[bytes], list[Any]], option: str, version: str, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 5}
    answer, _, told = _run(curl(option, "/chat/completions", "--write-out", SHOWN, body=body)).rpartition(b"\n")
    assert told.split()[:2] == [version.encode(), b"200"]
    read = events(answer)
    assert read[-1] == "[DONE]"
    assert all(event["object"] == "chat.completion.chunk" and event["choices"] for event in read[:-1])
    assert not any("usage" in event for event in read[:-1])


@pytest.mark.parametrize(("option", "version"), VERSIONS)
def test_events_come_one_by_one_and_ctrl_c_cancels(world: World, curl: Curl, option: str, version: str) -> None:
    """The second event is seven minutes away when the first is read: nothing is held back."""
    before = world.streams()["reset"]
    body = {"model": "code", "prompt": "x", "stream": True, "x_pace_ms": 400_000}
    process = subprocess.Popen(curl(option, "/completions", body=body), stdout=subprocess.PIPE)
    try:
        first = read_until(process, b"\n\n", 60)
        assert first.startswith(b"data: {")
    finally:
        process.terminate()
        process.communicate()
    after = world.streams(wait="reset", count=before + 1)
    assert after["reset"] == before + 1
    assert after["resets"][-1]["after_chunks"] == 1


@pytest.mark.parametrize(("option", "version"), VERSIONS)
def test_several_answers_on_one_connection(world: World, curl: Curl, option: str, version: str) -> None:
    models = [world.url + "/models"] * 3
    told = _run(curl(option, "/models", "--write-out", SHOWN + "\n", *models)).decode().splitlines()
    lines = [line.split() for line in told if line.startswith(version + " ")]
    assert [line[:2] for line in lines] == [[version, "200"]] * 4
    assert sum(int(line[2]) for line in lines) == 1


@pytest.mark.parametrize(("option", "version"), VERSIONS)
def test_a_long_prompt_from_a_pipe(curl: Curl, option: str, version: str) -> None:
    """Two megabytes: curl asks `Expect: 100-continue` over HTTP/1.1 first. llama.cpp then says it is too long."""
    prompt = json.dumps({"model": "tiny", "prompt": "x = 1\n" * 350_000, "max_tokens": 1}).encode()
    more = ("--header", "content-type: application/json", "--data-binary", "@-", "--write-out", SHOWN)
    answer, _, told = _run(curl(option, "/completions", *more), prompt).rpartition(b"\n")
    assert told.split()[:2] == [version.encode(), b"400"]
    assert json.loads(answer)["error"]["type"] == "exceed_context_size_error"


@pytest.mark.parametrize(("option", "version"), VERSIONS)
def test_a_compressed_answer_is_not_asked_of_the_model(curl: Curl, option: str, version: str) -> None:
    body = {"model": "tiny", "prompt": "x", "max_tokens": 1}
    head, _, answer = _run(curl(option, "/completions", "--compressed", "--include", body=body)).partition(
        b"\r\n\r\n"
    )
    assert b"content-encoding" not in head.lower()
    assert json.loads(answer)["choices"]


@pytest.mark.parametrize(("option", "version"), VERSIONS)
def test_an_error_has_a_body_a_person_can_read(curl: Curl, option: str, version: str) -> None:
    answer, _, told = _run(curl(option, "/completions", "--data", "{oops", "--write-out", SHOWN)).rpartition(b"\n")
    assert told.split()[:2] == [version.encode(), b"400"]
    assert "not valid JSON" in json.loads(answer)["error"]["message"]


def test_the_header_that_orgate_token_prints(world: World) -> None:
    assert CURL is not None
    header = world.orgate("token", "--header").strip()
    listed = _run([CURL, "-sS", "--cacert", str(world.gateway.ca), "-H", header, world.url + "/models"])
    assert json.loads(listed)["object"] == "list"
