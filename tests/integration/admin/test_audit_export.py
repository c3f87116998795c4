"""Exporting a part of the log: the lines that match, who may, and what the log says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.audit import reader
from policies.facts import Role
from tenants.ids import PLATFORM, is_member_id
from tenants.store import StoreUnavailableError
from tests.fakes.audit import up
from tests.integration.admin.world import ACME, GLOBEX, UPSTREAM, World

EXPORT = "/orgs/acme/audit/export"
ACTORS = "/orgs/acme/audit/actors"


@pytest.fixture(autouse=True)
async def entries(world: World) -> None:
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    await world.ask(
        "POST", "/orgs/acme/limits", Role.ADMIN, json={"name": "l", "scope": "org", "unit": "tokens", "amount": 5}
    )
    await world.sequencer.drain_once(world.store)


async def stored(world: World) -> list[bytes]:
    pieces = [piece async for piece in world.deps.audit.raw(ACME, 0, 10_000)]
    return b"".join(pieces).splitlines(keepends=True)


async def exported(world: World, role: Role = Role.AUDITOR, **params: Any) -> list[bytes]:
    """The lines, without the empty one that has to be the last, and those that say that the search goes on."""
    answer = await world.ask("GET", EXPORT, role, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/jsonl"
    *lines, last = answer.content.splitlines(keepends=True)
    assert last == b"\n"
    return [line for line in lines if line != b" \n"]


async def test_the_lines_that_match_come_as_they_are_stored(world: World) -> None:
    lines = await stored(world)
    assert await exported(world) == lines
    assert await exported(world, after=1, end=3) == lines[1:3]
    created = await exported(world, action="limit.create")
    assert created == [line for line in lines if b'"limit.create"' in line]
    admin = world.members[ACME, Role.ADMIN].id
    assert await exported(world, actor=admin, end=len(lines)) == created
    assert b"mem_" not in created[0]
    now = int(world.clock.seconds)
    assert await exported(world, until=str(now)) == []
    assert await exported(world, since=str(now), end=len(lines)) == lines
    assert await exported(world, outcome="served") == []


async def test_filters_look_at_what_requests_say_too(world: World) -> None:
    await world.sequencer.append_receipts(up("boot", 1, 2, 3))
    requests = [line for line in await stored(world) if b'"outcome"' in line]
    assert len(requests) == 3
    assert await exported(world, outcome="served", model="code", client="orgate-editor") == requests
    assert await exported(world, outcome="served", client="another") == []
    assert await exported(world, outcome="refused") == []


async def test_a_long_search_that_finds_nothing_says_that_it_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "SCAN_MAX", 1)
    size = len(await stored(world))
    answer = await world.ask("GET", EXPORT, Role.AUDITOR, params={"model": "none", "end": size})
    assert answer.content == b" \n" * size + b"\n"


async def test_an_export_is_in_the_log_before_its_first_byte_and_names_its_filters(world: World) -> None:
    admin = world.members[ACME, Role.ADMIN].id
    await exported(world, action="limit.create", actor=admin, since="1700000000", after=1, end=3)
    entry = await world.last_entry()
    assert entry["action"] == "audit.export"
    asked = {"action": "limit.create", "actor": admin, "since": 1_700_000_000, "after": 1, "end": 3}
    assert entry["detail"] == asked
    assert admin.encode() not in (await stored(world))[-1], "stored under the pseudonym"
    assert "audit.read" not in await world.actions(), "one entry an export"


async def test_an_export_that_cannot_be_written_down_does_not_begin(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailableError("locked")

    monkeypatch.setattr("tenants.sql.store.SqlOrgStore.note", away, raising=True)
    answer = await world.ask("GET", EXPORT, Role.AUDITOR)
    assert answer.status_code == 503
    assert b'"index"' not in answer.content


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"after": 5, "end": 2}, "end"),
        ({"after": -1}, "after"),
        ({"outcome": "denied"}, "outcome"),
        ({"since": "soon"}, "since"),
        ({"until": "never"}, "until"),
        ({"model": "m" * 129}, "model"),
    ],
)
async def test_what_makes_no_sense_is_named(world: World, params: dict[str, Any], field: str) -> None:
    answer = await world.ask("GET", EXPORT, Role.AUDITOR, params=params)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("path", [EXPORT, ACTORS])
async def test_only_who_may_export_does(world: World, path: str) -> None:
    for role in (Role.MEMBER,):
        assert (await world.ask("GET", path, role, params={"actor": "system"})).status_code == 403
    for role in (Role.AUDITOR, Role.OWNER):
        assert (await world.ask("GET", path, role, params={"actor": "system"})).status_code == 200


async def test_who_an_actor_is_in_the_lines(world: World) -> None:
    admin = world.members[ACME, Role.ADMIN].id
    answer = await world.ask("GET", ACTORS, Role.AUDITOR, params={"actor": admin})
    names = answer.json()["items"]
    assert names == [json.loads((await exported(world, action="limit.create"))[0])["actor"]]
    assert not any(is_member_id(name) for name in names)
    lines = await exported(world, action="limit.create")
    assert await exported(world, actor=",".join(names), action="limit.create") == lines
    nobody = await world.ask("GET", ACTORS, Role.AUDITOR, params={"actor": "mem_" + "0" * 20})
    assert nobody.json()["items"] == []
    await world.sequencer.append_receipts(up("boot", 1))
    foreign = await world.ask("GET", ACTORS, Role.AUDITOR, params={"actor": "mem_0123456789abcdefghjk"})
    assert len(foreign.json()["items"]) == 1
    for asked in ("", "system", "erased"):
        assert (await world.ask("GET", ACTORS, Role.AUDITOR, params={"actor": asked})).json()["items"] == []


async def test_members_of_others_are_nobody_here(world: World) -> None:
    """An operator who never acted on acme, and globex's own: as an id that never was."""
    operator = world.members[PLATFORM, Role.OPERATOR].id
    await world.ask("POST", "/orgs", Role.OPERATOR, json={"id": "beta", "name": "Beta"})
    await world.ask("POST", "/orgs/globex/upstreams", Role.ADMIN, org=GLOBEX, json=UPSTREAM)
    await world.sequencer.drain_once(world.store)
    assert (await world.last_entry(GLOBEX))["actor"] == world.members[GLOBEX, Role.ADMIN].id
    for who in (operator, world.members[GLOBEX, Role.ADMIN].id, "mem_" + "0" * 20):
        for _ in range(2):  # having been asked for is no deed
            answer = await world.ask("GET", ACTORS, Role.AUDITOR, params={"actor": who})
            assert answer.json()["items"] == []
            assert await exported(world, actor=who) == []
            await world.sequencer.drain_once(world.store)
    await world.ask("GET", "/orgs/acme/upstreams", Role.OPERATOR)
    await world.sequencer.drain_once(world.store)
    seen = await exported(world, actor=operator)
    names = (await world.ask("GET", ACTORS, Role.AUDITOR, params={"actor": operator})).json()["items"]
    assert {json.loads(line)["actor"] for line in seen} == set(names) != set()
