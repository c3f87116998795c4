"""A full upstream through the whole gateway: who goes first, who is told to come again, who is never sent."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.gateway.invariants import metrics
from tests.integration.gateway.world import READ_S, Entry, Log, World, bind, new_request_id
from tests.kit.gateway import Session
from tests.kit.h2client import H2Client, H2Stream
from tests.kit.upstream import RecordingUpstream, Request

MESSAGES = [{"role": "user", "content": "hello"}]
TOOLS = [{"type": "function", "function": {"name": "grep", "parameters": {}}}]
COMPLETION: tuple[str, Entry] = ("/v1/completions", {"prompt": "def f("})
CHAT: tuple[str, Entry] = ("/v1/chat/completions", {"messages": MESSAGES})
AGENT: tuple[str, Entry] = ("/v1/chat/completions", {"messages": MESSAGES, "tools": TOOLS})


@dataclass
class Line:
    """One upstream that is full from the beginning: `holder` has all there is of it."""

    world: World
    upstream: RecordingUpstream
    client: H2Client
    model: str
    log: Log
    asked: dict[str, H2Stream] = field(default_factory=dict)
    served: int = 0

    def ask(
        self,
        call: tuple[str, Entry] = CHAT,
        *,
        session: Session | None = None,
        model: str = "",
        headers: Sequence[tuple[str, str]] = (),
    ) -> tuple[str, H2Stream]:
        """Returns the request's id, which the upstream sees as `user`, and the client's end."""
        session, path, request_id = session or self.world.ada.session, call[0], new_request_id()
        body = {"model": model or self.model, "user": request_id, **call[1]}
        head = [*session.bearer.items(), ("content-type", "application/json"), ("x-request-id", request_id)]
        stream = self.client.request("POST", path, [*head, *headers], json.dumps(body).encode())
        self.asked[request_id] = stream
        return request_id, stream

    async def queued(self, **lanes: int) -> None:
        """Wait until so many wait in each lane named, over all organizations."""
        for lane, count in lanes.items():
            await self.counted("orgate_upstream_queue", count, lane=lane)

    async def counted(self, name: str, value: float, **labels: str) -> None:
        """Wait until the samples of `name` with these labels have that sum."""
        loop = asyncio.get_running_loop()
        end = loop.time() + READ_S
        while True:
            samples = (await asyncio.to_thread(metrics, self.world.gateway)).get(name, [])
            found = sum(value for said, value in samples if labels.items() <= said.items())
            if found == value:
                return
            assert loop.time() < end, (name, labels, found, value)
            await asyncio.sleep(0.1)  # workers report once a second

    async def serve(self) -> Request:
        """Answer the next request that has come to the upstream."""
        self.served += 1
        request = await (await self.upstream.arrived(self.served)).complete()
        request.respond_json({"object": "text_completion", "choices": []})
        return request

    @property
    def sent(self) -> list[str]:
        """The ids of what the upstream has seen, in order."""
        return [request.json()["user"] for request in self.upstream.requests]


@asynccontextmanager
async def full(
    world: World, *, streams: int = 100, limits: Sequence[Entry] = (), **binding: Any
) -> AsyncIterator[Line]:
    """`streams`: what the upstream allows at once on a connection; `binding`: more fields of the upstream's."""
    async with RecordingUpstream(tls=world.pki.server_context(), max_concurrent_streams=streams) as upstream:
        model = await asyncio.to_thread(bind, world.owner, world.pki, upstream.url, limits=limits, **binding)
        log = await asyncio.to_thread(Log, world.owner)
        async with await world.connect() as client:
            line = Line(world, upstream, client, model, log)
            line.ask()
            await upstream.arrived(1)
            yield line
            await upstream.idle()
            assert not upstream.faults


async def test_completions_overtake_chat_and_chat_overtakes_agents(world: World) -> None:
    """The upstream itself allows one stream on its only connection."""
    async with full(world, streams=1) as line:
        agent, _ = line.ask(AGENT)
        modest, _ = line.ask(COMPLETION, headers=[("x-orgate-lane", "agent")])
        chat, _ = line.ask(CHAT)
        completion, _ = line.ask(COMPLETION)
        await line.queued(agent=2, chat=1, completion=1)
        for _ in range(5):
            await line.serve()
        for stream in line.asked.values():
            assert (await stream.complete()).status == 200
        assert line.sent[1:] == [completion, chat, agent, modest]


async def test_lane_that_is_none_is_refused(world: World) -> None:
    async with full(world) as line:
        _, stream = line.ask(CHAT, headers=[("x-orgate-lane", "first")])
        assert (await stream.complete()).status == 400
        assert stream.json()["error"]["param"] == "x-orgate-lane"
        await line.serve()


async def test_one_too_many_is_told_when_to_come_again_and_is_not_charged(world: World) -> None:
    """Three requests an hour are allowed; the one that is refused is not one of them."""
    limit = {"unit": "requests", "amount": 3, "period_s": 3_600}
    async with full(world, max_in_flight=1, max_queue=1, limits=[limit]) as line:
        line.ask(CHAT)
        await line.queued(chat=1)
        refused, stream = line.ask(CHAT)
        assert (await stream.complete()).status == 503
        assert stream.json()["error"]["code"] == "upstream_saturated"
        assert 1 <= int(stream.headers["retry-after"]) <= 30
        for _ in range(2):
            await line.serve()
        last, again = line.ask(CHAT)
        await line.serve()
        assert (await again.complete()).status == 200
        assert refused not in line.sent
        entries = await line.log.of([refused, last])
        assert (entries[refused]["outcome"], entries[refused]["error"]) == ("refused", "upstream_saturated")
        assert entries[refused]["sent"] is False
        await line.counted("orgate_upstream_shed_total", 1, org="acme", upstream=line.model, lane="chat")


async def test_request_out_of_time_in_line_is_never_sent(world: World) -> None:
    async with full(world, max_in_flight=1) as line:
        late, stream = line.ask(CHAT, headers=[("x-request-timeout-ms", "300")])
        last, _ = line.ask(CHAT)
        assert (await stream.complete()).status == 504
        for _ in range(2):
            await line.serve()
        await line.asked[last].complete()
        assert line.sent[1:] == [last]
        entries = await line.log.of([late, last])
        assert entries[late]["outcome"] == "upstream_timeout"
        assert entries[last]["outcome"] == "served"


async def test_request_cancelled_in_line_is_never_sent(world: World) -> None:
    async with full(world, max_in_flight=1) as line:
        gone, stream = line.ask(CHAT)
        last, _ = line.ask(CHAT)
        await line.queued(chat=2)
        stream.reset()
        entries = await line.log.of([gone])
        assert entries[gone]["outcome"] == "cancelled_by_client"
        for _ in range(2):
            await line.serve()
        await line.asked[last].complete()
        assert line.sent[1:] == [last]
        assert line.upstream.resets == 0


async def test_organizations_take_turns_at_one_origin(world: World) -> None:
    """Two organizations know the same machine, each with a cap of one: acme's many don't hold up globex."""
    async with full(world, max_in_flight=1) as line:
        theirs = await asyncio.to_thread(bind, world.eve, world.pki, line.upstream.url, max_in_flight=1)
        ours = [line.ask(CHAT)[0] for _ in range(4)]
        await line.queued(chat=4)
        others = [line.ask(CHAT, session=world.eve, model=theirs)[0] for _ in range(2)]
        await line.queued(chat=6)
        await line.counted("orgate_upstream_connections", 1, org="globex", upstream=theirs)  # else passed over
        for _ in range(7):
            assert line.upstream.open_streams <= 1
            await line.serve()
        for stream in line.asked.values():
            assert (await stream.complete()).status == 200
        turns = ["globex" if each in others else "acme" for each in line.sent[1:]]
        assert [each for each in line.sent if each in ours] == ours
        assert [each for each in line.sent if each in others] == others
        assert max(len(list(run)) for org, run in itertools.groupby(turns[: turns.index("globex") + 3])) <= 2
        assert turns.index("globex") <= 1
        assert len({request.connection.number for request in line.upstream.requests}) == 2
