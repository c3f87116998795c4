"""Who reads the log is in it: once for each reader and question."""

from __future__ import annotations

from typing import Any

from gateway.api.admin.caller import OPERATION
from gateway.api.admin.reads import AGAIN_S, NOTED, READS, REMEMBERED, ReadNotes
from policies.facts import Role
from tenants.ids import PLATFORM
from tenants.store import Actor, OrgStore
from tests.integration.admin.world import ACME, GLOBEX, World
from tests.isolation.test_route_tables import handlers

ENTRIES = "/orgs/acme/audit/entries"
WITHOUT_ENTRIES = {"/checkpoint", "/key", "/leaves", "/consistency", "/hold"}
OWN_ENTRY = {"/log", "/persons", "/export"}


async def reads(world: World) -> list[dict[str, Any]]:
    """The entries `audit.read` of acme, as its readers see them."""
    await world.sequencer.drain_once(world.store)
    found, _ = await world.deps.audit.entries(ACME, limit=1000, action="audit.read")
    return [dict(one) for one in found]


async def test_pages_and_long_polls_of_one_question_are_one_entry(world: World) -> None:
    for after in (0, 1, 2):
        await world.ask("GET", ENTRIES, Role.AUDITOR, params={"after": after, "limit": 1})
    await world.ask("GET", ENTRIES, Role.AUDITOR, params={"after": 999, "wait_s": 0.01})
    entry, *more = await reads(world)
    assert more == []
    assert (entry["target"], entry["operation_type"], entry["actor_org"]) == ("entries", "access", "acme")
    assert entry["actor"] == world.members[ACME, Role.AUDITOR].id
    assert "detail" not in entry


async def test_each_reader_and_each_question_has_its_own(world: World) -> None:
    member = world.members[ACME, Role.MEMBER].id
    for role in (Role.AUDITOR, Role.OWNER):
        for _ in range(2):
            await world.ask("GET", ENTRIES, role, params={"actor": member, "outcome": "refused"})
    await world.ask("GET", ENTRIES, Role.AUDITOR, params={"model": "gpt"})
    found = await reads(world)
    assert [entry["detail"] for entry in found] == [{"actor": member, "outcome": "refused"}] * 2 + [
        {"model": "gpt"}
    ]
    stored = b"".join([piece async for piece in world.deps.audit.raw(ACME, 0, 99)])
    assert member.encode() not in stored


async def test_whoever_goes_on_reading_is_written_down_once_an_hour(world: World) -> None:
    for _ in range(3):
        await world.ask("GET", ENTRIES, Role.AUDITOR)
        world.clock.seconds += AGAIN_S / 2
    assert len(await reads(world)) == 2


async def test_an_address_that_somebody_asked_for_is_in_no_entry(world: World) -> None:
    """It could not be erased there. Members are asked for by their ids."""
    typed = {"actor": "ann.thrope@people.example,mem_1", "model": "ann+x@people.example"}
    for path in (ENTRIES, "/orgs/acme/audit/export", "/orgs/acme/audit/actors"):
        assert (await world.ask("GET", path, Role.AUDITOR, params=typed)).status_code in (200, 422)
    assert [entry["detail"]["actor"] for entry in await reads(world)] == ["(e-mail),mem_1"] * 2
    stored = b"".join([piece async for piece in world.deps.audit.raw(ACME, 0, 99)])
    assert b"audit.export" in stored
    assert b"people.example" not in stored


async def test_nobody_reads_who_is_behind_pseudonyms_from_the_middle_unseen(world: World) -> None:
    """Whatever `after` says, the first page that it gives may have everybody in it."""
    for _ in range(2):
        answer = await world.ask("GET", "/orgs/acme/audit/persons", Role.AUDITOR, params={"after": "a"})
        assert answer.status_code == 200
    assert [(entry["target"], "detail" in entry) for entry in await reads(world)] == [("persons", False)]


async def test_an_operator_who_looks_in_is_an_entry_of_the_organization_he_looks_at(world: World) -> None:
    answer = await world.ask("GET", ENTRIES, Role.OPERATOR)
    assert answer.status_code == 200
    entry, *more = await reads(world)
    assert (entry["actor_org"], more) == (PLATFORM, [])
    assert "operator.access" not in await world.actions(ACME)


async def test_what_was_refused_is_no_read(world: World) -> None:
    assert (await world.ask("GET", ENTRIES, Role.MEMBER)).status_code == 403
    assert (await world.ask("GET", ENTRIES, Role.AUDITOR, org=GLOBEX)).status_code == 404
    assert await reads(world) == []


def test_every_way_to_read_the_log_is_noted_but_for_those_named_here(world: World) -> None:
    """An endpoint that is added is noted without doing anything; leaving it out takes a line in this test."""
    silent = {
        path.partition("/audit")[2]
        for path, handler in handlers(world.app.app)
        if handler.opt.get(OPERATION) in READS and handler.opt.get(NOTED)
    }
    assert silent <= WITHOUT_ENTRIES | OWN_ENTRY
    assert silent >= WITHOUT_ENTRIES


async def test_only_so_many_questions_are_remembered(world: World) -> None:
    class Counting:
        org = ACME
        count = 0

        async def note(self, *_: object) -> None:
            self.count += 1

    notes, store, by = ReadNotes(), Counting(), Actor(ACME, "mem_1")
    kept: OrgStore = store  # type: ignore[assignment]  # the part that is asked
    for number in (*range(REMEMBERED + 1), 0, REMEMBERED):
        await notes.note(kept, by, "/admin/v1/orgs/acme/audit/tile/0/000", [("model", f"m{number}")], 1.0)
    assert store.count == REMEMBERED + 2
