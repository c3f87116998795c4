"""What a limit would have refused, tried on the audit log before it is set."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from gateway.exchange import Outcome, Receipt, SpooledReceipt, SpoolUp
from policies.facts import Action, Role
from tests.integration.admin.world import ACME, LIMIT, World, fill
from tests.kit.signal import PATIENCE_S
from tests.unit.authn import tokens

DAY = 86_400


def receipt(world: World, ago_s: float, member: str, **changes: Any) -> Receipt:
    values: dict[str, Any] = {
        "org": ACME,
        "request_id": "req_1",
        "at_us": int((world.clock.seconds - ago_s) * 1_000_000),
        "member": member,
        "client": "vim",
        "action": Action.COMPLETE,
        "outcome": Outcome.SERVED,
        "status": 200,
        "model": "code",
        "upstream": "gpt",
        "sent": True,
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_us": 1_000,
        **changes,
    }
    return Receipt(**values)


async def log(world: World, receipts: Sequence[Receipt]) -> None:
    spooled = tuple(SpooledReceipt(seq, one) for seq, one in enumerate(receipts, 1))
    await world.sequencer.append_receipts(SpoolUp("boot", spooled))


async def simulated(world: World, limit: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    answer = await world.ask(
        "POST", "/orgs/acme/limits-simulation", Role.ADMIN, json={"limit": {**LIMIT, **limit}, **more}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/jsonl")
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_a_simulation_says_who_would_have_been_refused(world: World) -> None:
    await fill(world)
    receipts = [receipt(world, 3_000 - n, "mem_a" if n % 4 else "mem_b") for n in range(40)]
    await log(world, [receipt(world, 2 * DAY, "mem_old"), *receipts])
    *progress, last = await simulated(world, {"amount": 10, "period_s": 3_600})
    assert progress
    assert all(line["read"] <= line["of"] for line in progress)
    report = last["report"]
    assert (report["requests"], report["refused"]) == (40, 20)
    assert [(row["member"], row["requests"], row["refused"]) for row in report["rows"]] == [("mem_a", 30, 20)]
    assert report["rows"][0]["first_refused_ms"] == receipts[14].at_us // 1_000
    assert report["until"] - report["since"] == DAY
    entry = await world.last_entry()
    assert (entry["action"], entry["operation_type"], entry["detail"]["limit"]) == (
        "limit.simulate",
        "access",
        "fair",
    )
    assert (await world.ask("GET", "/orgs/acme/limits/fair")).json()["amount"] == 100, (
        "it changed what it only tries"
    )


async def test_only_the_time_that_is_asked_for_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(world)
    monkeypatch.setattr("gateway.api.admin.simulation.CHUNK", 7)
    await log(world, [receipt(world, 20 * DAY - n * 3_600, "mem_a") for n in range(19 * 24)])
    now = int(world.clock.seconds)
    *progress, last = await simulated(world, {}, since=str(now - 10 * DAY), until=str(now - 9 * DAY))
    assert last["report"]["requests"] == 24
    assert last["report"]["entries"] == 24
    assert progress[-1]["of"] < 30
    assert progress[-1]["read"] == progress[-1]["of"]
    assert len(progress) >= 4


async def test_teams_are_those_of_today(world: World) -> None:
    await fill(world)
    member = world.members[ACME, Role.MEMBER].id
    for team in ("red", "blue"):
        assert (await world.ask("POST", "/orgs/acme/teams", json={"name": team, "title": ""})).status_code == 201
    assert (await world.ask("PUT", f"/orgs/acme/teams/red/members/{member}")).status_code == 200
    await log(world, [receipt(world, 50 - n, who) for n, who in enumerate((member, member, "mem_x"))])
    for subject, requests in (("", 2), ("red", 2), ("blue", 0)):
        body = {"scope": "team", "subject": subject, "amount": 1, "period_s": 3_600}
        report = (await simulated(world, body))[-1]["report"]
        assert (report["requests"], report["refused"]) == (requests, requests // 2)
        assert any("Teams are as they are today" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"limit": {**LIMIT, "amount": 0}}, "limit.amount"),
        ({"limit": {**LIMIT, "scope": "model", "subject": "coed"}}, "subject"),
        ({"limit": LIMIT, "since": "yesterday"}, "since"),
        ({"limit": LIMIT, "since": "1", "until": str(tokens.NOW)}, "since"),
        ({"limit": LIMIT, "since": str(tokens.NOW), "until": str(tokens.NOW - 5)}, "since"),
        ({"since": "1"}, "limit"),
        ({"limit": LIMIT, "speed": 9}, "speed"),
    ],
)
async def test_what_cannot_be_simulated_is_refused_by_name(world: World, more: dict[str, Any], field: str) -> None:
    answer = await world.ask("POST", "/orgs/acme/limits-simulation", json=more)
    assert answer.status_code == 422
    assert field in [fault["field"] for fault in answer.json()["errors"]], answer.text
    assert "limit.simulate" not in await world.actions()


async def test_one_simulation_runs_at_a_time_and_only_admins_may(world: World) -> None:
    await fill(world)
    body = {"limit": LIMIT}
    async with world.deps.simulating:
        busy = await world.ask("POST", "/orgs/acme/limits-simulation", json=body)
    assert (busy.status_code, busy.json()["type"]) == (409, "urn:orgate:problem:busy")
    assert (await world.ask("POST", "/orgs/acme/limits-simulation", Role.AUDITOR, json=body)).status_code == 403
    platform = await world.ask("POST", "/orgs/platform/limits-simulation", Role.OPERATOR, json=body)
    assert "serves nothing" in platform.json()["detail"]
    assert not world.deps.simulating.locked()


async def simulating(world: World, send: Callable[[Any], Awaitable[None]], gone: asyncio.Event) -> None:
    """Call the app itself, as a server does; `gone`: the caller leaves."""
    body = json.dumps({"limit": LIMIT}).encode()
    asked: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if asked:
            return asked.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    headers = {**world.bearer(Role.ADMIN), "content-type": "application/json", "host": "127.0.0.1:8444"}
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": "/admin/v1/orgs/acme/limits-simulation",
        "raw_path": b"/admin/v1/orgs/acme/limits-simulation",
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 40_000),
        "server": ("127.0.0.1", 8444),
    }
    await world.app(scope, receive, send)


async def test_a_caller_who_goes_away_ends_the_simulation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(world)
    monkeypatch.setattr("gateway.api.admin.simulation.CHUNK", 1)
    await log(world, [receipt(world, 200 - n, "mem_a") for n in range(100)])
    gone = asyncio.Event()
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            sent.append(message["body"])
            gone.set()

    await simulating(world, send, gone)
    assert 0 < len(sent) < 100
    assert b'"report"' not in b"".join(sent)
    assert not world.deps.simulating.locked(), "the next one could never begin"


async def test_a_caller_who_reads_nothing_keeps_nobody_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(world)
    monkeypatch.setattr("gateway.api.admin.simulation.CHUNK", 1)
    await log(world, [receipt(world, 200 - n, "mem_a") for n in range(20)])
    stuck, read, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            stuck.set()
            await read.wait()
            sent.append(message["body"])
        elif message["type"] == "http.response.body":
            gone.set()

    first = asyncio.create_task(simulating(world, send, gone))
    try:
        await stuck.wait()
        async with asyncio.timeout(PATIENCE_S), world.deps.simulating:
            assert not first.done()
        assert "report" in (await simulated(world, {}))[-1]
    finally:
        read.set()
        await first
    assert b'"report"' in sent[-1], "whoever reads at last has the whole answer"
