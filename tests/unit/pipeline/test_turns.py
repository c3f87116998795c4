"""Before anything is claimed: deadlines, holds, and that the latest keystroke wins."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest
from msgspec import structs

from gateway.api.data.openai import decoder
from gateway.errors import BadRequestError, LimitExceededError, UpstreamTimeoutError
from gateway.exchange import Claim, Outcome
from gateway.inflight import Abort
from policies.facts import Action
from tenants.models import Org
from tenants.snapshot import Snapshot, TenantRecord
from tests.unit.pipeline.world import (
    ACME,
    RECORD,
    USAGE,
    FakeAnswer,
    FakeHold,
    FakeInbound,
    FakeStream,
    World,
    run,
    settled,
)


def changed(world: World, *, total_timeout_ms: int = 0, **org: object) -> World:
    """`world` with an organization that asks for something."""
    upstream = structs.replace(RECORD.upstreams[0], total_timeout_ms=total_timeout_ms)
    record = TenantRecord(
        Org(ACME, "Acme", **org),  # type: ignore[arg-type]  # a test names the fields it cares for
        (upstream,),
        RECORD.models,
        (),
        RECORD.rules,
    )
    world.snapshot = Snapshot(2, [record])
    return world


def begin(world: World, inbound: FakeInbound, task: Action = Action.COMPLETE) -> asyncio.Task[None]:
    inbound.task = asyncio.create_task(world.pipeline.complete(task, inbound, decoder(task), FakeAnswer()))
    return inbound.task


def typed(document: bytes | None = b"dmain.py") -> FakeInbound:
    inbound = FakeInbound()
    inbound.document = document
    return inbound


@pytest.mark.parametrize(
    ("server", "org_ms", "upstream_ms", "ends"),
    [
        (600.0, 0, 0, 600.0),
        (600.0, 30_000, 0, 30.0),
        (600.0, 30_000, 20_000, 20.0),
        (600.0, 10_000, 20_000, 10.0),
        (5.0, 30_000, 20_000, 5.0),
    ],
)
async def test_the_smallest_deadline_counts(server: float, org_ms: int, upstream_ms: int, ends: float) -> None:
    world = changed(World(), deadline_ms=org_ms, total_timeout_ms=upstream_ms)
    world.answers(200, FakeStream(USAGE))
    inbound = FakeInbound()
    inbound.arrived = asyncio.get_running_loop().time()
    inbound.ends = inbound.arrived + server
    await run(world, inbound)
    assert inbound.ends - inbound.arrived == pytest.approx(ends)


async def test_what_is_late_is_not_sent_and_costs_nothing() -> None:
    world, inbound = World(), FakeInbound()
    inbound.ends = asyncio.get_running_loop().time()
    with pytest.raises(UpstreamTimeoutError) as caught:
        await run(world, inbound)
    assert caught.value.status == 504
    assert world.requests == []
    assert world.hold.ends == [None]
    assert (settled(world).outcome, settled(world).sent) == (Outcome.UPSTREAM_TIMEOUT, False)


async def test_a_head_that_cannot_be_read_is_refused_with_an_entry() -> None:
    world, inbound = World(), FakeInbound()
    inbound.fault = BadRequestError("the header 'grpc-timeout' must be ...")
    with pytest.raises(BadRequestError):
        await run(world, inbound)
    receipt = settled(world)
    assert (receipt.outcome, receipt.status, receipt.client_version) == (Outcome.REFUSED, 400, "editor/1.0")


async def test_a_cancel_in_the_hold_is_never_sent_and_claims_nothing() -> None:
    world, inbound = changed(World(), holds=("other/*=50", "editor/1.*=50")), FakeInbound()
    inbound.arrived = math.inf  # the hold goes on for as long as the test likes
    task = begin(world, inbound)
    while world.admitted == 0:
        await asyncio.sleep(0)
    inbound.abort(Abort.CLIENT)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.requests == []
    assert world.claims == ()
    assert world.hold.ends == []
    receipt = settled(world)
    assert (receipt.outcome, receipt.sent) == (Outcome.CANCELLED_BY_CLIENT, False)
    assert world.in_flight.count == 0


@pytest.mark.parametrize("holds", [("editor/1.*=1",), ("other/*=50",)])
async def test_what_is_not_cancelled_is_served_after_its_hold(holds: tuple[str, ...]) -> None:
    world, inbound = changed(World(), holds=holds), FakeInbound()
    world.answers(200, FakeStream(USAGE))
    inbound.arrived = asyncio.get_running_loop().time()
    await run(world, inbound)
    assert settled(world).outcome is Outcome.SERVED


async def test_the_newer_takes_the_place_and_the_older_settles_once() -> None:
    world = changed(World(), supersede=True)
    stream = world.answers(200, FakeStream(b"data: {}\n\n", asyncio.Event()))
    older, newer = typed(), typed()
    first = begin(world, older)
    while not world.requests:
        await asyncio.sleep(0)
    fresh = world.answers(200, FakeStream(USAGE))
    second = begin(world, newer)
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert older.aborted is Abort.SUPERSEDED
    assert newer.aborted is None
    assert stream.closed
    assert fresh.closed
    assert [receipt.outcome for receipt in world.receipts] == [Outcome.SUPERSEDED, Outcome.SERVED]
    assert len(world.hold.ends) == 2
    assert len(world.pipeline._latest) == 0


class OneAtATime(World):
    """With a limit of one request at a time."""

    reserved = 0

    async def reserve(self, claims: Sequence[Claim]) -> FakeHold:
        if self.reserved > len(self.hold.ends):
            raise LimitExceededError("one at a time", limit="one", scope="member", retry_after_s=1)
        self.reserved += 1
        return await super().reserve(claims)


async def test_the_newer_finds_what_the_older_held() -> None:
    """A limit of one at a time is no reason to refuse the keystroke that ends the one before."""
    world = changed(OneAtATime(), supersede=True)
    world.answers(200, FakeStream(b"data: {}\n\n", asyncio.Event()))
    first = begin(world, typed())
    while not world.requests:
        await asyncio.sleep(0)
    with pytest.raises(LimitExceededError):
        await begin(world, typed(b"dother.py"))
    world.answers(200, FakeStream(USAGE))
    await begin(world, typed())
    with pytest.raises(asyncio.CancelledError):
        await first
    assert [r.outcome for r in world.receipts] == [Outcome.REFUSED, Outcome.SUPERSEDED, Outcome.SERVED]


@pytest.mark.parametrize("case", ["off", "no document", "another document", "chat", "another version"])
async def test_others_are_left_alone(case: str) -> None:
    world = changed(World(), supersede=case != "off")
    stream = world.answers(200, FakeStream(b"data: {}\n\n", asyncio.Event()))
    older = typed(None if case == "no document" else b"dmain.py")
    first = begin(world, older)
    while not world.requests:
        await asyncio.sleep(0)
    world.answers(200, FakeStream(USAGE))
    newer = typed({"no document": None, "another document": b"dother.py"}.get(case, b"dmain.py"))
    if case == "another version":
        newer.client_version = "editor/2.0"
    if case == "chat":
        newer._body = b'{"model":"code","messages":[{"role":"user","content":"x"}],"stream":true}'
    await begin(world, newer, Action.CHAT if case == "chat" else Action.COMPLETE)
    assert older.aborted is None
    assert not first.done()
    assert not stream.closed
    older.abort(Abort.CLIENT)
    with pytest.raises(asyncio.CancelledError):
        await first
