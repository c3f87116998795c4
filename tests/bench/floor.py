"""What the server costs by itself: Granian and the edge as they are, around a pipeline that only answers.

`tests.bench.floor:app` is what the worker runs, `floor_target` starts it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from gateway.api.data.app import PublicApp
from gateway.api.data.routes import DataPlane
from gateway.exchange import Call, Headers
from gateway.pipeline import JSON, Answer, Inbound, Pipeline
from policies.facts import Action
from tests.bench.processes import Cores, pinned
from tests.bench.targets import Target, wait_listening
from tests.kit.certs import Pki
from tests.kit.ports import free_port

_HEAD: Headers = [
    (b"x-request-id", b"req_0123456789abcdef01234567"),
    JSON,
    (b"cache-control", b"no-store"),
    (b"x-orgate-model", b"bench"),
    (b"x-orgate-upstream", b"rig"),
    (b"x-orgate-overhead-ms", b"0.333"),
    (b"server-timing", b"gateway;dur=0.333, queue;dur=0.010, upstream;dur=0.500"),
    *(
        (b"x-ratelimit-" + part + b"-" + unit, b"1999999999")
        for unit in (b"requests", b"tokens")
        for part in (b"limit", b"remaining", b"reset")
    ),
]
_BODY = b'{"choices":[{"message":{"content":"' + b"x" * 400 + b'"}}],"usage":{"total_tokens":320}}'


class _Answering:
    """In the pipeline's place: the body is read, the client watched, an answer of the usual size sent."""

    async def complete(
        self, task: Action, inbound: Inbound, decode: Callable[[bytes], Call], answer: Answer
    ) -> None:
        await inbound.body()
        await answer.start(200, _HEAD)
        await answer.finish(_BODY)

    async def list_models(self, inbound: Inbound, answer: Answer, render: object) -> None:
        raise NotImplementedError("the load asks for completions only")


def app() -> PublicApp:
    data = DataPlane(cast("Pipeline", _Answering()), max_body=1 << 22, timeout_s=300)
    return PublicApp(direct=data.handlers(), route_handlers=[], openapi_config=None, logging_config=None)


@contextmanager
def floor_target(folder: Path, pki: Pki, cores: Cores) -> Iterator[Target]:
    """One Granian worker with the options of `gateway.listeners`."""
    port = free_port()
    options = (
        *("--interface", "asgi", "--factory", "--loop", "uvloop", "--runtime-mode", "st", "--no-ws"),
        *("--host", "127.0.0.1", "--port", str(port), "--http2-max-concurrent-streams", "200"),
        *("--ssl-certificate", str(pki.files.certificate), "--ssl-keyfile", str(pki.files.key)),
    )
    command = [sys.executable, "-m", "granian", *options, "tests.bench.floor:app"]
    with pinned(cores.target), (folder / "floor.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_listening(process, port, folder / "floor.log")
        yield Target("floor", port, (process.pid,), "", pki.files.ca)
    finally:
        process.terminate()
        process.wait()
