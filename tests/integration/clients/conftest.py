"""One gateway for the whole folder, with two upstreams: the demo model over TLS, llama.cpp's server without."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.gateway.world import log_size
from tests.kit.certs import Pki
from tests.kit.gateway import PASSWORD, RunningGateway, Session
from tests.kit.orgate import Orgate
from tests.kit.programs import listening
from tests.kit.tiny_gguf import write_tiny_gguf

DEMO_KEY = "sk-demo-of-acme"
LLAMA_KEY = "sk-llama-of-acme"


@dataclass(frozen=True)
class World:
    """What the tests share. `url` ends in `/v1`: it is what a client is given as its base URL."""

    gateway: RunningGateway
    owner: Session
    orgate: Orgate
    """A member's command line, signed in."""

    demo_url: str
    llama_url: str
    llama_log: Path
    upstreams: httpx.Client

    @property
    def url(self) -> str:
        return self.gateway.url + "/v1"

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.gateway.ca))

    def streams(self, **wait: str | int) -> dict[str, Any]:
        """The demo model's record of its streams, after `wait` (e.g. `wait="reset", count=3`)."""
        found: dict[str, Any] = self.upstreams.get(self.demo_url + "/demo/streams", params=wait).json()
        return found

    def audit_size(self) -> int:
        """How many entries the organization's audit log has, those of all that was asked before among them: the
        worker tells of them in order, so a request of ours is waited for."""
        after = log_size(self.owner)
        answer = self.gateway.http.get(self.url + "/models", headers=self.owner.bearer)
        assert answer.status_code == 200, answer.text
        while True:
            (entry,) = self.audit(after, 1)
            after = int(entry["index"]) + 1
            if entry.get("request_id") == answer.headers["x-request-id"]:
                return after

    def audit(self, after: int, count: int) -> list[dict[str, Any]]:
        """The `count` entries after the first `after`, waited for; those that say that we look are left out."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            asked: dict[str, str | int] = {"after": after, "limit": count - len(found), "wait_s": 20}
            page = self.owner.admin("GET", "/admin/v1/orgs/acme/audit/entries", params=asked).json()
            assert page["items"], f"{len(found)} entries of {count} after 20 s"
            found += [entry for entry in page["items"] if entry["action"] != "audit.read"]
            after = page["next"]
        return found

    def llama_busy(self) -> int:
        """How many of llama.cpp's slots are generating now.

        Not to be asked in a loop: llama.cpp looks after its clients only when no answer came for a second.
        """
        answer = self.upstreams.get(self.llama_url + "/slots", headers={"authorization": f"Bearer {LLAMA_KEY}"})
        return sum(bool(slot["is_processing"]) for slot in answer.json())

    def llama_cancels(self) -> int:
        """How many answers llama.cpp has stopped generating because nobody waited for them any more."""
        return self.llama_log.read_text().count("stop: cancel task")


@pytest.fixture(scope="package")
def world(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "demo.key").write_text(DEMO_KEY + "\n")
    (folder / "llama.key").write_text(LLAMA_KEY + "\n")
    model = write_tiny_gguf(folder / "tiny.gguf")
    tls = ("--certificate", str(pki.files.certificate), "--key", str(pki.files.key))
    demo = [sys.executable, "-m", "gateway.demo_model", *tls, "--key-file", str(folder / "demo.key")]
    llama = [sys.executable, "-m", "tests.kit.llama_server", str(model), str(folder / "llama.key")]
    llama_log = folder / "llama.log"
    with (
        listening(demo, folder / "demo.log") as demo_url,
        listening(llama, llama_log) as llama_url,
        RunningGateway(folder / "gateway") as gateway,
        httpx.Client(verify=pki.client_context(), timeout=20) as upstreams,
    ):
        owner = gateway.owner()
        _furnish(owner, demo_url, pki.files.ca.read_text(), llama_url)
        orgate = _member(gateway, owner, folder / "config")
        yield World(gateway, owner, orgate, demo_url, llama_url, llama_log, upstreams)


def _furnish(owner: Session, demo_url: str, ca_pem: str, llama_url: str) -> None:
    owner.create("upstreams", name="demo", base_url=demo_url, ca_pem=ca_pem)
    owner.create("upstreams", name="llama", base_url=llama_url, protocol="http/1.1")
    for upstream, key in (("demo", DEMO_KEY), ("llama", LLAMA_KEY)):
        owner.admin("PUT", f"/admin/v1/orgs/acme/upstreams/{upstream}/key", json={"key": key})
    for alias, upstream, served in (
        ("code", "demo", "demo-coder"),
        ("embed", "demo", "demo-embed"),
        ("tiny", "llama", "tiny"),
        ("forbidden", "demo", "demo-coder"),
        ("scarce", "demo", "demo-coder"),
        ("nowhere", "demo", "a-model-the-upstream-does-not-have"),
    ):
        owner.create("models", name=alias, upstream=upstream, model=served)
    owner.create(
        "rules",
        name="not-that-one",
        effect="deny",
        roles=["member"],
        actions=["completions", "chat", "embeddings"],
        models=["forbidden"],
    )
    owner.create("limits", name="requests", unit="requests", scope="org", amount=100_000)
    owner.create("limits", name="tokens", unit="tokens", scope="org", amount=100_000_000)
    owner.create("limits", name="few", unit="requests", scope="model", amount=1, period_s=3, subject="scarce")


def _member(gateway: RunningGateway, owner: Session, config: Path) -> Orgate:
    made = owner.create("members", email="ada@acme.test", name="Ada", roles=["member"])
    orgate = Orgate(config)
    orgate.login(
        server=gateway.url,
        admin=gateway.admin_url,
        ca=gateway.ca,
        org="acme",
        email="ada@acme.test",
        password=PASSWORD,
        invitation=made["invitation"]["code"],
    )
    return orgate


@pytest.fixture(scope="package")
def token(world: World) -> str:
    """What `orgate token` prints."""
    return world.orgate("token").strip()


@pytest.fixture(scope="package")
def events() -> Callable[[bytes], list[Any]]:
    """The payloads of a whole event stream; `[DONE]` as a string."""

    def read(body: bytes) -> list[Any]:
        lines = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
        return [line.decode() if line == b"[DONE]" else json.loads(line) for line in lines]

    return read
