"""The intent: written before anything else, and durable before anything is sent where the org is strict."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest
from msgspec import structs

from gateway.errors import LimitExceededError, UnauthenticatedError, UnavailableError
from gateway.exchange import Outcome
from gateway.inflight import Abort
from policies.facts import Action
from policies.rules import Effect
from tenants.ids import PLATFORM
from tenants.models import Durability, Limit, LimitScope, LimitUnit
from tenants.snapshot import Snapshot, Tenant, TenantRecord
from tests.unit.pipeline.world import ACME, RECORD, RULE, USAGE, FakeInbound, FakeStream, World, run, settled

STRICT = structs.replace(RECORD, org=structs.replace(RECORD.org, durability=Durability.STRICT))


@pytest.fixture
def strict() -> World:
    world = World()
    world.snapshot = Snapshot(1, [STRICT])
    return world


async def test_what_is_known_at_admission_is_written_then_and_nothing_is_awaited() -> None:
    world = World()
    gate = FakeStream(asyncio.Event())
    world.answers(200, gate)
    asking = asyncio.create_task(run(world))
    while not world.requests:
        await asyncio.sleep(0)
    (intent,) = world.intents.values()
    known = (intent.org, intent.member, intent.client, intent.client_version, intent.request_id, intent.action)
    assert known == (ACME, "mem_1", "editor", "editor/1.0", "req_test0001", Action.COMPLETE)
    assert intent.at_us == 1_000_000_000
    assert (intent.model, intent.policy) == ("", Tenant(RECORD).policy_digest)
    assert world.secured == []
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    settled(world)


async def test_strict_waits_for_the_disk_before_the_first_byte_goes_upstream(strict: World) -> None:
    strict.secure_gate = asyncio.Event()
    strict.answers(200, FakeStream(USAGE))
    asking = asyncio.create_task(run(strict))
    while not strict.secured:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert strict.requests == []
    strict.secure_gate.set()
    await asking
    (intent,) = strict.secured
    assert (intent.model, intent.upstream, intent.upstream_model) == ("code", "up", "real-code")
    assert (intent.key_version, intent.rule) == (3, RULE.name)
    assert settled(strict).outcome is Outcome.SERVED


async def test_what_cannot_be_made_durable_is_not_sent_and_costs_nothing(strict: World) -> None:
    strict.secure_error = UnavailableError("the audit log cannot be written (Input/output error)")
    with pytest.raises(UnavailableError):
        await run(strict)
    assert strict.requests == []
    assert strict.hold.ends == [None]
    receipt = settled(strict)
    assert (receipt.outcome, receipt.status, receipt.sent) == (Outcome.REFUSED, 503, False)


async def test_a_cancel_while_the_disk_is_waited_for_still_settles(strict: World) -> None:
    strict.secure_gate = asyncio.Event()
    inbound = FakeInbound()

    async def ask() -> None:
        await run(strict, inbound)

    inbound.task = asyncio.create_task(ask())
    while not strict.secured:
        await asyncio.sleep(0)
    inbound.abort(Abort.CLIENT)
    with pytest.raises(asyncio.CancelledError):
        await inbound.task
    assert strict.hold.ends == [None]
    assert settled(strict).outcome is Outcome.CANCELLED_BY_CLIENT


async def test_without_room_for_an_intent_nothing_is_begun() -> None:
    world = World()
    world.receipts_error = UnavailableError("the audit log has no reserve on disk")
    with pytest.raises(UnavailableError):
        await run(world)
    assert world.in_flight.count == 0
    assert world.receipts == []
    assert world.observed[0].org == ""


async def test_without_a_token_there_is_no_intent() -> None:
    world = World()
    with pytest.raises(UnauthenticatedError):
        await run(world, FakeInbound(authorization=None))
    assert world.admitted == 0


# -- what judged a request ------------------------------------------------------------------------------------


def limited(*names: str) -> TenantRecord:
    limits = [Limit(ACME, name, LimitScope.ORG, LimitUnit.REQUESTS, 9) for name in names]
    return structs.replace(RECORD, limits=tuple(limits))


@pytest.mark.parametrize("refused", [False, True])
async def test_a_receipt_names_the_limits_and_the_rules_that_judged(refused: bool) -> None:
    world = World()
    operators = TenantRecord(
        structs.replace(RECORD.org, id=PLATFORM),
        limits=(Limit(PLATFORM, "all", LimitScope.ORG, LimitUnit.REQUESTS, 9),),
    )
    world.snapshot = Snapshot(1, [limited("a", "b"), operators])
    if refused:
        world.limit_error = LimitExceededError("no", limit="b", scope="org", retry_after_s=1)
        with pytest.raises(LimitExceededError):
            await run(world)
    else:
        world.answers(200, FakeStream(USAGE))
        await run(world)
    receipt = settled(world)
    assert receipt.limits == ("a", "b", "platform/all")
    assert receipt.policy == Tenant(RECORD).policy_digest
    assert receipt.limit == ("b" if refused else "")


def test_rules_have_one_digest_whatever_else_changes() -> None:
    """Worked out from the rules as canonical JSON: an auditor can do so too."""
    rules = (
        b'[{"actions":["completions","chat","embeddings","models"],"effect":"allow","id":"all","models":["*"],'
        b'"roles":["member"]}]'
    )
    digest = Tenant(RECORD).policy_digest
    assert digest == sha256(rules).hexdigest()[:32]
    renamed = structs.replace(RECORD, org=structs.replace(RECORD.org, name="Acme Limited", version=9))
    assert Tenant(renamed).policy_digest == digest
    denied = structs.replace(RECORD, rules=(structs.replace(RULE, effect=Effect.DENY),))
    reworked = structs.replace(RECORD, rules=(structs.replace(RULE, version=7),))
    assert Tenant(denied).policy_digest != digest == Tenant(reworked).policy_digest
