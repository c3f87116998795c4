"""What is held open: connections, handshakes, heads and bodies that never end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.integration.abuse.beside import beside, unharmed
from tests.integration.abuse.test_floods import name, target
from tests.integration.gateway.refusals import refused
from tests.integration.gateway.world import DONE, World, populate, sse
from tests.kit.attacks import HOLDS, PATH, Attack
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway


@pytest.mark.parametrize("attack", HOLDS, ids=name)
async def test_three_hundred_held_open_keep_nobody_out(world: World, attack: Attack) -> None:
    async with unharmed(world) as bed:
        assert await beside(bed, attack(target(world, signed=True, share=300))) > 0
        assert bed.upstream.opened == 1


@pytest.fixture(scope="module")
def strict(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway that waits for nobody, and has room for few."""
    settings = {
        "ORGATE_SERVER__BODY_TIMEOUT_S": "1",
        "ORGATE_SERVER__IDLE_TIMEOUT_S": "5",  # signing in on a busy machine takes less
        "ORGATE_SERVER__MAX_CONNECTIONS": "40",
    }
    with RunningGateway(tmp_path_factory.mktemp("strict") / "home", settings=settings) as gateway:
        yield populate(gateway, pki)


async def test_a_body_that_does_not_come_is_answered_408(strict: World) -> None:
    async with await strict.connect() as client:
        streams = [client.open("POST", PATH, list(strict.ada.session.bearer.items())) for _ in range(20)]
        for stream in streams[:10]:
            stream.send(b'{"prompt":"')
        for stream in streams:
            await stream.head()
            await stream.received(1)
            refused(stream.status, stream.headers, stream.body, expect=408, code="request_timeout")
        good = client.request("GET", "/v1/models", list(strict.ada.session.bearer.items()))
        assert (await good.complete()).status == 200


async def test_a_body_that_does_not_come_is_settled_and_audited(strict: World) -> None:
    async with unharmed(strict) as bed:
        headers = [*strict.ada.session.bearer.items(), ("x-request-id", "req-test-late-body")]
        stream = bed.client.open("POST", PATH, headers)
        assert await stream.head() == 408
        entry = (await bed.log.of(["req-test-late-body"]))["req-test-late-body"]
        assert (entry["outcome"], entry["status"], entry["sent"]) == ("refused", 408, False)


async def test_silence_is_ended_but_not_a_stream_that_waits_for_its_model(strict: World) -> None:
    """The model thinks for longer than a connection may be silent; its stream is in flight."""
    async with unharmed(strict) as bed:
        asked, request = await bed.next()
        async with target(strict, signed=False, share=10).held(tls=True) as writers:
            for writer in writers:  # each is ended by the gateway: it reads an end
                async with asyncio.timeout(60):
                    await writer.wait_closed()
        request.respond(200, [("content-type", "text/event-stream")])
        request.send(sse("at last") + DONE, end=True)
        await asked.stream.complete()
        assert asked.stream.body == sse("at last") + DONE


async def test_the_idlest_give_way_when_a_worker_is_nearly_full(strict: World) -> None:
    """Twice as many as there is room for, one after the other: who comes after them is let in and served."""
    async with unharmed(strict) as bed, target(strict, signed=False, share=80).held(tls=False):
        async with await strict.connect() as newcomer:
            stream = newcomer.request("GET", "/v1/models", list(strict.ada.session.bearer.items()))
            assert (await stream.complete()).status == 200
        await bed.canary.beat()


async def test_compressed_bodies_are_not_unpacked(world: World) -> None:
    """Refused by the head: what a bomb would unpack to is never known."""
    async with unharmed(world) as bed:
        stream = bed.client.open("POST", PATH, [*world.ada.session.bearer.items(), ("content-encoding", "gzip")])
        await stream.head()
        await stream.received(1)
        assert json.loads(stream.body)["error"]["code"] == "unsupported_media_type"
