"""What was under way when the stream was reset still arrives: it costs nobody anything."""

from __future__ import annotations

import pytest

from tests.integration.gateway.bed import CLIENT, lay
from tests.integration.gateway.world import SSE_HEAD, World, sse

PIECE = b"x" * 8_192
FRAMES = 900
"""7 MB after each reset: within what is left of a connection's window, and in all more than twice all of it. More
than a thousand frames have ended connections of other clients."""
ROUNDS = 5


@pytest.mark.parametrize("begun", [True, False], ids=["in mid-stream", "before the head"])
async def test_late_data(world: World, begun: bool) -> None:
    """Its flow-control credit comes back, and not every frame of it is answered with one more reset."""
    async with lay(world) as bed:
        for _ in range(ROUNDS):
            asked, request = await bed.next()
            if begun:
                request.respond(200, SSE_HEAD)
                request.send(sse("word"))
                await asked.stream.received(len(sse("word")))
            asked.stream.reset()
            await request.reset()
            asked.outcome, asked.entry = CLIENT, {"completion_tokens": int(begun)}
            if not begun:
                request.respond_late(200, [*SSE_HEAD, ("x-served-by", f"machine-{request.number}")])
            for _ in range(FRAMES):
                request.send_late(PIECE)
            # The header it adds is in HPACK's table from here on: whoever skipped the late head misreads the next.
            request.respond_late(200, [("x-served-by", f"machine-{request.number}")])
            await bed.canary.beat()
        await bed.verify(resets=ROUNDS)
        assert bed.upstream.reset_frames == ROUNDS


async def test_the_end_of_the_answer_crosses_the_reset(world: World) -> None:
    """The upstream had finished: whichever was first, the stream is over on both sides and charged once."""
    async with lay(world) as bed:
        asked, request = await bed.next()
        request.respond(200, SSE_HEAD)
        request.send(sse("a") + sse("b"))
        await asked.stream.received(2 * len(sse("a")))
        request.send(sse("c"), end=True)
        asked.stream.reset()
        entry = (await bed.log.of([asked.request_id]))[asked.request_id]
        asked.outcome = entry["outcome"]
        assert asked.outcome in (CLIENT, "served")
        assert entry["completion_tokens"] in (2, 3)
        await bed.verify(resets=0)  # it had ended there
