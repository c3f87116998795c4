"""The server is told to stop with streams open: some are cancelled then, some finish, and all are in the log."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.gateway.bed import CLIENT, Asked, prepare
from tests.integration.gateway.invariants import judge_entries, judge_upstream, verified_log
from tests.integration.gateway.world import DONE, SSE_HEAD, bind, connect, family, sse, stored
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway
from tests.kit.upstream import RecordingUpstream, Request

WORD = sse("word")
STREAMS = 6


@pytest.fixture
def ending(tmp_path: Path) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path / "home") as gateway:
        yield gateway


async def test_sigterm_in_mid_stream(ending: RunningGateway, pki: Pki, tmp_path: Path) -> None:
    """Half of them are cancelled while the server drains: they are reset upstream as ever, the others finish, and
    nothing is left behind. Started again, the same log goes on."""
    owner = await asyncio.to_thread(ending.owner)
    async with RecordingUpstream(tls=pki.server_context()) as upstream:
        model = await asyncio.to_thread(bind, owner, pki, upstream.url)
        open_ones: list[tuple[Asked, Request]] = []
        async with await connect(ending) as client:
            for number in range(1, STREAMS + 1):
                asked, headers, body = prepare(owner, model)
                asked.stream = client.request("POST", "/v1/completions", headers, body)
                request = await (await upstream.arrived(number)).complete()
                if number > 2:  # one to be cancelled and one to finish have no head yet
                    request.respond(200, SSE_HEAD)
                    request.send(WORD)
                    await asked.stream.received(len(WORD))
                open_ones.append((asked, request))
            assert ending.process is not None
            processes = family(ending)
            ending.process.send_signal(signal.SIGTERM)
            await client.went_away()
            for asked, request in open_ones[::2]:
                asked.outcome, asked.entry = CLIENT, {"sent": True, "status": 499}
                asked.stream.reset()
                await request.reset()
            for asked, request in open_ones[1::2]:
                if not request.responded:
                    request.respond(200, SSE_HEAD)
                request.send(WORD + DONE, end=True)
                await asked.stream.complete()
                assert asked.stream.body.endswith(WORD + DONE)
            assert await asyncio.to_thread(ending.process.wait, 40) == 0
        asked_of_it = [asked for asked, _ in open_ones]
        judge_upstream(upstream, asked_of_it, resets=STREAMS // 2, connections=1)
        assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
        assert not list((ending.home / "audit/spool").iterdir())
        written = [entry for entry in stored(ending.home, "acme") if "total_us" in entry]
        assert sorted(entry["request_id"] for entry in written) == sorted(each.request_id for each in asked_of_it)
        judge_entries(asked_of_it, {entry["request_id"]: entry for entry in written})
        await asyncio.to_thread(ending.start)
        async with await connect(ending) as client:
            fresh, headers, body = prepare(owner, model)
            fresh.stream = client.request("POST", "/v1/completions", headers, body)
            request = await (await upstream.arrived(STREAMS + 1)).complete()
            request.respond_json({"object": "text_completion", "choices": []})
            await fresh.stream.complete()
            assert fresh.stream.status == 200
        lines = await asyncio.to_thread(verified_log, owner, tmp_path / "pack")
        assert sum(b"completion.create" in line for line in lines) >= STREAMS
