"""A month's budget in a whole gateway: told once when it is nearly used up, and still used after a restart."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.gateway.world import bind, family
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway, Session
from tests.kit.receiver import Receiver, receiving
from tests.kit.scripts import openai
from tests.kit.upstream import RecordingUpstream
from tests.kit.wait import eventually, until

TOKENS = 20
"""Of each request: 7 in, 13 out."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path / "home", workers=2) as running:
        yield running


async def test_it_is_told_once_and_outlives_the_gateway(
    pki: Pki, gateway: RunningGateway, receiver: Receiver
) -> None:
    owner = await asyncio.to_thread(gateway.owner)
    context = ssl.create_default_context(cafile=gateway.ca)

    async def ask(model: str) -> httpx.Response:
        """On a connection of its own: workers take turns."""
        async with httpx.AsyncClient(verify=context, base_url=gateway.url, trust_env=False) as client:
            body = {"model": model, "prompt": "def fib(n):", "max_tokens": 13}
            return await client.post("/v1/completions", headers=owner.bearer, json=body)

    async with RecordingUpstream(tls=pki.server_context(), script=openai(chunks=13)) as upstream:
        model = await asyncio.to_thread(bind, owner, pki, upstream.url)
        secret = await asyncio.to_thread(_set_up, owner, receiver)
        for _ in range(4):
            answer = await ask(model)
            assert answer.status_code == 200, answer.text
        await eventually(lambda: len(receiver.got) == 1, "the webhook is told")
        told = receiver.got[0]
        assert told.signed_with(secret)
        notice = told.json()
        assert (notice["type"], notice["data"]["limit"], notice["data"]["percent"]) == (
            "limit.threshold",
            "month",
            80,
        )
        assert (notice["data"]["used"], notice["data"]["amount"]) == (4 * TOKENS, 5 * TOKENS)
        exposition = (await asyncio.to_thread(gateway.http.get, gateway.admin_url + "/metrics")).text
        assert 'orgate_limit_thresholds_total{org="acme",limit="month",percent="80"} 1' in exposition

        # Killed before it is written that the receiver took it, it would be sent again, under the same id.
        await asyncio.to_thread(until, lambda: _webhook(owner)["delivered_at"] > 0, "the delivery is written down")
        await asyncio.to_thread(_kill, gateway)
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(gateway.stop)
        await asyncio.to_thread(gateway.start)
        last = await ask(model)
        assert last.status_code == 200, last.text
        assert last.headers["x-orgate-budget"].startswith("month;used=")
        refused = await ask(model)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota"), refused.text
        assert "month" in refused.json()["error"]["message"]

    assert len(receiver.got) == 1, "once a window, restarts included"
    assert gateway.process is not None
    log = gateway.log.read_text()
    assert log.count("80 % of the limit 'month' are used, 80 of 100 tokens") == 1
    entries = await asyncio.to_thread(_entries, owner)
    assert [entry["target"] for entry in entries if entry["action"] == "limit.threshold"] == ["month"], entries


def _set_up(owner: Session, receiver: Receiver) -> str:
    """A budget and a webhook; returns the secret that signs."""
    fields = {"scope": "org", "unit": "tokens", "amount": 5 * TOKENS, "window": "month", "notify_at": [80]}
    owner.create("limits", name="month", **fields)
    made = owner.admin("PUT", "/admin/v1/orgs/acme/webhook", json={"url": receiver.url + "/in"}).json()
    tried = owner.admin("POST", "/admin/v1/orgs/acme/webhook/test").json()
    assert tried["ok"], tried
    assert receiver.got.pop().signed_with(made["secret"])
    return str(made["secret"])


def _webhook(owner: Session) -> dict[str, Any]:
    found: dict[str, Any] = owner.admin("GET", "/admin/v1/orgs/acme/webhook").json()
    return found


def _kill(gateway: RunningGateway) -> None:
    """All of it at once: nobody gets to say anything any more."""
    assert gateway.process is not None
    for pid in family(gateway):
        with suppress(ProcessLookupError):  # the kernel ends the children with their parent
            os.kill(pid, signal.SIGKILL)
    gateway.process.wait()


def _entries(owner: Session) -> list[dict[str, Any]]:
    """All of the organization's log."""
    found: list[dict[str, Any]] = []
    while True:
        query = {"after": len(found), "limit": 1_000}
        page = owner.admin("GET", "/admin/v1/orgs/acme/audit/entries", params=query).json()
        if not page["items"]:
            return found
        found += page["items"]
