"""Latest keystroke wins: a newer completion of the same document ends the older one, and no other."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.gateway.bed import Bed, lay, prepare
from tests.integration.gateway.invariants import Asked
from tests.integration.gateway.test_ended_by_the_gateway import error_event
from tests.integration.gateway.typists import organize, settle_on, type_in
from tests.integration.gateway.world import DONE, SSE_HEAD, Log, World, bind, sse
from tests.kit.gateway import Session
from tests.kit.marker import MARKER
from tests.kit.upstream import Request

HERE = {"x-orgate-document": f"file:///{MARKER}/main.py"}
"""Never to be found in any file: the suite's end looks for it."""
ELSEWHERE = {"x-orgate-document": f"file:///{MARKER}/other.py"}


@pytest.fixture(scope="module")
def typing(world: World) -> World:
    return organize(world, supersede=True)


async def begun(bed: Bed, headers: dict[str, str], session: Session | None = None) -> tuple[Asked, Request]:
    number = len(bed.upstream.requests) + 1
    asked = type_in(bed, headers, session=session)
    return asked, await (await bed.upstream.arrived(number)).complete()


async def serve(asked: Asked, request: Request) -> None:
    request.respond_json({"object": "text_completion", "choices": []})
    await asked.stream.complete()
    assert asked.stream.status == 200


def superseded(asked: Asked, **entry: object) -> None:
    asked.outcome, asked.entry = "superseded", {"status": 409, **entry}


async def test_before_the_head(typing: World) -> None:
    """Two at a time: the canary, and one more. The newer finds the older one's slot free."""
    async with lay(typing, slots=2) as bed:
        older, request = await begun(bed, HERE)
        newer, fresh = await begun(bed, HERE)
        await request.reset()
        await older.stream.complete()
        assert older.stream.status == 409
        error = older.stream.json()["error"]
        assert (error["code"], error["type"]) == ("superseded", "invalid_request_error")
        assert older.stream.headers["x-should-retry"] == "false"
        superseded(older, sent=True, completion_tokens=0)
        await serve(newer, fresh)
        await bed.verify(resets=1)


async def test_in_mid_stream(typing: World) -> None:
    async with lay(typing, slots=2) as bed:
        older, request = await begun(bed, HERE)
        request.respond(200, SSE_HEAD)
        request.send(sse("a") + sse("b"))
        await older.stream.received(2 * len(sse("a")))
        newer, fresh = await begun(bed, HERE)
        await request.reset()
        await older.stream.complete()
        assert older.stream.body.startswith(sse("a") + sse("b"))
        assert error_event(older.stream.body)["code"] == "superseded"
        superseded(older, sent=True, completion_tokens=2)
        await serve(newer, fresh)
        await bed.verify(resets=1)


async def test_a_slow_upload_does_not_end_what_was_typed_after_it(typing: World) -> None:
    async with lay(typing, slots=3) as bed:
        older, headers, body = prepare(typing.ada.session, bed.model)
        older.stream = bed.client.open("POST", "/v1/completions", [*headers, *HERE.items()])
        bed.asked.append(older)
        older.stream.send(body[:10])
        await bed.seen()
        now = asyncio.get_running_loop().time
        later = now() + 0.01
        while now() < later:  # the gateway's clock counts milliseconds
            await bed.canary.beat()
        newer, fresh = await begun(bed, HERE)
        older.stream.send(body[10:], end=True)
        await older.stream.complete()
        assert older.stream.status == 409
        superseded(older, sent=False)
        await serve(newer, fresh)
        await bed.verify(resets=0)


async def test_in_the_line_for_the_upstream(typing: World) -> None:
    """What never got there costs nothing."""
    async with lay(typing, slots=3, max_concurrent_streams=1) as bed:
        older = type_in(bed, HERE)
        await bed.seen()
        newer = type_in(bed, HERE)
        await older.stream.complete()
        assert older.stream.status == 409
        superseded(older, sent=False)
        await bed.canary.finish()
        request = await (await bed.upstream.arrived(2)).complete()
        await serve(newer, request)
        await bed.upstream.idle()
        assert (bed.upstream.resets, len(bed.upstream.requests)) == (0, 2)
        entries = await bed.log.of([older.request_id, newer.request_id])
        assert [entry["outcome"] for entry in entries.values()] == ["superseded", "served"]
        assert [entry["sent"] for entry in entries.values()] == [False, True]


async def test_thirty_keystrokes(typing: World) -> None:
    async with lay(typing, slots=2) as bed:
        keys = [type_in(bed, HERE) for _ in range(30)]
        for asked in keys[:-1]:
            await asked.stream.complete()
            assert asked.stream.status == 409
            superseded(asked)
        await bed.upstream.until(lambda: last_arrived(bed, keys[-1]), "the last keystroke")
        request = last_arrived(bed, keys[-1])
        assert request is not None
        await serve(keys[-1], request)
        entries = await bed.log.of([asked.request_id for asked in keys])
        await bed.verify(resets=sum(entry["sent"] for entry in entries.values()) - 1)


def last_arrived(bed: Bed, asked: Asked) -> Request | None:
    found = [r for r in bed.upstream.requests if r.body_ended and asked.request_id.encode() in r.body]
    return found[0] if found else None


async def test_another_document_member_or_client_is_left_alone(typing: World) -> None:
    async with lay(typing, slots=8) as bed:
        ben = typing.ben.session
        others = [
            await begun(bed, ELSEWHERE),
            await begun(bed, HERE, session=ben),
            await begun(bed, {**HERE, "x-orgate-client": "another/2"}),
            await begun(bed, {}),
            await begun(bed, {"vscode-sessionid": HERE["x-orgate-document"]}),
        ]
        older, request = await begun(bed, HERE)
        newer, fresh = await begun(bed, HERE)
        await request.reset()
        await older.stream.complete()
        superseded(older)
        for other, theirs in others:
            assert theirs.was_reset is None
            await serve(other, theirs)
        await serve(newer, fresh)
        await bed.verify(resets=1)


async def test_another_organizations_same_document_is_left_alone(world: World, typing: World) -> None:
    async with lay(typing) as bed:
        eve = world.eve
        log = await asyncio.to_thread(Log, eve)
        await asyncio.to_thread(settle_on, eve, supersede=True)
        try:
            model = await asyncio.to_thread(bind, eve, world.pki, bed.upstream.url)
            theirs, headers, body = prepare(eve, model)
            theirs.stream = bed.client.request("POST", "/v1/completions", [*headers, *HERE.items()], body)
            request = await (await bed.upstream.arrived(2)).complete()
            older, first = await begun(bed, HERE)
            newer, second = await begun(bed, HERE)
            await first.reset()
            await older.stream.complete()
            superseded(older)
            assert request.was_reset is None
            await serve(theirs, request)
            await serve(newer, second)
            assert (await log.of([theirs.request_id]))[theirs.request_id]["outcome"] == "served"
        finally:
            await asyncio.to_thread(settle_on, eve, supersede=False)
        bed.connections = 2
        await bed.verify(resets=1)


@pytest.mark.parametrize("intent", ["copilot-ghost", "copilot-panel"])
async def test_an_editors_session_stands_in_for_a_document(typing: World, intent: str) -> None:
    """What is typed is superseded by what is typed next; a list that was asked for is not."""
    async with lay(typing, slots=3) as bed:
        session = {"vscode-sessionid": "41e7ae1e-c04e-4610-9d10-2ecef3b3167e1704704928200"}
        older, request = await begun(bed, {**session, "openai-intent": intent})
        newer, fresh = await begun(bed, {**session, "openai-intent": "copilot-ghost"})
        if intent == "copilot-ghost":
            await request.reset()
            await older.stream.complete()
            superseded(older)
        else:
            await serve(older, request)
        await serve(newer, fresh)
        await bed.verify(resets=int(intent == "copilot-ghost"))


async def test_an_organization_that_did_not_ask_for_it_keeps_all(world: World) -> None:
    async with lay(world, slots=3) as bed:
        both = [await begun(bed, HERE) for _ in range(2)]
        for asked, request in both:
            assert request.was_reset is None
            await serve(asked, request)
        await bed.verify(resets=0)


async def test_chat_is_left_alone(typing: World) -> None:
    async with lay(typing, slots=3) as bed:
        both = []
        for number in (2, 3):
            said = [{"role": "user", "content": "hello"}]
            asked = type_in(bed, HERE, path="/v1/chat/completions", messages=said)
            both.append((asked, await (await bed.upstream.arrived(number)).complete()))
        for asked, request in both:
            request.respond(200, SSE_HEAD)
            request.send(DONE, end=True)
            await asked.stream.complete()
            assert asked.stream.status == 200
        await bed.verify(resets=0)
