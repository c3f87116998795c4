"""What a limit does to a request in a whole gateway: it cuts, denies the next, counts money, is shared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.gateway.bed import Bed, lay
from tests.integration.gateway.invariants import Asked
from tests.integration.gateway.test_ended_by_the_gateway import error_event
from tests.integration.gateway.world import DONE, SSE_HEAD, World, invite, sse
from tests.kit.gateway import Session
from tests.kit.upstream import Request

ANYHOW = {"if-match": "*"}


@contextmanager
def limited(admin: Session, name: str, **fields: Any) -> Iterator[str]:
    """A limit, for as long as it is tried: it may be about what other tests use too."""
    admin.create("limits", name=name, **fields)
    try:
        yield name
    finally:
        admin.admin("DELETE", f"/admin/v1/orgs/{admin.org}/limits/{name}", headers=ANYHOW)


def of_ben(world: World, name: str, **fields: Any) -> Any:
    """On one member's output tokens of the day. Who looks whether all is well is another one."""
    more = {"scope": "member", "subject": world.ben.id, "unit": "output_tokens", "window": "day", **fields}
    return limited(world.owner, f"bens-{name}", **more)


async def refused(bed: Bed, session: Session, **fields: Any) -> tuple[Asked, dict[str, Any]]:
    asked = bed.ask(session=session, **fields)
    await asked.stream.complete()
    error: dict[str, Any] = asked.stream.json()["error"]
    return asked, error


def denied(asked: Asked, limit: str, error: str = "insufficient_quota") -> None:
    asked.outcome = "refused"
    asked.entry = {"status": 429, "limit": limit, "error": error, "sent": False}


async def answer(asked: Asked, request: Request, tokens: int) -> None:
    """A stream of so many tokens, and the model's report of as many."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":%d}}\n\n' % tokens
    request.respond(200, SSE_HEAD)
    request.send(sse("w") * tokens + usage + DONE, end=True)
    await asked.stream.complete()
    assert asked.stream.status == 200


async def test_a_stream_is_cut_when_its_budget_is_gone(world: World) -> None:
    async with lay(world, slots=4) as bed:
        with of_ben(world, "cut", amount=40, on_end="cut") as limit:
            asked, request = await bed.next(session=world.ben.session, max_tokens=1_000)
            request.respond(200, SSE_HEAD)
            sent = 0
            while not request.was_reset:
                assert sent < 2_000, "nobody ends it"
                request.send(sse("w"))
                sent += 1
                await bed.canary.beat()
            await asked.stream.complete()
            error = error_event(asked.stream.body)
            assert (error["code"], error["limit"], error["type"]) == (
                "insufficient_quota",
                limit,
                "insufficient_quota",
            )
            assert str(error["resets_at"]).endswith("Z")
            assert b"[DONE]" not in asked.stream.body
            passed = asked.stream.body.count(sse("w"))
            assert 40 <= passed <= 40 + 48, "so many may pass between two looks and while the store is asked"
            asked.outcome = "cut"
            asked.entry = {"status": 429, "limit": limit, "error": "insufficient_quota", "tokens_counted": True}
            later, error = await refused(bed, world.ben.session)
            assert (later.stream.status, error["limit"]) == (429, limit)
            assert later.stream.headers["x-should-retry"] == "false"
            denied(later, limit)
            entries = await bed.verify(resets=1)
            assert entries[asked.request_id]["completion_tokens"] == passed


async def test_what_is_no_stream_is_not_cut_and_needs_all_of_it(world: World) -> None:
    async with lay(world, slots=4) as bed:
        with of_ben(world, "whole", amount=40, on_end="cut") as limit:
            asked, error = await refused(bed, world.ben.session, stream=False, max_tokens=41)
            assert "lower max_tokens" in error["message"]
            denied(asked, limit)
            await bed.verify(resets=0)


async def test_a_stream_may_finish_and_the_next_is_denied(world: World) -> None:
    async with lay(world, slots=4) as bed:
        with of_ben(world, "next", amount=40, on_end="deny-next") as limit:
            asked, request = await bed.next(session=world.ben.session, max_tokens=1_000)
            await answer(asked, request, 100)
            asked.entry = {"completion_tokens": 100}
            later, error = await refused(bed, world.ben.session)
            assert error["limit"] == limit
            denied(later, limit)
            await bed.verify(resets=0)


async def test_a_call_is_refused_that_may_use_more_than_is_left(world: World) -> None:
    async with lay(world, slots=4) as bed:
        with of_ben(world, "finish", amount=40, on_end="finish") as limit:
            asked, request = await bed.next(session=world.ben.session, max_tokens=30)
            await answer(asked, request, 30)
            later, error = await refused(bed, world.ben.session, max_tokens=11)
            assert error["limit"] == limit
            denied(later, limit)
            last, request = await bed.next(session=world.ben.session, max_tokens=10)
            await answer(last, request, 10)
            await bed.verify(resets=0)


async def test_money_is_counted_by_the_price_table_and_what_has_no_price_is_not_free(world: World) -> None:
    owner, path = world.owner, "/admin/v1/orgs/acme/prices"
    fields = {"scope": "member", "subject": world.ben.id, "unit": "spend", "amount": 10**9, "window": "month"}
    async with lay(world, slots=4) as bed:
        with limited(owner, "bens-money", **fields):
            asked, error = await refused(bed, world.ben.session)
            assert (asked.stream.status, error["code"]) == (503, "price_unknown")
            asked.outcome, asked.entry = "refused", {"status": 503, "error": "price_unknown", "sent": False}
            price = {"model": "real-model", "input": 3_000_000_000, "output": 15_000_000_000}
            await asyncio.to_thread(owner.admin, "PUT", path, json={"prices": [price]}, headers=ANYHOW)
            try:
                asked, request = await bed.next(session=world.ben.session, max_tokens=100)
                await answer(asked, request, 20)
            finally:
                await asyncio.to_thread(owner.admin, "PUT", path, json={"prices": []}, headers=ANYHOW)
            left = asked.stream.headers["x-ratelimit-remaining-spend"]
            assert 0.99 < float(left) < 1 - 100 * 15e-6
            asked.entry = {"cost_nanodollars": 7 * 3_000 + 20 * 15_000}
            await bed.verify(resets=0)


@pytest.mark.parametrize("scope", ["org", "upstream"])
async def test_a_limit_of_the_platforms_is_told_apart_from_the_organizations_own(world: World, scope: str) -> None:
    async with lay(world, slots=4) as bed:
        subject = "acme" if scope == "org" else bed.upstream.url
        fields = {"scope": scope, "subject": subject, "unit": "output_tokens", "amount": 60, "window": "day"}
        with limited(world.operator, f"shared-{scope}", **fields) as name:
            asked, request = await bed.next(session=world.ben.session, max_tokens=50)
            await answer(asked, request, 50)
            shown = f"platform/{name}" if scope == "org" else name
            later, error = await refused(bed, world.ben.session, max_tokens=50)
            assert (error["limit"], error["owner"]) == (shown, "platform")
            denied(later, shown)
        await bed.verify(resets=0)


async def test_a_teams_members_share_its_bucket(world: World) -> None:
    def form() -> tuple[Session, Session]:
        """Two new people, in a team before they get their tokens."""
        owner, gateway = world.owner, world.gateway
        owner.create("teams", name="red")
        found = []
        for name in ("rosa", "rudi"):
            member = invite(gateway, owner, "acme", name, "member")
            owner.admin("PUT", f"/admin/v1/orgs/acme/teams/red/members/{member.id}")
            found.append(gateway.sign_in("acme", f"{name}@acme.test"))
        return found[0], found[1]

    rosa, rudi = await asyncio.to_thread(form)
    fields = {"scope": "team", "subject": "red", "unit": "output_tokens", "amount": 40, "window": "day"}
    async with lay(world, slots=4) as bed:
        with limited(world.owner, "reds", **fields):
            asked, request = await bed.next(session=rosa, max_tokens=30)
            await answer(asked, request, 30)
            later, error = await refused(bed, rudi, max_tokens=11)
            assert (error["limit"], error["scope"]) == ("reds", "team")
            denied(later, "reds")
            last, request = await bed.next(session=rudi, max_tokens=10)
            await answer(last, request, 10)
            await bed.verify(resets=0)
