"""The real HAProxy with `deploy/haproxy.cfg`, in front of a running gateway."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.kit.gateway import REPOSITORY, RunningGateway
from tests.kit.h2client import H2Client
from tests.kit.ports import free_port
from tests.kit.wait import until

CONFIGURATION = REPOSITORY / "deploy/haproxy.cfg"
DEBIAN = Path("/usr/sbin/haproxy")


def program() -> str:
    """Debian puts it where users' PATH may not lead. Raises `AssertionError` when it is not installed."""
    found = shutil.which("haproxy") or (str(DEBIAN) if DEBIAN.exists() else None)
    assert found is not None, "haproxy is needed: tests/kit/debian-packages.sh haproxy"
    return found


@dataclass
class Front:
    """One HAProxy. `replaced`: pieces of the configuration to exchange, for measuring what they are good for.

    Use as a context manager: it is there when the gateway behind it is found healthy.
    """

    gateway: RunningGateway
    folder: Path
    replaced: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.log = self.folder / "haproxy.log"
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        installed = self.gateway.installed
        pem = self.folder / "front.pem"
        if not pem.exists():
            with os.fdopen(os.open(pem, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(installed.certificate.read_text() + installed.key.read_text())
        return {
            **os.environ,
            "ORGATE_BIND": f"127.0.0.1:{self.port}",
            "ORGATE_PEM": str(pem),
            "ORGATE_BACKEND": f"127.0.0.1:{self.gateway.public_port}",
            "ORGATE_NAME": "127.0.0.1",
            "ORGATE_CA": str(installed.ca),
        }

    def configuration(self) -> Path:
        text = CONFIGURATION.read_text()
        for old, new in self.replaced.items():
            assert old in text, old
            text = text.replace(old, new)
        path = self.folder / "haproxy.cfg"
        path.write_text(text)
        return path

    def check(self) -> subprocess.CompletedProcess[str]:
        command = [program(), "-c", "-f", str(self.configuration())]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False)

    def __enter__(self) -> Front:
        command = [program(), "-db", "-f", str(self.configuration())]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log)
        context = ssl.create_default_context(cafile=str(self.gateway.ca))
        self.http = httpx.Client(verify=context, timeout=20)
        until(self._healthy, "the front to find its backend")
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    async def connect(self, *, window: int = 65_535) -> H2Client:
        context = ssl.create_default_context(cafile=str(self.gateway.ca))
        context.set_alpn_protocols(["h2"])
        return await H2Client.connect("127.0.0.1", self.port, context, window=window)

    def _healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.http.get(self.url + "/readyz").status_code == 200
        except httpx.TransportError:
            return False
