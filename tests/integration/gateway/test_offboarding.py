"""Somebody is shut out of three workers: what is refused, in which order, and how long after the call.

The figures are printed (`pytest -s`); what is asserted is that each thing happens, and in which order the server
says that it did."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.oauth.offboard import ACCESS_REFUSED
from tests.integration.gateway.bed import prepare
from tests.integration.gateway.test_live_changes import change
from tests.integration.gateway.world import SSE_HEAD, Member, bind, connect, invite, sse
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway, Session
from tests.kit.h2client import H2Client, H2Stream
from tests.kit.upstream import RecordingUpstream, Request
from tests.kit.wait import eventually

WORKERS = 3
Headers = list[tuple[str, str]]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path_factory.mktemp("fleet") / "home", workers=WORKERS) as running:
        yield running


@pytest.fixture(scope="module")
def operator(gateway: RunningGateway) -> Session:
    return gateway.operator()


@dataclass
class Fleet:
    """A client connection to each worker. They are told apart by their upstream connections."""

    gateway: RunningGateway
    owner: Session
    upstream: RecordingUpstream
    model: str
    clients: list[H2Client] = field(default_factory=list)

    def send(self, client: H2Client, credential: Headers) -> tuple[H2Stream, int]:
        """A streaming completion, and the place of its request at the upstream."""
        _, headers, body = prepare(self.owner, self.model)
        kept = [(name, value) for name, value in headers if name != "authorization"]
        number = len(self.upstream.requests) + 1
        return client.request("POST", "/v1/completions", [*credential, *kept], body), number

    async def reach(self) -> None:
        """Connect until every worker has been met."""
        met: dict[int, H2Client] = {}
        for _ in range(200):
            client = await connect(self.gateway)
            stream, number = self.send(client, list(self.owner.bearer.items()))
            request = await (await self.upstream.arrived(number)).complete()
            request.respond_json({"choices": []})
            assert (await stream.complete()).status == 200
            if request.connection.number in met:
                client.fin()
                await client.disconnected()
            met.setdefault(request.connection.number, client)
            self.clients = list(met.values())
            if len(met) == WORKERS:
                return
        raise AssertionError("200 connections, and a worker was never met")

    async def stream(self, client: H2Client, credential: Headers) -> tuple[H2Stream, Request]:
        """One that has begun to answer."""
        stream, number = self.send(client, credential)
        request = await (await self.upstream.arrived(number)).complete()
        request.respond(200, SSE_HEAD)
        request.send(sse("word"))
        await stream.received(len(sse("word")))
        return stream, request


@asynccontextmanager
async def fleet(gateway: RunningGateway, owner: Session, pki: Pki) -> AsyncIterator[Fleet]:
    async with RecordingUpstream(tls=pki.server_context()) as upstream:
        model = await asyncio.to_thread(bind, owner, pki, upstream.url)
        made = Fleet(gateway, owner, upstream, model)
        try:
            await made.reach()
            yield made
        finally:
            for client in made.clients:
                client.fin()
                await client.disconnected()


async def refused(client: H2Client, credential: Headers) -> tuple[int, str]:
    """Ask until there is no answer with 200 any more: (status, the error's code)."""
    while True:
        stream = client.request("GET", "/v1/models", credential)
        if (await stream.complete()).status != 200:
            return stream.status, stream.json()["error"]["code"]


@dataclass
class Figures:
    """Milliseconds from the call on."""

    began: float = field(default_factory=time.perf_counter)
    ms: dict[str, float] = field(default_factory=dict)

    async def of(self, what: str, happens: Awaitable[Any]) -> Any:
        found = await happens
        self.ms[what] = round((time.perf_counter() - self.began) * 1_000, 1)
        return found


async def shut(
    made: Fleet, act: Callable[[], Any], session: Session, key: str
) -> tuple[Any, dict[str, tuple[int, str]], Figures]:
    """Call `act` while every worker has a stream of `session`'s and another of `key`'s, both are asked without
    pause, and wait until all of it has ended."""
    jwt, static = list(session.bearer.items()), [("authorization", f"Bearer {key}")]
    streams = [await made.stream(client, each) for client in made.clients for each in (jwt, static)]
    figures = Figures()
    waiting = {
        **{f"stream {n} reset upstream": request.reset() for n, (_, request) in enumerate(streams)},
        **{f"stream {n} ended": stream.complete() for n, (stream, _) in enumerate(streams)},
        **{f"access token refused by worker {n}": refused(each, jwt) for n, each in enumerate(made.clients)},
        **{f"personal token refused by worker {n}": refused(each, static) for n, each in enumerate(made.clients)},
        "answered": asyncio.to_thread(act),
    }
    async with asyncio.timeout(60):
        found = await asyncio.gather(*(figures.of(what, happens) for what, happens in waiting.items()))
    ended = dict(zip(waiting, found, strict=True))
    for stream, _ in streams:
        assert json.loads(stream.body.rstrip(b"\n").rsplit(b"\n\n", 1)[-1].removeprefix(b"data: "))["error"]
    return ended["answered"], {what: ended[what] for what in waiting if "refused by" in what}, figures


def tell(title: str, told: dict[str, Any], figures: Figures) -> None:
    print(f"\n{title}: {WORKERS} workers, ms from the call on")
    for step in told["steps"]:
        print(f"  server  {step['ms']:8.1f}  {step['what']}")
    for what, ms in sorted(figures.ms.items(), key=lambda one: one[1]):
        print(f"  client  {ms:8.1f}  {what}")


def personal_token(session: Session) -> tuple[str, str]:
    made = session.admin("POST", "/admin/v1/me/personal-tokens", json={"name": "ci"}).json()
    return made["key"], made["token"]["id"]


def refreshed(gateway: RunningGateway, session: Session) -> tuple[int, str]:
    answer = gateway.token(grant_type="refresh_token", refresh_token=session.refresh_token)
    return answer.status_code, answer.json().get("error", "")


async def test_a_member_is_shut_out_of_every_worker(gateway: RunningGateway, pki: Pki) -> None:
    owner = await asyncio.to_thread(gateway.owner)
    await asyncio.to_thread(change, owner, "", personal_tokens=True)
    ada, ben = [await asyncio.to_thread(invite, gateway, owner, "acme", name, "member") for name in ("ada", "ben")]
    key, name = await asyncio.to_thread(personal_token, ada.session)
    kept, _ = await asyncio.to_thread(personal_token, ben.session)
    await asyncio.to_thread(gateway.sign_in, "acme", "ada@acme.test")
    async with fleet(gateway, owner, pki) as made:
        bens, _ = await made.stream(made.clients[0], list(ben.session.bearer.items()))
        path = f"/admin/v1/orgs/acme/members/{ada.id}/offboard"
        told, refusals, figures = await shut(made, lambda: owner.admin("POST", path).json(), ada.session, key)
        again = await figures.of(
            "refresh refused, asked after all that", asyncio.to_thread(refreshed, gateway, ada.session)
        )
        tell("member offboard", told, figures)
        assert again == (400, "invalid_grant")
        assert set(refusals.values()) == {(401, "invalid_token")}
        assert len(refusals) == 2 * WORKERS
        assert not bens.over
        for credential in (list(ben.session.bearer.items()), [("x-api-key", kept)]):
            for client in made.clients:
                answer = await client.request("GET", "/v1/models", credential).complete()
                assert answer.status == 200
    _judge(told, {"sessions ended, and sign-ins under way": 2})
    await asyncio.to_thread(owner.admin, "GET", f"/admin/v1/orgs/acme/personal-tokens/{name}", expect=404)
    await asyncio.to_thread(_again, owner, ada, path)


def _again(owner: Session, member: Member, path: str) -> None:
    """Repeated, it finds nothing left to end; resumed, nothing comes back."""
    told = owner.admin("POST", path).json()
    assert [step["count"] for step in told["steps"] if step["what"].startswith("sessions")] == [0]
    owner.admin("POST", f"/admin/v1/orgs/acme/members/{member.id}/resume")
    assert refreshed(owner.gateway, member.session) == (400, "invalid_grant")
    assert (
        owner.gateway.http.get(owner.gateway.url + "/v1/models", headers=member.session.bearer).status_code == 401
    )


async def test_an_organization_is_shut_out_of_every_worker(
    gateway: RunningGateway, operator: Session, pki: Pki
) -> None:
    await asyncio.to_thread(operator.admin, "POST", "/admin/v1/orgs", json={"id": "initech", "name": "Initech"})
    boss = (await asyncio.to_thread(invite, gateway, operator, "initech", "boss", "owner")).session
    await asyncio.to_thread(change, boss, "", personal_tokens=True)
    key, _ = await asyncio.to_thread(personal_token, boss)
    async with fleet(gateway, boss, pki) as made:
        path = "/admin/v1/orgs/initech/suspend"
        told, refusals, figures = await shut(made, lambda: operator.admin("POST", path).json(), boss, key)
        tell("org suspend", told, figures)
        said = {what.split(" refused")[0]: code for what, (_, code) in refusals.items()}
        assert said == {"access token": "organization_suspended", "personal token": "invalid_token"}
    _judge(told, {"sessions ended, sign-ins under way, and invitations": 1})
    await asyncio.to_thread(operator.admin, "POST", "/admin/v1/orgs/initech/resume")
    assert await asyncio.to_thread(refreshed, gateway, boss) == (400, "invalid_grant")
    for credential in (boss.bearer, {"authorization": f"Bearer {key}"}):
        answer = await asyncio.to_thread(gateway.http.get, gateway.url + "/v1/models", headers=credential)
        assert answer.status_code == 401


def _judge(told: dict[str, Any], counted: dict[str, int]) -> None:
    """What the server says it did: in this order, by every worker, and what there was of it."""
    steps = {step["what"]: step for step in told["steps"]}
    assert told["fenced"] == []
    assert [step["ms"] for step in told["steps"]] == sorted(step["ms"] for step in told["steps"])
    assert steps[ACCESS_REFUSED]["count"] == WORKERS
    assert {what: steps[what]["count"] for what in counted} == counted
    names = list(steps)
    assert names[0].startswith("suspended")
    assert names[1] == "streams in flight told to end"
    assert names.index(ACCESS_REFUSED) == len(names) - 2


async def test_when_a_personal_token_was_used_comes_from_the_workers(
    gateway: RunningGateway, operator: Session
) -> None:
    await asyncio.to_thread(operator.admin, "POST", "/admin/v1/orgs", json={"id": "hooli", "name": "Hooli"})
    boss = (await asyncio.to_thread(invite, gateway, operator, "hooli", "gavin", "owner")).session
    await asyncio.to_thread(change, boss, "", personal_tokens=True)
    key, name = await asyncio.to_thread(personal_token, boss)
    used = await asyncio.to_thread(
        gateway.http.get, gateway.url + "/v1/models", headers={"authorization": f"Bearer {key}"}
    )
    assert used.status_code == 200
    path = f"/admin/v1/me/personal-tokens/{name}"

    def known() -> bool:
        return bool(boss.admin("GET", path).json()["used_at"])

    await eventually(known, "its use is known", patience_s=60)
    at = (await asyncio.to_thread(boss.admin, "GET", path)).json()["used_at"]
    assert at % 60 == 0
    entries = (await asyncio.to_thread(boss.admin, "GET", "/admin/v1/orgs/hooli/audit/entries")).json()["items"]
    (entry,) = [one for one in entries if one["action"] == "model.list"]
    assert (entry["client"], entry["token_id"]) == ("personal-token", name)
