"""A gateway whose control process hangs: each limit's `on_outage` holds, `/readyz` says so, and it passes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.limits.awaylog import QUIET_S
from tests.integration.gateway.test_live_changes import part
from tests.kit.certs import make_pki
from tests.kit.gateway import RunningGateway, Session
from tests.kit.programs import listening
from tests.kit.wait import until

KEY = "demo-key-of-a-test"


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """An owner of an organization whose models are the demo's."""
    folder = tmp_path_factory.mktemp("hung")
    pki = make_pki(folder / "pki")
    (folder / "key").write_text(KEY + "\n")
    tls = ("--certificate", str(pki.files.certificate), "--key", str(pki.files.key))
    demo = [sys.executable, "-m", "gateway.demo_model", *tls, "--key-file", str(folder / "key")]
    with ExitStack() as stack:
        url = stack.enter_context(listening(demo, folder / "demo.log"))
        gateway = stack.enter_context(RunningGateway(folder / "home", workers=2))
        owner = gateway.owner()
        owner.create("upstreams", name="demo", base_url=url, ca_pem=pki.ca_pem)
        owner.admin("PUT", "/admin/v1/orgs/acme/upstreams/demo/key", json={"key": KEY})
        for mode in ("local", "deny", "allow"):
            owner.create("models", name=mode, upstream="demo", model="demo-coder")
            limit = {"unit": "requests", "scope": "model", "amount": 8, "period_s": 86_400}
            owner.create("limits", name=mode, subject=mode, on_outage=mode, **limit)
        yield owner


def ask(owner: Session, model: str) -> int:
    return answer(owner, model).status_code


def answer(owner: Session, model: str) -> httpx.Response:
    body = {"model": model, "prompt": "def f(", "max_tokens": 2}
    url = owner.gateway.url + "/v1/completions"
    return owner.gateway.http.post(url, json=body, headers=owner.bearer)


def ready(owner: Session) -> dict[str, Any]:
    told = owner.gateway.http.get(owner.gateway.url + "/readyz")
    assert told.status_code == 200
    said: dict[str, Any] = told.json()
    return said


def test_each_limit_says_what_holds_while_the_owner_hangs(owner: Session) -> None:
    begun = time.monotonic()
    # Busy for half a second, the owner is as good as away: that passes.
    for mode in ("local", "deny", "allow"):
        until(lambda: ask(owner, mode) == 200, f"{mode} is served")  # noqa: B023 - called before the next
    until(lambda: "degraded" not in ready(owner), "the owner is asked")
    control = part(owner.gateway, "control")
    os.kill(control, signal.SIGSTOP)
    try:
        for _ in range(12):
            allowed = answer(owner, "allow")
            assert allowed.status_code == 200, allowed.text
        until(lambda: "limits cannot be asked" in str(ready(owner).get("degraded")), "a worker has noticed")
        served = [ask(owner, "local") for _ in range(12)]
        assert 3 <= served.count(200) <= 8  # of two workers each has its half of what was left, or of all
        assert set(served) == {200, 429}
        until(lambda: ask(owner, "deny") == 503, "a slice of it is spent")
    finally:
        os.kill(control, signal.SIGCONT)
    until(lambda: "degraded" not in ready(owner) and ask(owner, "deny") in (200, 429), "all is as before")
    said = owner.gateway.log.read_text()
    # A line for each worker in so long, and not for each request.
    assert 1 <= said.count("the store cannot be asked") <= 2 * (2 + (time.monotonic() - begun) // QUIET_S), said
    usage = owner.admin("GET", "/admin/v1/orgs/acme/limits/allow/usage").json()
    assert "allow" in str(usage)


def folder_of(gateway: RunningGateway) -> Path:
    return gateway.home / "run" / "limits"


def test_a_stopped_gateway_leaves_no_books(owner: Session) -> None:
    """Last of this file."""
    assert len(list(folder_of(owner.gateway).iterdir())) == 2
    assert owner.gateway.stop() == 0
    assert not list(folder_of(owner.gateway).iterdir())
