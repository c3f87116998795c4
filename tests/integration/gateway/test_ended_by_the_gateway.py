"""Streams that the gateway itself ends: access taken back, the deadline passed, the server told to stop."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.gateway.bed import lay, prepare
from tests.integration.gateway.world import DONE, SSE_HEAD, Log, World, bind, connect, family, invite, sse, stored
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway
from tests.kit.upstream import RecordingUpstream


def error_event(body: bytes) -> dict[str, object]:
    """The error with which an event stream ended."""
    last = body.rstrip(b"\n").rsplit(b"\n\n", 1)[-1]
    found: dict[str, object] = json.loads(last.removeprefix(b"data: "))["error"]
    return found


async def test_a_suspended_members_stream_ends_and_nobody_elses(world: World) -> None:
    async with lay(world, slots=3) as bed:
        cora = await asyncio.to_thread(invite, world.gateway, world.owner, "acme", "cora", "member")
        begun, early = await bed.next(session=cora.session)
        silent, late = await bed.next(session=cora.session)
        early.respond(200, SSE_HEAD)
        early.send(sse("word"))
        await begun.stream.received(len(sse("word")))
        path = f"/admin/v1/orgs/acme/members/{cora.id}"
        await asyncio.to_thread(world.owner.admin, "POST", path + "/suspend")
        for request in (early, late):
            await request.reset()
        await begun.stream.complete()
        assert error_event(begun.stream.body)["code"] == "invalid_token"
        await silent.stream.complete()
        assert silent.stream.status == 401
        assert silent.stream.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        refused = bed.client.request_json("/v1/completions", {}, cora.session.bearer.items())
        assert (await refused.complete()).status == 401
        for asked in (begun, silent):
            asked.outcome, asked.entry = "revoked", {"status": 401, "sent": True}
        await bed.verify(resets=2)


async def test_a_suspended_organizations_streams_end_and_no_other_ones(world: World) -> None:
    async with lay(world) as bed:
        operator = world.operator
        await asyncio.to_thread(
            operator.admin, "POST", "/admin/v1/orgs", json={"id": "initech", "name": "Initech"}
        )
        boss = (await asyncio.to_thread(invite, world.gateway, operator, "initech", "boss", "owner")).session
        model = await asyncio.to_thread(bind, boss, world.pki, bed.upstream.url)
        asked, headers, body = prepare(boss, model)
        asked.stream = bed.client.request("POST", "/v1/completions", headers, body)
        request = await (await bed.upstream.arrived(2)).complete()
        assert request.connection is not bed.canary.request.connection  # no two organizations share one
        request.respond(200, SSE_HEAD)
        await asked.stream.head()
        await asyncio.to_thread(operator.admin, "POST", "/admin/v1/orgs/initech/suspend")
        await request.reset()
        await asked.stream.complete()
        assert error_event(asked.stream.body)["code"] == "invalid_token"
        again = bed.client.request_json("/v1/completions", {}, boss.bearer.items())
        assert (await again.complete()).status == 403
        assert again.json()["error"]["code"] == "organization_suspended"
        await asyncio.to_thread(operator.admin, "POST", "/admin/v1/orgs/initech/resume")
        bed.connections = 2
        await bed.verify(resets=1)
        # The old tokens stay dead; whoever signs in again goes on.
        again = bed.client.request_json("/v1/completions", {}, boss.bearer.items())
        assert (await again.complete()).status == 401
        boss = await asyncio.to_thread(world.gateway.sign_in, "initech", "boss@initech.test")
        entry = (await Log(boss, after=0).of([asked.request_id]))[asked.request_id]
        assert (entry["outcome"], entry["org"]) == ("revoked", "initech")


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that gives every request a second and a half."""
    home = tmp_path_factory.mktemp("hurried") / "home"
    with RunningGateway(home, settings={"ORGATE_SERVER__REQUEST_TIMEOUT_S": "1.5"}) as gateway:
        yield gateway


async def test_the_deadline_ends_both_sides(hurried: RunningGateway, pki: Pki) -> None:
    owner = await asyncio.to_thread(hurried.owner)
    async with RecordingUpstream(tls=pki.server_context()) as upstream:
        model = await asyncio.to_thread(bind, owner, pki, upstream.url)
        log = await asyncio.to_thread(Log, owner)
        async with await connect(hurried) as client:
            sent = []
            for number in (1, 2):
                asked, headers, body = prepare(owner, model)
                asked.stream = client.request("POST", "/v1/completions", headers, body)
                sent.append((asked, await (await upstream.arrived(number)).complete()))
            (silent, first), (begun, second) = sent
            second.respond(200, SSE_HEAD)
            second.send(sse("word"))
            await silent.stream.complete()
            await begun.stream.complete()
            assert silent.stream.status == 504
            assert silent.stream.json()["error"]["code"] == "upstream_timeout"
            assert begun.stream.status == 200
            assert begun.stream.body.startswith(sse("word"))
            assert error_event(begun.stream.body)["code"] == "upstream_timeout"
            for request in (first, second):
                await request.reset()
            entries = await log.of([asked.request_id for asked, _ in sent])
            assert [(e["outcome"], e["status"], e["sent"]) for e in entries.values()] == [
                ("upstream_timeout", 504, True)
            ] * 2
            assert (upstream.resets, len(upstream.connections), upstream.faults) == (2, 1, [])
            await upstream.idle()


@pytest.fixture
def ending(tmp_path: Path) -> Iterator[RunningGateway]:
    """A gateway to be stopped."""
    with RunningGateway(tmp_path / "home") as gateway:
        yield gateway


async def test_sigterm_lets_the_stream_finish_and_leaves_nothing(ending: RunningGateway, pki: Pki) -> None:
    owner = await asyncio.to_thread(ending.owner)
    async with RecordingUpstream(tls=pki.server_context()) as upstream:
        model = await asyncio.to_thread(bind, owner, pki, upstream.url)
        async with await connect(ending) as client:
            asked, headers, body = prepare(owner, model)
            asked.stream = client.request("POST", "/v1/completions", headers, body)
            request = await (await upstream.arrived(1)).complete()
            request.respond(200, SSE_HEAD)
            request.send(sse("before"))
            await asked.stream.received(len(sse("before")))
            assert ending.process is not None
            processes = family(ending)
            assert len(processes) >= 4  # supervisor, control process, public tree, worker
            ending.process.send_signal(signal.SIGTERM)
            await client.went_away()
            request.send(sse("after"))
            await asked.stream.received(len(sse("before") + sse("after")))
            request.send(DONE, end=True)
            await asked.stream.complete()
            assert asked.stream.body == sse("before") + sse("after") + DONE
            assert await asyncio.to_thread(ending.process.wait, 40) == 0
        assert upstream.resets == 0
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
    assert not list((ending.home / "audit/spool").iterdir())
    entries = [entry for entry in stored(ending.home, "acme") if entry.get("request_id") == asked.request_id]
    assert [entry["outcome"] for entry in entries] == ["served"]
