"""The kit's own client and upstream, against each other."""

from __future__ import annotations

import asyncio

from tests.kit.certs import Pki
from tests.kit.h2client import CANCEL, H2Client
from tests.kit.scripts import openai
from tests.kit.upstream import RecordingUpstream


async def test_gates_and_resets_over_tls(pki: Pki, recording_upstream: RecordingUpstream) -> None:
    upstream = recording_upstream
    async with await H2Client.connect("127.0.0.1", upstream.port, pki.client_context()) as client:
        stream = client.request("POST", "/v1/completions", [("x-a", "b")], b"{}")
        request = await (await upstream.arrived(1)).complete()
        assert (request.method, request.path, request.headers["x-a"]) == ("POST", "/v1/completions", "b")
        request.respond(201)
        request.send(b"one")
        assert await stream.head() == 201
        assert await stream.received(3) == b"one"
        request.end()
        await stream.complete()
        assert upstream.open_streams == 0

        both = client.request_and_reset("POST", "/v1/completions")
        assert (await (await upstream.arrived(2)).reset()).code == CANCEL
        assert not both.over

        client.open("POST", "/v1/completions").send(b"x")
        refused = await upstream.arrived(3)
        refused.refuse()
        assert (await client.streams[refused.stream_id].finished()).reset_code == 7
        assert (upstream.opened, upstream.ended, upstream.resets, upstream.open_streams) == (3, 1, 1, 0)


async def test_stalled_reader_blocks_the_answer_until_it_reads(pki: Pki) -> None:
    async with (
        RecordingUpstream() as upstream,
        await H2Client.connect("127.0.0.1", upstream.port, window=1000) as client,
    ):
        client.stop_reading()
        stream = client.request("GET", "/")
        request = await upstream.arrived(1)
        request.respond()
        request.send(b"x" * 5000, end=True)
        await stream.received(1000)
        assert request.unsent == 4000
        client.resume_reading()
        assert len((await stream.complete()).body) == 5000
        await request.flushed()


async def test_streams_in_flight_finish_after_goaway() -> None:
    async with (
        RecordingUpstream() as upstream,
        await H2Client.connect("127.0.0.1", upstream.port) as client,
    ):
        stream = client.request("GET", "/")
        request = await upstream.arrived(1)
        request.connection.goaway()
        assert await client.went_away() == stream.id
        request.respond_json({"a": 1})
        assert (await stream.complete()).json() == {"a": 1}


async def test_lost_connections_count_as_resets_without_a_code() -> None:
    async with RecordingUpstream() as upstream:
        for end in (H2Client.fin, H2Client.rst):
            client = await H2Client.connect("127.0.0.1", upstream.port)
            client.request("GET", "/")
            request = await upstream.arrived(upstream.opened + 1)
            end(client)
            assert (await request.reset()).code is None
            await client.disconnected()
        assert upstream.open_streams == 0


async def test_scripted_answers_over_http_1_1() -> None:
    async with RecordingUpstream(script=openai(chunks=2)) as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        body = b'{"stream": true, "stream_options": {"include_usage": true}}'
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        answer = await reader.readuntil(b"[DONE]")
        assert b'"delta": {"content": "w1 "}' in answer
        assert b'"total_tokens": 9' in answer
        writer.close()
        await writer.wait_closed()
        assert (upstream.ended, upstream.resets, upstream.connections[0].protocol) == (1, 0, "http/1.1")
