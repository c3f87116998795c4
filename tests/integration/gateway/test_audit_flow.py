"""An audit log's way out of a real gateway: streamed as it grows, counted, and reconciled with what was served."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fakes.siem import Siem, ndjson, receiving
from tests.integration.gateway.test_live_changes import part
from tests.kit.gateway import PASSWORD, RunningGateway, Session
from tests.kit.orgate import Orgate
from tests.kit.wait import until

ALLOW = {"ORGATE_UPSTREAMS__ALLOW_NETWORKS": "127.0.0.0/8"}
STATE = "/admin/v1/orgs/acme/audit-streams-state"
STATS = "/admin/v1/orgs/acme/audit/stats"
RECONCILE = "/admin/v1/orgs/acme/audit/reconcile"


@pytest.fixture(scope="module")
def siem() -> Iterator[Siem]:
    with receiving(ndjson) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path_factory.mktemp("flow") / "home", settings=ALLOW) as running:
        yield running


@pytest.fixture(scope="module")
def owner(gateway: RunningGateway) -> Session:
    return gateway.owner()


@pytest.fixture(scope="module")
def orgate(gateway: RunningGateway, owner: Session, tmp_path_factory: pytest.TempPathFactory) -> Orgate:
    cli = Orgate(tmp_path_factory.mktemp("cli") / "config")
    cli.login(
        server=gateway.url,
        admin=gateway.admin_url,
        ca=Path(gateway.ca),
        org="acme",
        email="owner@acme.test",
        password=PASSWORD,
    )
    assert owner.org == "acme"
    return cli


def ask(gateway: RunningGateway, owner: Session, count: int) -> None:
    """Requests that are served without any model."""
    for _ in range(count):
        assert gateway.http.get(gateway.url + "/v1/models", headers=owner.bearer).status_code == 200


def listed(siem: Siem) -> list[int]:
    """Indexes of the entries of requests, each once, in the order in which they came."""
    return list(dict.fromkeys(one["index"] for one in siem.events if one["action"] == "model.list"))


def test_what_is_served_reaches_the_siem_through_a_kill_of_the_control_process(
    gateway: RunningGateway, owner: Session, orgate: Orgate, siem: Siem
) -> None:
    stream = ("audit", "stream")
    where = ("--kind", "ndjson", "--url", siem.url, "--from-start", "--secret-from", "-")
    orgate(*stream, "set", "siem", *where, given="Bearer abc\n")
    assert "the receiver took it" in orgate(*stream, "test", "siem")
    ask(gateway, owner, 5)
    until(lambda: len(listed(siem)) == 5, "five entries are there")
    assert siem.seen[-1].headers["authorization"] == "Bearer abc"
    os.kill(part(gateway, "control"), signal.SIGKILL)
    ask(gateway, owner, 5)
    until(lambda: len(listed(siem)) == 10, "five more, after the restart")
    assert listed(siem) == sorted(listed(siem))
    gateway.wait_ready()
    orgate(*stream, "pause", "siem")
    ask(gateway, owner, 2)
    until(lambda: owner.admin("GET", STATE).json()["items"][0]["lag_entries"] >= 2, "entries wait")
    assert orgate.json(*stream, "show", "siem")["state"] == "paused"
    assert "paused" in orgate(*stream, "list")
    orgate(*stream, "resume", "siem")
    until(lambda: len(listed(siem)) == 12, "what waited has come")
    assert "no stream 'other' yet" in orgate(*stream, "set", "other", expect=2)
    orgate(*stream, "delete", "siem", "--yes")


def test_entries_are_counted_and_a_day_is_reconciled(
    gateway: RunningGateway, owner: Session, orgate: Orgate
) -> None:
    before = owner.admin("GET", STATS).json()["requests"]
    ask(gateway, owner, 3)
    today = datetime.now(UTC).strftime("%Y-%m-%d")

    def agreed() -> bool:
        found = owner.admin("GET", RECONCILE, params={"day": today}).json()
        assert not found["judged"]
        return bool(found["entries"] == found["counted"] and found["entries"]["requests"] >= before + 3)

    until(agreed, "the worker has reported, and its receipts are entries")
    served = owner.admin("GET", RECONCILE, params={"day": today}).json()["entries"]["requests"]
    stats = orgate.json("audit", "stats", "--since", today)
    assert (stats["requests"], stats["actions"]["model.list"], stats["outcomes"]) == (
        served,
        served,
        {"served": served},
    )
    assert "model.list" in orgate("audit", "stats")
    assert "prompt_tokens" in orgate("audit", "reconcile", "--day", today)
    assert "is no day" in orgate("audit", "reconcile", "--day", "2026-02-30", expect=2)
