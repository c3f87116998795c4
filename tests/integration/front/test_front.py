"""`deploy/haproxy.cfg` with the real HAProxy: what passes, what is cancelled, what one abuser costs the others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.front.bed import Http1Stream, lay
from tests.integration.gateway.world import DONE, SSE_HEAD, World, sse
from tests.kit.attacks import ENDED, RESETS, UNLIMITED, Attack, Target
from tests.kit.front import Front
from tests.kit.marker import MARKER


def test_the_configuration_is_valid(front: Front) -> None:
    checked = front.check()
    assert checked.returncode == 0, checked.stderr
    assert "[WARNING]" not in checked.stderr + checked.stdout, checked.stderr


async def test_an_answer_and_a_stream_pass(world: World, front: Front) -> None:
    async with lay(world, front) as through, await front.connect() as client:
        whole, request = await through.next(client)
        request.respond_json({"object": "text_completion", "choices": []})
        assert (await whole.stream.complete()).status == 200
        stream, request = await through.begun(client)
        request.send(sse("second"))  # and not held back until the third
        await stream.stream.received(len(sse("first") + sse("second")))
        request.send(DONE, end=True)
        assert (await stream.stream.complete()).body == sse("first") + sse("second") + DONE


async def test_an_event_passes_at_once_over_http1(world: World, front: Front) -> None:
    async with lay(world, front) as through:
        stream = await Http1Stream.ask(through)
        request = await (await through.upstream.arrived(1)).complete()
        request.respond(200, SSE_HEAD)
        for word in ("first", "second", "third"):
            request.send(sse(word))
            assert word.encode() in await stream.until(word.encode())
        request.send(DONE, end=True)
        await stream.until(b"[DONE]")
        await stream.close()


@pytest.mark.parametrize("when", ["before the head", "in mid-stream"])
async def test_a_reset_reaches_the_model_over_http2(world: World, front: Front, when: str) -> None:
    async with lay(world, front) as through, await front.connect() as client:
        canary, beating = await through.begun(client)
        asked, request = await (through.next if when == "before the head" else through.begun)(client)
        asked.stream.reset()
        await request.reset()
        assert await through.outcome(asked) == "cancelled_by_client"
        beating.send(DONE, end=True)
        await canary.stream.complete()
        assert through.upstream.resets == 1


@pytest.mark.parametrize("when", ["before the head", "in mid-stream"])
async def test_a_close_reaches_the_model_over_http1(world: World, front: Front, when: str) -> None:
    async with lay(world, front) as through:
        stream = await Http1Stream.ask(through)
        request = await (await through.upstream.arrived(1)).complete()
        if when == "in mid-stream":
            request.respond(200, SSE_HEAD)
            request.send(sse("first"))
            await stream.until(b"first")
        await stream.close()
        await request.reset()
        assert through.upstream.resets == 1


async def test_two_hundred_cancels_of_one_client_hurt_nobody_elses_streams(world: World, front: Front) -> None:
    async with lay(world, front) as through, await front.connect() as innocent, await front.connect() as abuser:
        streams = [await through.begun(innocent) for _ in range(10)]
        before = len(through.upstream.requests)
        for _ in range(4):  # each HEADERS, DATA and RST_STREAM at once
            for _ in range(50):
                through.ask(abuser, together=True)
            mine = [through.ask(abuser) for _ in range(30)]  # and in one flight what the gateway has already
            await through.upstream.until(
                lambda: len([r for r in through.upstream.requests[before:] if not r.was_reset]) >= 30,
                "the abuser's requests",
            )
            for asked in mine:
                asked.stream.reset()
            await through.upstream.until(lambda: through.upstream.open_streams == len(streams), "their resets")
        for asked, request in streams:
            request.send(sse("second"))
            await asked.stream.received(len(sse("first") + sse("second")))
            request.send(DONE, end=True)
            await asked.stream.complete()
            assert request.was_reset is None
        assert not innocent.closed
        assert innocent.goaway_code is None


@pytest.mark.parametrize("attack", [*RESETS, *ENDED, *UNLIMITED], ids=lambda attack: attack.__name__)
async def test_floods_pass_nothing_on(world: World, front: Front, attack: Attack) -> None:
    """Whether the front ends the connection or not: the gateway answers innocents as before."""
    async with lay(world, front) as through, await front.connect() as innocent:
        asked, request = await through.begun(innocent)
        await attack(Target(front.port, world.gateway.ca, share=1_000, bearer=world.ada.session.bearer))
        request.send(DONE, end=True)
        await asked.stream.complete()
        fresh, request = await through.next(innocent)
        request.respond_json({"choices": []})
        assert (await fresh.stream.complete()).status == 200
        assert through.upstream.opened == 2


async def test_people_do_not_share_a_connection_to_the_gateway(world: World, front: Front) -> None:
    """Twelve streams of three people: as many connections as people, besides the health check's."""
    async with lay(world, front) as through:
        clients = [await front.connect() for _ in range(3)]
        before = backend_connections(world)
        streams = [await through.begun(client) for client in clients for _ in range(4)]
        assert len(backend_connections(world) - before) == 3
        for asked, request in streams:
            request.send(DONE, end=True)
            await asked.stream.complete()
        for client in clients:
            client.fin()
            await client.disconnected()


def backend_connections(world: World) -> set[str]:
    """The peers of the gateway's established connections: /proc/net/tcp (proc(5)), state 01."""
    port = f":{world.gateway.public_port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[2] for row in rows if row[1].endswith(port) and row[3] == "01"}


async def test_heads_that_are_too_large_end_at_the_front(world: World, front: Front) -> None:
    async with lay(world, front) as through:
        # A head above HPACK's limit costs the connection (RFC 9113 section 10.5.1), so each has its own.
        for headers in (
            [("x-padding", "x" * 20_000)],
            [(f"x-header-{number}", "1") for number in range(200)],
        ):
            async with await front.connect() as client:
                stream = client.request("GET", "/v1/models", [*world.ada.session.bearer.items(), *headers])
                await stream.finished()
                assert not stream.ended or stream.status in (400, 431), stream.status
        assert not through.upstream.requests


@pytest.mark.parametrize("path", ["/metrics", "/admin/v1/me", "/scim/v2/acme/Users"])
async def test_what_is_not_for_the_public_is_not_passed_on(front: Front, path: str) -> None:
    assert front.http.get(front.url + path).status_code == 404


async def test_no_word_of_a_request_is_logged(world: World, front: Front) -> None:
    async with lay(world, front) as through, await front.connect() as client:
        asked, request = await through.next(client)
        request.respond_json({"choices": [{"text": MARKER}]})
        await asked.stream.complete()
        front.http.get(front.url + "/v1/" + MARKER)
    log = front.log.read_text()
    assert MARKER not in log
    assert "/v1/" not in log


def test_the_guides_commands_are_those_that_work(front: Front) -> None:
    """The guide shows the check as a command: the same words as here, on the file that is shipped."""
    guide = Path(__file__).resolve().parents[3] / "docs/guides/operator.md"
    command = re.search(r"haproxy -c -f (\S+)", guide.read_text())
    assert command is not None
    assert (guide.parents[2] / command[1]).exists()
    checked = subprocess.run(
        ["/usr/sbin/haproxy", "-c", "-f", command[1]], cwd=guide.parents[2], env=front.environment(), check=False
    )
    assert checked.returncode == 0
