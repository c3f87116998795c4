"""One stream is cancelled, at each moment of its life, and nobody beside it notices.

Through the whole gateway over real TLS: raw HTTP/2 client → gateway → recording upstream. What holds after
each is in `invariants`: no stream left open upstream, exactly the resets that were asked for, the same
connections, an undisturbed stream beside it, budgets exact, one audit entry each.
"""

from __future__ import annotations

import pytest

from tests.integration.gateway.bed import CLIENT, Asked, lay, prepare
from tests.integration.gateway.world import SSE_HEAD, World, sse
from tests.kit.h2client import H2Client

IN_ONE_FLIGHT = 15
"""Granian ends a connection after 20 resets of streams it has not looked at yet: rapid reset's signature."""


async def test_before_the_headers(world: World) -> None:
    async with lay(world) as bed:
        asked, request = await bed.next()
        asked.stream.reset()
        await request.reset()
        asked.outcome, asked.entry = CLIENT, {"status": 499, "sent": True, "completion_tokens": 0}
        await bed.canary.beat()
        await bed.verify(resets=1)


async def test_after_the_headers_while_the_model_is_silent(world: World) -> None:
    async with lay(world) as bed:
        asked, request = await bed.next()
        request.respond(200, SSE_HEAD)
        assert await asked.stream.head() == 200
        asked.stream.reset()
        await request.reset()
        asked.outcome, asked.entry = CLIENT, {"status": 499, "sent": True, "completion_tokens": 0}
        await bed.verify(resets=1)


@pytest.mark.parametrize("chunks", [1, 5, 50])
async def test_after_some_chunks(world: World, chunks: int) -> None:
    """Charged is what had come until then: a token for each event."""
    async with lay(world) as bed:
        asked, request = await bed.next()
        request.respond(200, SSE_HEAD)
        said = b""
        for number in range(chunks):
            said += sse(f"w{number}")
            request.send(sse(f"w{number}"))
            assert await asked.stream.received(len(said)) == said
        asked.stream.reset()
        await request.reset()
        asked.outcome = CLIENT
        asked.entry = {"completion_tokens": chunks, "tokens_counted": True, "bytes_out": len(said)}
        await bed.verify(resets=1)


async def test_a_json_answer_in_the_middle(world: World) -> None:
    async with lay(world) as bed:
        asked, request = await bed.next(stream=False)
        request.respond(200, [("content-type", "application/json")])
        request.send(b'{"object":"text_comp')
        await bed.canary.beat()  # the connection's order: the gateway has the piece by now
        asked.stream.reset()
        await request.reset()
        asked.outcome, asked.entry = CLIENT, {"sent": True}
        await bed.verify(resets=1)


@pytest.mark.parametrize("count", [1, IN_ONE_FLIGHT])
async def test_in_the_packet_that_asked(world: World, count: int) -> None:
    """HEADERS, DATA and RST_STREAM together. It may be over before anything went upstream; what did is reset."""
    async with lay(world, slots=2 + count) as bed:
        together = [bed.ask(together=True) for _ in range(count)]
        for asked in together:
            asked.outcome = CLIENT
        entries = await bed.log.of([asked.request_id for asked in together])
        sent = sum(entry["sent"] for entry in entries.values())
        await bed.verify(resets=sent)
        assert len(bed.upstream.requests) == len(bed.asked) - count + sent


async def test_while_the_upload_is_blocked_on_the_upstreams_window(world: World) -> None:
    async with lay(world, hold_window=True) as bed:
        asked, headers, body = prepare(world.ada.session, bed.model, prompt="x" * 300_000)
        asked.stream = bed.client.open("POST", "/v1/completions", headers)
        bed.asked.append(asked)
        await upload(asked, bed.client, body)
        request = await bed.upstream.arrived(2)
        await request.body_received(60_000)
        asked.stream.reset()
        await request.reset()
        assert not request.body_ended
        asked.outcome, asked.entry = CLIENT, {"sent": True, "completion_tokens": 0}
        bed.upstream.release_window()
        await bed.verify(resets=1)


async def test_while_the_upload_waits_for_the_connections_window(world: World) -> None:
    """Another's upload has taken all of the connection's credit: cancelling either frees what it held."""
    async with lay(world, slots=4, hold_window=True) as bed:
        both = []
        for number in (2, 3):
            asked, headers, body = prepare(world.ada.session, bed.model, prompt="x" * 150_000)
            asked.stream = bed.client.open("POST", "/v1/completions", headers)
            bed.asked.append(asked)
            await upload(asked, bed.client, body)
            both.append((asked, await bed.upstream.arrived(number)))
        (first, blocking), (second, blocked) = both
        await blocking.body_received(60_000)
        second.stream.reset()
        await blocked.reset()
        second.outcome, second.entry = CLIENT, {"sent": True, "completion_tokens": 0}
        bed.upstream.release_window()
        await blocking.complete()  # its upload goes on: what the other held was given back
        first.stream.reset()
        await blocking.reset()
        first.outcome, first.entry = CLIENT, {"sent": True, "completion_tokens": 0}
        await bed.verify(resets=2)


async def test_while_uploading_to_the_gateway(world: World) -> None:
    """Nothing goes upstream before the body is whole; nothing is held for it there."""
    async with lay(world) as bed:
        asked, headers, body = prepare(world.ada.session, bed.model, prompt="x" * 100_000)
        asked.stream = bed.client.open("POST", "/v1/completions", headers)
        bed.asked.append(asked)
        asked.stream.send(body[:10_000])
        asked.stream.reset()
        asked.outcome, asked.entry = CLIENT, {"sent": False, "status": 499}
        entries = await bed.verify(resets=0)
        assert len(bed.upstream.requests) == len(entries) - 1


async def upload(asked: Asked, client: H2Client, body: bytes) -> None:
    """Send the whole body as fast as the peer's windows open."""

    def room() -> int:
        return min(client.h2.local_flow_control_window(asked.stream.id), 16_384)

    while body:
        await client.signal.until(room, "the gateway's window")
        part, body = body[: room()], body[room() :]
        asked.stream.send(part, end=not body)


async def test_what_was_used_is_charged_and_the_rest_given_back(world: World) -> None:
    """A stream cut after two events costs its prompt and two tokens; what it had reserved beyond comes back."""
    async with lay(world) as bed:
        asked, request = await bed.next(prompt="p" * 100, max_tokens=20_000)
        request.respond(200, SSE_HEAD)
        request.send(sse("a") + sse("b"))
        await asked.stream.received(2 * len(sse("a")))
        asked.stream.reset()
        await request.reset()
        asked.outcome, asked.entry = CLIENT, {"completion_tokens": 2}
        await bed.verify(resets=1)  # its budgets are exact: of the 20,000 reserved, two are spent
