"""3,000 requests, nearly half of them cancelled at random moments: what a day of typing looks like.

Seeded; the moments are random on purpose, the judgement is not: whatever the moment, a cancelled stream is
reset upstream or had ended, nothing else is touched, and each request is in the audit log exactly once.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.gateway.bed import Asked, prepare
from tests.integration.gateway.invariants import judge_log
from tests.integration.gateway.world import Log, World, bind
from tests.kit.gateway import Session
from tests.kit.h2client import H2Client
from tests.kit.marker import MARKER
from tests.kit.scripts import openai
from tests.kit.upstream import RecordingUpstream, Request, Script

REQUESTS = 3_000
CANCELLED = 0.45
CLIENTS = 6
AT_ONCE = 8
"""Requests in flight on each client connection."""
CONNECTIONS = 4
CHUNKS = 6

MOMENTS = ("at once", "before the head", "at the head", "in the middle")


@dataclass
class Done:
    """One request as its client saw it. `moment`: when it was cancelled, '' when it was not."""

    asked: Asked
    stream: bool
    moment: str

    @property
    def wrong(self) -> bool:
        """Not cancelled, and yet not the whole answer."""
        end = self.asked.stream
        whole = b"[DONE]" if self.stream else b'"usage"'
        return not self.moment and not (end.status == 200 and end.ended and whole in end.body)


async def one(client: H2Client, session: Session, model: str, prompt: str, dice: random.Random) -> Done:
    stream, moment = dice.random() < 0.6, ""
    if dice.random() < CANCELLED:
        moment = dice.choice(MOMENTS)
    asked, headers, body = prepare(session, model, stream=stream, prompt=prompt)
    send = client.request_and_reset if moment == "at once" else client.request
    asked.stream = send("POST", "/v1/completions", headers, body)
    match moment:
        case "before the head":
            await asyncio.sleep(dice.random() * 0.03)
        case "at the head":
            await client.signal.until(lambda: asked.stream.status or asked.stream.over, "the head")
        case "in the middle":
            await client.signal.until(lambda: asked.stream.chunks or asked.stream.over, "a chunk")
        case "":
            await asked.stream.finished()
    if moment and moment != "at once":
        if asked.stream.over:
            return Done(asked, stream, "too late")
        asked.stream.reset()
    return Done(asked, stream, moment)


def paced(dice: random.Random) -> Script:
    """Some answers come in one burst, some slowly; some keep one waiting."""
    scripts = [
        openai(chunks=CHUNKS),
        openai(chunks=CHUNKS, first_byte_s=0.01, pace_s=0.002),
        openai(chunks=CHUNKS, first_byte_s=0.03),
    ]

    def script(request: Request) -> Coroutine[Any, Any, None] | None:
        return dice.choice(scripts)(request)

    return script


@pytest.mark.slow
async def test_thousands_of_cancellations_touch_nobody_else(world: World) -> None:
    dice = random.Random(20_26)
    async with RecordingUpstream(tls=world.pki.server_context(), script=paced(random.Random(7))) as upstream:
        model = await asyncio.to_thread(bind, world.owner, world.pki, upstream.url, connections=CONNECTIONS)
        log = await asyncio.to_thread(Log, world.owner)
        clients = [await world.connect() for _ in range(CLIENTS)]
        left = iter(range(REQUESTS))
        done: dict[int, Done] = {}

        async def editor(client: H2Client, session: Session) -> None:
            for number in left:
                done[number] = await one(client, session, model, f"{MARKER} {number}", dice)

        people = (world.ada.session, world.ben.session)
        await asyncio.gather(*(editor(client, people[i % 2]) for client in clients for i in range(AT_ONCE)))
        await upstream.idle()
        entries = await log.of([each.asked.request_id for each in done.values()])
        outcome = {number: entries[each.asked.request_id]["outcome"] for number, each in done.items()}
        cancelled = {number for number, each in done.items() if each.moment}
        upstreams = {int(request.json()["prompt"].removeprefix(MARKER)): request for request in upstream.requests}
        reset = {number for number, request in upstreams.items() if request.was_reset}
        figures = {
            "requests": len(done),
            "cancelled": len(cancelled),
            "sent_upstream": len(upstream.requests),
            "reset_or_done": sum(request.was_reset is not None or request.ended for request in upstream.requests),
            "reset": len(reset),
            "dangling": upstream.open_streams,
            "spurious": len(reset - cancelled),
            "innocent_failures": sum(each.wrong for each in done.values()),
            "connections": len(upstream.connections),
            "clients_lost": sum(client.closed for client in clients),
            **{f"entries_{name}": count for name, count in sorted(Counter(outcome.values()).items())},
        }
        print("\nsoak:", json.dumps(figures))
        for client in clients:
            assert (client.faults, client.goaway_code, client.closed) == ([], None, False)
            client.fin()
            await client.disconnected()
        assert len(done) == REQUESTS
        assert len(cancelled) > REQUESTS * 0.4
        assert figures["dangling"] == figures["spurious"] == figures["innocent_failures"] == 0
        assert figures["reset_or_done"] == len(upstream.requests) == len(upstreams)
        assert len(upstream.connections) <= CONNECTIONS
        assert upstream.faults == []
        assert {number for number, each in done.items() if entries[each.asked.request_id]["sent"]} >= set(
            upstreams
        )
        # Reset, and yet served: only if the whole answer had come, and the end of the stream alone was missing.
        late = [entries[done[number].asked.request_id] for number in reset if outcome[number] == "served"]
        whole = {(entry["completion_tokens"], entry["tokens_counted"]) for entry in late}
        assert whole <= {(CHUNKS, False)}, late
        assert {outcome[number] for number in done.keys() - cancelled} == {"served"}
        assert set(outcome.values()) == {"served", "cancelled_by_client"}
        assert len(reset) - len(late) > REQUESTS / 6
    for session in (world.owner, world.eve):
        await judge_log(session)
