"""A real Orgate on free ports: `orgate init` and `orgate serve` as a user would run them, plus an admin's hand.

Nothing here reaches into the server: organizations, upstreams, keys and limits are made over the admin API.
"""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateway.install import Installed, initialize
from tests.kit.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery staple"  # a test's own


@dataclass
class Session:
    """Somebody signed in by the device flow. Tokens are the real ones the server issued."""

    gateway: RunningGateway
    org: str
    refresh_token: str
    access_token: str
    admin_token: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.access_token}"}

    def admin(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """One admin call; raises on an answer that is not a success unless `expect` says which it is."""
        expect: int | None = kwargs.pop("expect", None)
        headers = {"authorization": f"Bearer {self.admin_token}", **kwargs.pop("headers", {})}
        answer = self.gateway.http.request(method, self.gateway.admin_url + path, headers=headers, **kwargs)
        if expect is None:
            assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        else:
            assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def create(self, kind: str, /, **body: Any) -> dict[str, Any]:
        """POST to a collection of this session's organization."""
        made: dict[str, Any] = self.admin("POST", f"/admin/v1/orgs/{self.org}/{kind}", json=body).json()
        return made


@dataclass
class RunningGateway:
    """One `orgate serve` with everything embedded. Use as a context manager."""

    home: Path
    workers: int = 1
    settings: dict[str, str] = field(default_factory=dict)
    """Extra settings as environment variables (`ORGATE_SERVER__MAX_BODY_BYTES`)."""

    def __post_init__(self) -> None:
        self.public_port = free_port()
        self.admin_port = free_port()
        self.url = f"https://127.0.0.1:{self.public_port}"
        self.admin_url = f"https://127.0.0.1:{self.admin_port}"
        self.installed: Installed = initialize(
            self.home,
            operator_email="operator@orgate.test",
            org="acme",
            owner_email="owner@acme.test",
            public_port=self.public_port,
            admin_port=self.admin_port,
        )
        self.ca = self.installed.ca
        self.log = self.home / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None
        context = ssl.create_default_context(cafile=str(self.ca))
        self.http = httpx.Client(verify=context, timeout=20)

    def __enter__(self) -> RunningGateway:
        try:
            self.start()
        except BaseException:
            self.stop()  # a server that never got ready must not outlive its test
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.http.close()

    def start(self) -> None:
        """Start and wait until it is ready to serve."""
        environment = {**os.environ, "ORGATE_SERVER__WORKERS": str(self.workers), **self.settings}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "serve", "--settings", str(self.installed.settings)],
                cwd=REPOSITORY,
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.wait_ready()

    def wait_ready(self, patience_s: float = 60) -> None:
        end, said = time.monotonic() + patience_s, ""
        while time.monotonic() < end:
            assert self.process is not None
            assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()}"
            try:
                answers = [self.http.get(url + "/readyz") for url in (self.url, self.admin_url)]
                if all(answer.status_code == 200 for answer in answers):
                    return
                said = "; ".join(answer.text for answer in answers)
            except httpx.TransportError as error:
                said = repr(error)
            time.sleep(0.05)
        raise AssertionError(f"not ready in {patience_s} s ({said}):\n{self.log.read_text()}")

    def stop(self) -> int:
        """SIGTERM and wait; returns the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"did not stop:\n{self.log.read_text()}") from None
        self.process = None
        return code

    def sign_in(self, org: str, email: str, *, invitation: str | None = None, password: str = PASSWORD) -> Session:
        """The whole device flow over HTTP (RFC 8628), with the invitation accepted first when one is given."""
        if invitation is not None:
            self._form(
                "/oauth/invitation",
                org=org,
                email=email,
                code=invitation,
                password=password,
                password_again=password,
            )
        device = self.http.post(self.url + "/oauth/device_authorization", data={"client_id": "orgate-cli"})
        device.raise_for_status()
        begun = device.json()
        self._form(
            "/oauth/device",
            user_code=begun["user_code"],
            org=org,
            email=email,
            password=password,
            action="approve",
        )
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        tokens = self._token(grant_type=grant, device_code=begun["device_code"])
        admin = self._token(
            grant_type="refresh_token", refresh_token=tokens["refresh_token"], resource=self.url + "/admin"
        )
        return Session(self, org, admin["refresh_token"], tokens["access_token"], admin["access_token"])

    def owner(self) -> Session:
        """The first owner, signed in for the first time."""
        return self._first("acme")

    def operator(self) -> Session:
        return self._first("platform")

    def _first(self, org: str) -> Session:
        person = next(p for p in self.installed.people if p.org == org)
        return self.sign_in(org, person.email, invitation=person.invitation)

    def token(self, **form: str) -> httpx.Response:
        """One call to the token endpoint, whatever it answers."""
        return self.http.post(self.url + "/oauth/token", data={"client_id": "orgate-cli", **form})

    def _token(self, **form: str) -> dict[str, Any]:
        answer = self.token(**form)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def _form(self, path: str, **fields: str) -> None:
        page = self.http.get(self.url + path)
        page.raise_for_status()
        found = re.search(r'name="csrf(?:_token)?" value="([^"]+)"', page.text)
        assert found is not None, page.text
        name = re.search(r'name="(csrf(?:_token)?)"', page.text)
        assert name is not None
        answer = self.http.post(
            self.url + path,
            data={name[1]: found[1], **fields},
            headers={"accept": "application/json", "origin": self.url},
        )
        assert answer.status_code == 200, answer.text
