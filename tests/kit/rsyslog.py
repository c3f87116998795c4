"""Debian's rsyslog, receiving syslog over TLS on a free port of loopback; what it takes is in a file."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.kit.certs import Pki
from tests.kit.ports import free_port
from tests.kit.wait import until

_CONFIG = """\
global(
  workDirectory="{folder}"
  maxMessageSize="128k"
  defaultNetstreamDriver="ossl"
  defaultNetstreamDriverCAFile="{ca}"
  defaultNetstreamDriverCertFile="{cert}"
  defaultNetstreamDriverKeyFile="{key}"
  parser.escapeControlCharactersOnReceive="off"
)
module(
  load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="{auth}" maxFrameSize="200000"
)
template(name="raw" type="string" string="%rawmsg%\\n")
ruleset(name="in") {{ action(type="omfile" file="{out}" template="raw") }}
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="in")
"""


@dataclass
class Rsyslog:
    """`start` and `stop` as often as wanted, on one port. `client_ca`: clients show a certificate of it."""

    folder: Path
    pki: Pki
    client_ca: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.port = free_port()
        self.out = self.folder / "received.log"
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
        assert program, "rsyslogd is missing: `make test` installs it (Debian's rsyslog and rsyslog-openssl)"
        files = self.pki.files
        config = self.folder / "rsyslog.conf"
        config.write_text(
            _CONFIG.format(
                folder=self.folder,
                ca=self.client_ca or files.ca,
                cert=files.certificate,
                key=files.key,
                auth="x509/certvalid" if self.client_ca else "anon",
                out=self.out,
                port=self.port,
            )
        )
        with (self.folder / "rsyslog.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "-n", "-f", str(config), "-i", str(self.folder / "pid")], stdout=log, stderr=log
            )
        until(self._listening, "rsyslog listens")

    def _listening(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "rsyslog.log").read_text()
        wanted = f"0100007F:{self.port:04X} 00000000:0000 0A"
        return any(wanted in line for line in Path("/proc/net/tcp").read_text().splitlines())

    def stop(self, *, kill: bool = False) -> None:
        """By SIGTERM it writes down what it has; by SIGKILL it does not."""
        if self.process is not None:
            (self.process.kill if kill else self.process.terminate)()
            self.process.wait(60)
            self.process = None

    def lines(self) -> list[str]:
        """The messages it has taken, in order."""
        if not self.out.exists():
            return []
        return self.out.read_text(encoding="utf-8").splitlines()
