"""Reading, following and exporting the log."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest

from gateway.api.admin.longpolls import OF_A_MEMBER, OF_AN_ORG
from gateway.audit import note
from gateway.errors import LimitExceededError
from policies.facts import Role
from tenants.ids import OrgId
from tests.integration.admin.world import ACME, GLOBEX, UPSTREAM, World
from tests.kit.wait import eventually

ENTRIES = "/orgs/acme/audit/entries"


@pytest.fixture(autouse=True)
async def entries(world: World) -> None:
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    await world.ask(
        "POST", "/orgs/acme/limits", Role.ADMIN, json={"name": "l", "scope": "org", "unit": "tokens", "amount": 5}
    )
    await world.sequencer.drain_once(world.store)


async def read(world: World, **params: Any) -> dict[str, Any]:
    answer = await world.ask("GET", ENTRIES, Role.AUDITOR, params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_entries_come_in_pages_and_filtered(world: World) -> None:
    everything = await read(world)
    assert [item["index"] for item in everything["items"]] == list(range(everything["next"]))
    first = await read(world, limit=2)
    second = await read(world, limit=2, after=first["next"])
    assert [item["index"] for item in first["items"] + second["items"]] == [0, 1, 2, 3]
    admin = world.members[ACME, Role.ADMIN].id
    assert [item["action"] for item in (await read(world, actor=admin))["items"]] == ["limit.create"]
    assert [item["target"] for item in (await read(world, action="upstream.create"))["items"]] == ["gpt"]


async def test_changes_have_no_outcome_or_model_and_an_unknown_outcome_is_refused(world: World) -> None:
    for asked in ({"outcome": "served"}, {"model": "gpt"}, {"client": "nobody"}):
        assert (await read(world, **asked))["items"] == []
    answer = await world.ask("GET", ENTRIES, Role.AUDITOR, params={"outcome": "denied"})
    assert answer.status_code == 422
    assert "refused" in answer.text
    member = await world.ask("GET", ENTRIES, Role.MEMBER, params={"outcome": "served"})
    assert member.status_code == 403


async def test_times_are_unix_seconds_or_rfc_3339(world: World) -> None:
    now = int(world.clock.seconds)
    everything = await read(world)
    for since in (str(now), "2027-01-15T08:00:00Z", "2027-01-15T09:00:00+01:00"):
        assert len((await read(world, since=since))["items"]) == len(everything["items"])
    assert (await read(world, since=str(now + 1)))["items"] == []
    assert (await read(world, until=str(now)))["items"] == []


async def test_a_tail_waits_for_the_next_entry_that_matches(world: World) -> None:
    end = (await read(world))["next"]
    waiting = asyncio.create_task(read(world, after=end, action="rule.create", wait_s=25))
    rule = {"name": "r", "effect": "deny", "roles": ["member"], "actions": ["chat"], "models": ["*"]}
    for path, body in (("upstreams", {**UPSTREAM, "name": "other"}), ("rules", rule)):
        assert (await world.ask("POST", f"/orgs/acme/{path}", json=body)).status_code == 201
        await world.sequencer.drain_once(world.store)
    async with asyncio.timeout(20):
        found = await waiting
    assert [item["action"] for item in found["items"]] == ["rule.create"]
    assert found["next"] == found["items"][0]["index"] + 1


async def test_only_so_many_wait_at_once_of_a_member_and_of_an_organization(world: World) -> None:
    """Each holds a connection of a listener that other organizations need, too."""
    end, polls = (await read(world))["next"], world.deps.long_polls
    query = {"after": end, "action": "rule.create", "wait_s": 0.01}

    async def ask(role: Role, org: OrgId = ACME, **changes: Any) -> int:
        path = f"/orgs/{org}/audit/entries"
        return (await world.ask("GET", path, role, org=org, params={**query, **changes})).status_code

    def full() -> bool:
        try:
            with polls.one(ACME, world.members[ACME, Role.OWNER].id):
                return False
        except LimitExceededError:
            return True

    with ExitStack() as others:
        for _ in range(OF_A_MEMBER - 1):
            others.enter_context(polls.one(ACME, world.members[ACME, Role.OWNER].id))
        assert await ask(Role.OWNER) == 200
        waiting = asyncio.create_task(ask(Role.OWNER, wait_s=25))
        await eventually(full, "the last place is taken")
        assert [await ask(Role.OWNER), await ask(Role.OWNER, wait_s=0), await ask(Role.AUDITOR)] == [429, 200, 200]
        for number in range(OF_AN_ORG - OF_A_MEMBER):
            others.enter_context(polls.one(ACME, f"mem_{number}"))
        assert [await ask(Role.AUDITOR), await ask(Role.OWNER, GLOBEX, after=0)] == [429, 200]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert await ask(Role.AUDITOR) == 200
    assert await ask(Role.OWNER) == 200


async def test_a_wait_that_ends_without_one_is_an_empty_page(world: World) -> None:
    end = (await read(world))["next"]
    assert await read(world, after=end, wait_s=0.01) == {"items": [], "next": end}


async def test_an_export_is_byte_for_byte_and_is_itself_an_entry(world: World) -> None:
    checkpoint = await world.ask("GET", "/orgs/acme/audit/checkpoint", Role.AUDITOR)
    key = await world.ask("GET", "/orgs/acme/audit/key", Role.AUDITOR)
    assert checkpoint.headers["content-type"].startswith("text/plain")
    signed = note.parse_checkpoint(note.open_note(checkpoint.text, note.parse_key(key.text)))
    log = await world.ask("GET", "/orgs/acme/audit/log", Role.AUDITOR)
    assert log.headers["content-type"].startswith("application/jsonl")
    lines = log.content.splitlines(keepends=True)
    assert len(lines) == signed.size
    part = await world.ask("GET", "/orgs/acme/audit/log", Role.AUDITOR, params={"start": 1, "end": 3})
    assert part.content == b"".join(lines[1:3])
    beyond = await world.ask("GET", "/orgs/acme/audit/log", Role.AUDITOR, params={"start": 3, "end": 10**9})
    assert beyond.content == b"".join(lines[3:])
    part = await world.ask("GET", "/orgs/acme/audit/log", Role.AUDITOR, params={"start": 1, "end": 3})
    entry = await world.last_entry()
    assert (entry["action"], entry["detail"]) == ("audit.export", {"start": 1, "end": 3})


@pytest.mark.parametrize(
    ("where", "params", "field"),
    [
        (ENTRIES, {"after": -1}, "after"),
        (ENTRIES, {"limit": 0}, "limit"),
        (ENTRIES, {"wait_s": 26}, "wait_s"),
        (ENTRIES, {"wait_s": "nan"}, "wait_s"),
        (ENTRIES, {"since": "yesterday"}, "since"),
        (ENTRIES, {"after": 2**60}, "after"),
        ("/orgs/acme/audit/log", {"start": 5, "end": 2}, "end"),
        ("/orgs/acme/audit/log", {"start": "x"}, "start"),
    ],
)
async def test_a_question_that_means_nothing_is_refused_by_name(
    world: World, where: str, params: dict[str, Any], field: str
) -> None:
    answer = await world.ask("GET", where, params=params)
    assert (answer.status_code, [fault["field"] for fault in answer.json()["errors"]]) == (422, [field])


async def test_what_an_operator_looks_at_is_in_the_organizations_log(world: World) -> None:
    answer = await world.ask("GET", "/orgs/acme/members", role=Role.OPERATOR)
    assert answer.status_code == 200, answer.text
    entry = await world.last_entry(ACME)
    assert (entry["action"], entry["actor_org"], entry["target"]) == ("operator.access", "platform", "member.list")
    assert entry["operation_type"] == "access"
    await world.ask("GET", "/orgs/acme/members", role=Role.OWNER)
    assert (await world.actions(ACME)).count("operator.access") == 1
