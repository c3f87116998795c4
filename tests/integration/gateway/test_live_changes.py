"""Two workers: what an admin changes holds on both when the call returns, and either half may be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.bed import prepare
from tests.integration.gateway.refusals import refused
from tests.integration.gateway.world import KEY, Log, bind, connect, family, invite, new_request_id
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway, Session
from tests.kit.h2client import H2Client, H2Stream
from tests.kit.scripts import openai
from tests.kit.upstream import RecordingUpstream, Request, Script

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path_factory.mktemp("pair") / "home", workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def owner(gateway: RunningGateway) -> Session:
    return gateway.owner()


@pytest.fixture(scope="module")
def operator(gateway: RunningGateway) -> Session:
    return gateway.operator()


@dataclass
class Pair:
    """A client connection to each of the two workers. They are told apart by their upstream connections."""

    gateway: RunningGateway
    owner: Session
    upstream: RecordingUpstream
    model: str
    clients: list[H2Client] = field(default_factory=list)

    def send(self, client: H2Client, session: Session | None = None, **fields: Any) -> H2Stream:
        _, headers, body = prepare(session or self.owner, self.model, stream=False, **fields)
        return client.request("POST", "/v1/completions", headers, body)

    async def each(self, session: Session | None = None) -> list[tuple[H2Stream, Request | None]]:
        """One request at each worker, and what came of it upstream, if anything did."""
        seen = []
        for client in self.clients:
            before = len(self.upstream.requests)
            stream = await self.send(client, session).complete()
            sent = self.upstream.requests[before:]
            seen.append((stream, sent[0] if sent else None))
        return seen

    async def reach(self) -> None:
        """Connect until both workers have been met."""
        by_worker: dict[int, H2Client] = {}
        for _ in range(100):
            client = await connect(self.gateway)
            number = len(self.upstream.requests)
            assert (await self.send(client).complete()).status == 200
            worker = self.upstream.requests[number].connection.number
            if worker in by_worker:
                client.fin()
                await client.disconnected()
            by_worker.setdefault(worker, client)
            if len(by_worker) == 2:
                self.clients = list(by_worker.values())
                return
        raise AssertionError("a hundred connections, and one of the workers was never met")


@asynccontextmanager
async def pair(
    gateway: RunningGateway, owner: Session, pki: Pki, script: Script | None = None
) -> AsyncIterator[Pair]:
    async with RecordingUpstream(tls=pki.server_context(), script=script or openai()) as upstream:
        model = await asyncio.to_thread(bind, owner, pki, upstream.url)
        made = Pair(gateway, owner, upstream, model)
        try:
            await made.reach()
            yield made
        finally:
            for client in made.clients:
                client.fin()
                await client.disconnected()


def change(owner: Session, path: str, **fields: Any) -> None:
    """Replace one item's fields, with its version as the condition."""
    whole = f"/admin/v1/orgs/{owner.org}/{path}"
    found = owner.admin("GET", whole)
    body = {name: value for name, value in found.json().items() if name not in ("org", "version")}
    owner.admin("PUT", whole, json={**body, **fields}, headers={"if-match": found.headers["etag"]})


def remove(owner: Session, path: str) -> None:
    whole = f"/admin/v1/orgs/{owner.org}/{path}"
    owner.admin("DELETE", whole, headers={"if-match": owner.admin("GET", whole).headers["etag"]})


async def test_what_is_changed_holds_on_every_worker(gateway: RunningGateway, owner: Session, pki: Pki) -> None:
    async with pair(gateway, owner, pki) as both:
        for turn in range(3):
            await asyncio.to_thread(change, owner, f"models/{both.model}", model=f"model-{turn}")
            for stream, request in await both.each():
                assert stream.headers["x-orgate-model"] == f"model-{turn}"
                assert request is not None
                assert request.json()["model"] == f"model-{turn}"
            path = f"/admin/v1/orgs/acme/upstreams/{both.model}/key"
            await asyncio.to_thread(owner.admin, "PUT", path, json={"key": f"{KEY}-{turn}"})
            for _, request in await both.each():
                assert request is not None
                assert request.headers["authorization"] == f"Bearer {KEY}-{turn}"
            rule = {"effect": "deny", "roles": ["owner"], "actions": ["completions"], "models": [both.model]}
            await asyncio.to_thread(owner.create, "rules", name="not-now", **rule)
            for stream, request in await both.each():
                error = refused(stream.status, stream.headers, stream.body, expect=403, code="forbidden")
                assert error["rule"] == "not-now"
                assert request is None
            await asyncio.to_thread(remove, owner, "rules/not-now")
            assert [stream.status for stream, _ in await both.each()] == [200, 200]
            limit = {"scope": "model", "subject": both.model, "unit": "requests", "amount": 1, "period_s": 86_400}
            await asyncio.to_thread(owner.create, "limits", name=f"once-{turn}", **limit)
            assert sorted(stream.status for stream, _ in await both.each()) == [200, 429]
            await asyncio.to_thread(remove, owner, f"limits/once-{turn}")
            assert [stream.status for stream, _ in await both.each()] == [200, 200]


async def test_access_taken_back_is_gone_on_every_worker(
    gateway: RunningGateway, owner: Session, pki: Pki
) -> None:
    async with pair(gateway, owner, pki) as both:
        cora = await asyncio.to_thread(invite, gateway, owner, "acme", "cora", "member")
        assert [stream.status for stream, _ in await both.each(cora.session)] == [200, 200]
        both.upstream.script = None
        number = len(both.upstream.requests)
        open_streams = [both.send(client, cora.session) for client in both.clients]
        requests = [await (await both.upstream.arrived(number + i)).complete() for i in (1, 2)]
        await asyncio.to_thread(owner.admin, "POST", f"/admin/v1/orgs/acme/members/{cora.id}/suspend")
        for stream, request in zip(open_streams, requests, strict=True):
            await request.reset()
            assert (await stream.complete()).status == 401
        both.upstream.script = openai()
        assert [stream.status for stream, _ in await both.each(cora.session)] == [401, 401]
        assert [stream.status for stream, _ in await both.each()] == [200, 200]


@pytest.mark.parametrize("burst", [25, 200])
async def test_a_limit_is_exact_over_both_workers(
    gateway: RunningGateway, owner: Session, pki: Pki, burst: int
) -> None:
    async with pair(gateway, owner, pki) as both:
        limit = {"scope": "model", "subject": both.model, "unit": "requests", "period_s": 86_400}
        await asyncio.to_thread(owner.create, "limits", name=f"{both.model}-limit", amount=burst, **limit)
        number = len(both.upstream.requests)
        streams = []
        for _ in range(burst // 25 + 1):
            some = [both.send(client) for client in both.clients for _ in range(25)]
            await asyncio.gather(*(stream.complete() for stream in some))
            streams += some
        statuses = [stream.status for stream in streams]
        assert statuses.count(200) == burst == len(both.upstream.requests) - number
        for stream in streams:
            if stream.status != 200:
                error = refused(stream.status, stream.headers, stream.body, expect=429, code="rate_limit_exceeded")
                assert error["limit"] == f"{both.model}-limit"
                assert int(stream.headers["retry-after"]) > 0


async def test_concurrency_is_exact_over_both_workers(gateway: RunningGateway, owner: Session, pki: Pki) -> None:
    async with pair(gateway, owner, pki) as both:
        limit = {"scope": "model", "subject": both.model, "unit": "concurrency", "amount": 4, "period_s": 0}
        await asyncio.to_thread(owner.create, "limits", name=f"{both.model}-limit", **limit)
        for _ in range(3):
            both.upstream.script = hold
            number = len(both.upstream.requests)
            streams = [both.send(client) for client in both.clients for _ in range(8)]
            for count in range(1, 5):
                await both.upstream.arrived(number + count)
            await all_but(4, streams)
            assert [stream.status for stream in streams if stream.over] == [429] * 12
            assert len(both.upstream.requests) == number + 4
            for request in both.upstream.requests[number:]:
                request.respond_json({"choices": []})
            await asyncio.gather(*(stream.complete() for stream in streams))
            await both.upstream.idle()


def hold(request: Request) -> None:
    """Answers nothing: the test does."""


async def all_but(count: int, streams: list[H2Stream]) -> None:
    """Wait until all streams but `count` are over."""
    waiting = {asyncio.ensure_future(stream.finished()) for stream in streams}
    over = 0
    while over < len(streams) - count:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        over += len(done)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def part(gateway: RunningGateway, name: str) -> int:
    """The process id of the control process or of the public tree."""
    for pid in family(gateway):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"gateway.app" in words and words[words.index(b"gateway.app") + 1] == name.encode():
            return pid
    raise AssertionError(f"no {name} process")


def children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


async def settle(what: str, condition: Any) -> None:
    """Wait for something in another process that nobody announces."""
    end = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end, f"waited {PATIENCE_S} s for {what}"
        await asyncio.sleep(0.05)


def both_live(operator: Session) -> list[str]:
    """The workers' names, once two of them serve what is published."""
    found = operator.admin("GET", "/admin/v1/status").json()
    live = [worker["worker"] for worker in found["workers"] if worker["state"] == "live"]
    return live if len(live) == 2 == len(found["workers"]) else []


async def ask_for_models(client: H2Client, owner: Session, count: int) -> list[str]:
    """Answered requests, by id."""
    asked = []
    for _ in range(count):
        request_id = new_request_id()
        headers = [*owner.bearer.items(), ("x-request-id", request_id)]
        asked.append((request_id, client.request("GET", "/v1/models", headers)))
    for _, stream in asked:
        assert (await stream.complete()).status == 200
    return [request_id for request_id, _ in asked]


async def test_a_killed_worker_is_replaced_and_its_entries_are_kept(
    gateway: RunningGateway, owner: Session, operator: Session, pki: Pki
) -> None:
    async with pair(gateway, owner, pki) as both:
        await settle("both workers", lambda: both_live(operator))
        before = both_live(operator)
        log = await asyncio.to_thread(Log, owner)
        answered = []
        for client in both.clients:
            answered += await ask_for_models(client, owner, 40)
        victim = children(part(gateway, "public"))[0]
        os.kill(victim, signal.SIGKILL)  # within the 50 ms in which the last entries are on their way
        await asyncio.wait(
            [asyncio.ensure_future(client.disconnected()) for client in both.clients],
            return_when=asyncio.FIRST_COMPLETED,
        )
        survivor = next(client for client in both.clients if not client.closed)
        answered += await ask_for_models(survivor, owner, 5)
        await settle("the new worker", lambda: len(set(both_live(operator)) - set(before)) == 1)
        both.clients = []
        survivor.fin()
        await survivor.disconnected()
        await log.of(answered)
        await both.reach()
        await asyncio.to_thread(change, owner, f"models/{both.model}", model="another")
        assert [stream.headers["x-orgate-model"] for stream, _ in await both.each()] == ["another"] * 2


async def test_what_was_under_way_in_a_killed_worker_has_an_entry_that_says_so(
    gateway: RunningGateway, owner: Session, operator: Session, pki: Pki
) -> None:
    """In an organization that is strict also where it went: that was on the disk before it was sent."""
    answering, answer = asyncio.Event(), openai()
    answering.set()

    async def hold(request: Request) -> None:
        await answering.wait()
        answer(request)

    organization = owner.admin("GET", "/admin/v1/orgs/acme")
    strict = {**organization.json(), "durability": "strict"}
    changed = await asyncio.to_thread(
        owner.admin, "PUT", "/admin/v1/orgs/acme", json=strict, headers={"if-match": organization.headers["etag"]}
    )
    assert changed.json()["durability"] == "strict"
    async with pair(gateway, owner, pki, hold) as both:
        await settle("both workers", lambda: both_live(operator))
        log = await asyncio.to_thread(Log, owner)
        answering.clear()
        seen = len(both.upstream.requests)
        asked = [prepare(owner, both.model, stream=False) for _ in both.clients]
        streams = [
            client.request("POST", "/v1/completions", headers, body)
            for client, (_, headers, body) in zip(both.clients, asked, strict=True)
        ]
        await settle("both requests to be at the upstream", lambda: len(both.upstream.requests) == seen + 2)
        os.kill(children(part(gateway, "public"))[0], signal.SIGKILL)
        lost, ended = await asyncio.wait(
            [asyncio.ensure_future(client.disconnected()) for client in both.clients],
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert (len(lost), len(ended)) == (1, 1)
        answering.set()
        survivor = next(n for n, client in enumerate(both.clients) if not client.closed)
        assert (await streams[survivor].complete()).status == 200
        found = await log.of([one.request_id for one, _, _ in asked])
        entries = [found[one.request_id] for one, _, _ in asked]
        served, unknown = entries[survivor], entries[1 - survivor]
        assert (served["outcome"], unknown["outcome"]) == ("served", "unknown")
        same = (
            "actor",
            "client",
            "action",
            "model",
            "upstream",
            "upstream_model",
            "key_version",
            "rule",
            "policy",
        )
        assert [unknown[name] for name in same] == [served[name] for name in same]
        assert not {"status", "sent", "prompt_tokens"} & unknown.keys()
        await settle("the new worker", lambda: both_live(operator))


async def test_the_data_plane_outlives_the_control_process(
    gateway: RunningGateway, owner: Session, operator: Session, pki: Pki
) -> None:
    async with pair(gateway, owner, pki) as both:
        await settle("both workers", lambda: both_live(operator))
        log = await asyncio.to_thread(Log, owner)
        victim = part(gateway, "control")
        os.kill(victim, signal.SIGKILL)
        await settle("its death", lambda: victim not in family(gateway))
        signing_in = await asyncio.to_thread(gateway.token, grant_type="refresh_token", refresh_token="none")
        assert (signing_in.status_code, signing_in.json()["error"]) == (503, "temporarily_unavailable")
        assert signing_in.headers["retry-after"] == "1"
        answered = []
        for client in both.clients:
            answered += await ask_for_models(client, owner, 20)
        assert [stream.status for stream, _ in await both.each()] == [200, 200]
        await asyncio.to_thread(gateway.wait_ready)
        await settle("both workers", lambda: both_live(operator))
        again = await asyncio.to_thread(
            gateway.token, grant_type="refresh_token", refresh_token=owner.refresh_token
        )
        assert again.status_code == 200
        owner.refresh_token = again.json()["refresh_token"]
        await log.of(answered)
        await asyncio.to_thread(change, owner, f"models/{both.model}", model="after")
        assert [stream.headers["x-orgate-model"] for stream, _ in await both.each()] == ["after"] * 2
        assert not any(client.closed for client in both.clients)
