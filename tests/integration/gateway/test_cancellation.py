"""A cancelled completion is reset at the model, at whatever moment, and nobody beside it notices.

Through the whole gateway over real TLS: raw HTTP/2 client → gateway → recording upstream. What holds after
each is in `Bed.verify`: no stream left open upstream, exactly the resets that were asked for, the same
connections, an undisturbed stream beside it, its slot given back, exactly one audit entry each.
"""

from __future__ import annotations

import asyncio
import ssl

import pytest

from tests.integration.gateway.bed import CLIENT, Asked, Bed, lay, prepare
from tests.integration.gateway.world import SSE_HEAD, World, sse
from tests.kit.h2client import H2Client


async def test_before_the_first_byte(world: World) -> None:
    async with lay(world) as bed:
        asked, request = await bed.next()
        asked.stream.reset()
        await request.reset()
        asked.outcome, asked.entry = CLIENT, {"status": 499, "sent": True, "completion_tokens": 0}
        await bed.canary.beat()
        await bed.verify(resets=1)


async def test_after_the_head_while_the_model_is_silent(world: World) -> None:
    async with lay(world) as bed:
        asked, request = await bed.next()
        request.respond(200, SSE_HEAD)
        assert await asked.stream.head() == 200
        asked.stream.reset()
        await request.reset()
        asked.outcome, asked.entry = CLIENT, {"status": 499, "sent": True, "completion_tokens": 0}
        await bed.verify(resets=1)


@pytest.mark.parametrize("chunks", [1, 5])
async def test_after_some_chunks(world: World, chunks: int) -> None:
    """Charged is what had come until then: a token for each event."""
    async with lay(world) as bed:
        asked, request = await bed.next()
        request.respond(200, SSE_HEAD)
        said = b""
        for number in range(chunks):
            said += sse(f"word {number}")
            request.send(sse(f"word {number}"))
            assert await asked.stream.received(len(said)) == said
        asked.stream.reset()
        await request.reset()
        asked.outcome = CLIENT
        asked.entry = {"completion_tokens": chunks, "tokens_counted": True, "bytes_out": len(said)}
        await bed.verify(resets=1)


async def test_in_the_packet_that_asked(world: World) -> None:
    """It may be over before anything went upstream; if it did, it is reset there."""
    async with lay(world) as bed:
        asked = bed.ask(together=True)
        asked.outcome = CLIENT
        entry = (await bed.log.of([asked.request_id]))[asked.request_id]
        await bed.verify(resets=int(entry["sent"]))
        assert len(bed.upstream.requests) == 2 + entry["sent"]


async def test_while_the_upload_is_blocked(world: World) -> None:
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


async def upload(asked: Asked, client: H2Client, body: bytes) -> None:
    """Send the whole body as fast as the peer's windows open."""

    def room() -> int:
        return min(client.h2.local_flow_control_window(asked.stream.id), 16_384)

    while body:
        await client.signal.until(room, "the gateway's window")
        part, body = body[: room()], body[room() :]
        asked.stream.send(part, end=not body)


async def test_while_uploading_to_the_gateway(world: World) -> None:
    """Nothing goes upstream before the body is whole; nothing is held for it there."""
    async with lay(world) as bed:
        asked, headers, body = prepare(world.ada.session, bed.model, prompt="x" * 100_000)
        asked.stream = bed.client.open("POST", "/v1/completions", headers)
        bed.asked.append(asked)
        asked.stream.send(body[:10_000])
        asked.stream.reset()
        asked.outcome, asked.entry = CLIENT, {"sent": False, "completion_tokens": 0, "prompt_tokens": 0}
        await bed.verify(resets=0)
        assert len(bed.upstream.requests) == 2


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


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_the_clients_connection_ends_with_streams_open(world: World, how: str) -> None:
    """One before its head, one after it, one in mid-stream."""
    async with lay(world, slots=4) as bed:
        client = await world.connect()
        both = [await bed.next(client=client) for _ in range(3)]
        for asked, request in both[1:]:
            request.respond(200, SSE_HEAD)
            await asked.stream.head()
        both[2][1].send(sse("word"))
        await both[2][0].stream.received(len(sse("word")))
        getattr(client, how)()
        for asked, request in both:
            await request.reset()
            asked.outcome = CLIENT
        await client.disconnected()
        await bed.verify(resets=3)


@pytest.mark.parametrize("when", ["before the head", "in the middle"])
async def test_an_http1_client_closes_its_connection(world: World, when: str) -> None:
    async with lay(world) as bed:
        context = ssl.create_default_context(cafile=str(world.gateway.ca))
        context.set_alpn_protocols(["http/1.1"])
        reader, writer = await asyncio.open_connection("127.0.0.1", bed.port, ssl=context)
        asked, headers, body = prepare(world.ada.session, bed.model)
        bed.asked.append(asked)
        lines = [f"{name}: {value}\r\n" for name, value in (*headers, ("content-length", str(len(body))))]
        writer.write(f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n{''.join(lines)}\r\n".encode() + body)
        request = await (await bed.upstream.arrived(2)).complete()
        if when == "in the middle":
            request.respond(200, SSE_HEAD)
            request.send(sse("word"))
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await reader.readuntil(sse("word"))
        writer.transport.abort()
        await request.reset()
        asked.outcome = CLIENT
        await bed.verify(resets=1)


@pytest.mark.parametrize("when", ["before the head", "in the middle"])
async def test_an_http1_upstream_loses_its_connection(world: World, when: str) -> None:
    """HTTP/1.1 has no reset: that request's connection is closed, and no other one's."""
    async with lay(world, alpn=("http/1.1",), binding={"connections": 4}) as bed:
        asked, request = await bed.next()
        assert request.connection is not bed.canary.request.connection
        if when == "in the middle":
            request.respond(200, SSE_HEAD)
            request.send(sse("word"))
            await asked.stream.received(len(sse("word")))
        asked.stream.reset()
        await request.reset()
        await bed.upstream.until(lambda: request.connection.closed, "the connection to close")
        asked.outcome = CLIENT
        bed.connections = 2  # the fresh request may take the canary's, which has finished by then
        await bed.verify(resets=1)


async def test_in_the_line_for_the_upstream(world: World) -> None:
    """The upstream takes one stream at a time: what is cancelled in the line never gets there."""
    async with lay(world, slots=4, max_concurrent_streams=1) as bed:
        waiting, after = bed.ask(), bed.ask()
        await served_beside(bed)
        waiting.stream.reset()
        await served_beside(bed)
        waiting.outcome = CLIENT
        waiting.entry = {"sent": False, "prompt_tokens": 0, "completion_tokens": 0}
        await bed.canary.finish()
        request = await (await bed.upstream.arrived(2)).complete()
        request.respond_json({"object": "text_completion", "choices": []})
        assert await after.stream.head() == 200
        await bed.upstream.idle()
        assert (bed.upstream.resets, len(bed.upstream.requests), len(bed.upstream.connections)) == (0, 2, 1)
        entries = await bed.log.of([waiting.request_id, after.request_id])
        assert {**entries[waiting.request_id], **waiting.entry} == entries[waiting.request_id]
        assert entries[waiting.request_id]["outcome"] == CLIENT
        assert entries[after.request_id]["outcome"] == "served"


async def served_beside(bed: Bed) -> None:
    """A round trip on the same connection: what was sent before it has reached the worker's code."""
    stream = bed.client.request("GET", "/v1/models", list(bed.world.ada.session.bearer.items()))
    assert (await stream.complete()).status == 200


async def test_what_was_held_is_given_back_and_what_was_used_is_charged(world: World) -> None:
    """A budget of 1,000 tokens: a stream cut after two events costs its prompt and two; one that is cancelled
    in the line for the upstream costs nothing."""
    budget = {"unit": "tokens", "amount": 1_000, "period_s": 86_400}
    async with lay(world, slots=4) as bed:
        path = f"/admin/v1/orgs/acme/models/{bed.model}"
        assert world.owner.admin("GET", path).status_code == 200
        world.owner.create("limits", name=f"{bed.model}-budget", scope="model", subject=bed.model, **budget)
        asked, request = await bed.next(prompt="p" * 100)
        request.respond(200, SSE_HEAD)
        request.send(sse("a") + sse("b"))
        await asked.stream.received(2 * len(sse("a")))
        asked.stream.reset()
        await request.reset()
        asked.outcome = CLIENT
        entries = await bed.verify(resets=1)
        used = sum(entries[asked.request_id][name] for name in ("prompt_tokens", "completion_tokens"))
        assert entries[asked.request_id]["completion_tokens"] == 2
        fresh = bed.asked[-1]  # asked with everything settled; the upstream reported no usage for it
        claimed = 1_000 - used - int(fresh.stream.headers["x-ratelimit-remaining-tokens"])
        assert 0 < claimed <= 100  # its own prompt and its 16 tokens; not the 100 + 16 of the other
