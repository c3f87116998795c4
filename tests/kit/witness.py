"""`orgate audit witness serve` as an auditor runs it: a process of its own, a folder, an address on loopback."""

from __future__ import annotations

import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from gateway.audit.cosignature import CosignerKey, parse_cosigner_key
from tests.kit.certs import Pki
from tests.kit.orgate import COMMAND, Orgate
from tests.kit.ports import free_port
from tests.kit.wait import until


@dataclass
class RunningWitness:
    url: str
    folder: Path
    process: subprocess.Popen[bytes]
    key: CosignerKey
    log: Path

    def post(self, body: bytes) -> tuple[int, str, str]:
        """Status, body and content type of a submission."""
        return ask(f"{self.url}/add-checkpoint", body)

    def published(self, origin: str) -> tuple[int, str, str]:
        return ask(f"{self.url}/{sha256(origin.encode()).hexdigest()}/checkpoint")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def ask(url: str, body: bytes | None = None) -> tuple[int, str, str]:
    """One request; a refusal is an answer, too."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=20) as answer:
            return answer.status, answer.read().decode(), answer.headers["content-type"]
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode(), refusal.headers["content-type"]


@contextmanager
def witness(
    folder: Path, name: str = "w1.example", logs: Sequence[object] = (), tls: Pki | None = None
) -> Iterator[RunningWitness]:
    """Serve from `folder`, made if it is not there, until the block ends. `logs` are verifier keys."""
    port = free_port()
    person = Orgate(folder.parent / "config")
    options = [option for key in logs for option in ("--log", str(key))]
    if tls:
        options += ["--tls-cert", str(tls.files.certificate), "--tls-key", str(tls.files.key)]
    command = [*COMMAND, "audit", "witness", "serve", "--folder", str(folder), "--name", name, *options]
    said = folder.parent / f"{folder.name}.log"
    with said.open("wb") as errors:
        process = subprocess.Popen(
            [*command, "--listen", f"127.0.0.1:{port}"], stderr=errors, stdout=errors, env=person.environment
        )
    try:
        url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        until(lambda: process.poll() is not None or _listens(port), "a witness that listens")
        assert process.poll() is None, said.read_text()
        key = person("audit", "witness", "key", "--folder", str(folder)).strip()
        yield RunningWitness(url, folder, process, parse_cosigner_key(key), said)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) in (0, -signal.SIGKILL), said.read_text()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
