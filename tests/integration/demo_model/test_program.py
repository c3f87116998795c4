"""The program itself: its command line, its ready line, its end; and curl as a client."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.kit.certs import Pki
from tests.kit.h2client import H2Client

PROGRAM = (sys.executable, "-m", "gateway.demo_model")
KEY = "sk-demo-upstream"
curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


async def run(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@curl
@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
async def test_curl_streams_a_completion_from_the_program(pki: Pki, tmp_path: Path, version: str) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"sk-another\n{KEY}\n")
    files = ("--certificate", str(pki.files.certificate), "--key", str(pki.files.key), "--key-file", str(keys))
    process = await asyncio.create_subprocess_exec(*PROGRAM, *files, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split()[-1]
    assert url.startswith("https://127.0.0.1:")
    code, output = await run(
        "curl",
        "--silent",
        version,
        "--cacert",
        str(pki.files.ca),
        "--header",
        f"authorization: Bearer {KEY}",
        "--json",
        json.dumps({"model": "demo-coder", "prompt": "def add(a, b):", "stream": True}),
        "--write-out",
        "%{http_version} %{http_code}",
        url + "/v1/completions",
    )
    assert code == 0
    assert output.endswith("data: [DONE]\n\n" + ("2 200" if version == "--http2" else "1.1 200"))
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--certificate", "x.pem"), "--certificate and --key go together"),
        (("--certificate", "no.pem", "--key", "no.key"), "No such file"),
        (("--token-ms", "-1"), "a pace is between 0 and 600000 ms"),
        (("--key-file", "/dev/null"), "the key file holds no key"),
    ],
)
async def test_wrong_usage_is_said_in_one_line(arguments: tuple[str, ...], complaint: str) -> None:
    code, output = await run(*PROGRAM, *arguments)
    assert code == 2
    assert complaint in output
    assert "Traceback" not in output


async def test_sigterm_ends_it_in_mid_stream() -> None:
    process = await asyncio.create_subprocess_exec(*PROGRAM, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    port = int((await process.stdout.readline()).decode().rsplit(":", 1)[1])
    async with await H2Client.connect("127.0.0.1", port) as client:
        body = {"model": "demo-coder", "prompt": "def fib(n):", "stream": True, "x_pace_ms": 600_000}
        stream = client.request_json("/v1/completions", body)
        await stream.received(1)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        await stream.finished()
        assert client.goaway_code == 0
