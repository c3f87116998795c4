"""Erasing a person over the admin API: who may, of whom, and what is left of them in any file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.pack import PackWriter, whole_log
from gateway.audit.pseudonym import ERASED
from gateway.audit.verify import Verdict, verify_pack
from gateway.exchange import SpooledReceipt, SpoolUp
from policies.facts import Role
from tenants.ids import PLATFORM
from tests.fakes.audit import receipt
from tests.integration.admin.world import ACME, GLOBEX, LIMIT, World

PERSONS = "/orgs/acme/audit/persons"
ANN = {"email": "ann.thrope@people.example", "name": "Ann Thrope", "roles": ["member"]}


@pytest.fixture(autouse=True)
async def draining(world: World) -> AsyncIterator[None]:
    task = asyncio.create_task(world.sequencer.drain_outbox(world.store))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def join(world: World) -> str:
    made = await world.ask("POST", "/orgs/acme/members", json=ANN)
    assert made.status_code == 201, made.text
    ann = str(made.json()["member"]["id"])
    up = SpoolUp("boot-of-ann", tuple(SpooledReceipt(n, receipt(n, ACME, member=ann)) for n in range(1, 9)))
    await world.sequencer.append_receipts(up)
    return ann


async def leave(world: World, ann: str) -> None:
    gone = await world.ask("DELETE", f"/orgs/acme/members/{ann}", headers={"if-match": "*"})
    assert gone.status_code == 204, gone.text


async def erase(world: World, who: str, role: Role = Role.OWNER, org: str = "acme") -> Any:
    return await world.ask("POST", f"/orgs/{org}/audit/persons/{who}/erase", role)


async def entries(world: World) -> list[dict[str, Any]]:
    found = await world.ask("GET", "/orgs/acme/audit/entries", Role.AUDITOR, params={"limit": 1000})
    items: list[dict[str, Any]] = found.json()["items"]
    return items


async def write_pack(world: World, folder: Path) -> None:
    audit = world.deps.audit
    plan = whole_log(ACME, await audit.checkpoint(ACME), audit.verifier_key(ACME))
    with PackWriter(folder, plan) as pack:
        async for piece in audit.raw(ACME, 0, plan.size):
            pack.write(piece)
        pack.finish(int(world.clock.seconds))


def verified(world: World, folder: Path) -> Verdict:
    return verify_pack(folder, world.deps.audit.verifier_key(ACME))


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_nothing_of_an_erased_person_is_left_and_the_log_is_as_it_was(world: World, tmp_path: Path) -> None:
    ann = await join(world)
    await leave(world, ann)
    await world.actions()
    before = tmp_path / "before"
    await write_pack(world, before)
    note = await world.deps.audit.checkpoint(ACME)
    shown = await entries(world)
    assert sum(entry["actor"] == ann for entry in shown) == 8
    about = [entry["action"] for entry in shown if entry.get("target") == ann]
    assert about == ["member.create", "member.invite", "member.delete"]

    answer = await erase(world, ann, Role.ADMIN)
    assert answer.status_code == 200, answer.text
    person = answer.json()["person"]
    assert person.startswith("per_")

    # The revocation is the one thing that has to stay, as long as a token of theirs may live.
    until = answer.json()["held_until"]
    assert until > world.clock.seconds
    world.clock.seconds = until
    await world.erasure.clean()

    await world.actions()
    after = tmp_path / "after"
    await write_pack(world, after)
    left = bytes_of(tmp_path)
    assert [word for word in (ann, *ANN.values()) if isinstance(word, str) and word.encode() in left] == []
    assert verified(world, before).ok
    assert verified(world, after).ok
    lines = (before / "entries.jsonl").read_bytes()
    assert (after / "entries.jsonl").read_bytes().startswith(lines)
    assert (before / "checkpoint").read_text() == note
    told = await entries(world)
    assert sum(entry["actor"] == ERASED for entry in told) == 8
    (entry,) = [entry for entry in told if entry["action"] == "person.erase"]
    assert (entry["actor"], entry["target"]) == (world.members[ACME, Role.ADMIN].id, ERASED)
    stored = (after / "entries.jsonl").read_text().splitlines()[entry["index"]]
    assert f'"target":"{person}"' in stored


async def test_a_repeat_finds_nobody_and_does_no_harm(world: World) -> None:
    ann = await join(world)
    await leave(world, ann)
    assert (await erase(world, ann)).json()["person"]
    again = await erase(world, ann)
    assert (again.status_code, again.json()["person"]) == (200, "")
    assert (await world.actions()).count("person.erase") == 1


async def test_who_is_a_member_still_is_not_erased(world: World) -> None:
    ann = await join(world)
    for state in ("active", "suspend"):
        if state == "suspend":
            assert (await world.ask("POST", f"/orgs/acme/members/{ann}/suspend")).status_code == 200
        refused = await erase(world, ann)
        assert refused.status_code == 409
        assert refused.json()["type"] == "urn:orgate:problem:in-use"
        assert "is a member still: delete them first" in refused.json()["detail"]
    assert ("drop", "acme", ann) not in world.sessions.calls
    assert (await world.ask("GET", f"/orgs/acme/members/{ann}")).status_code == 200


async def test_who_is_in_a_limit_stays_and_is_not_erased(world: World) -> None:
    ann = await join(world)
    made = await world.ask("POST", "/orgs/acme/limits", json={**LIMIT, "subject": ann})
    assert made.status_code == 201, made.text
    kept = await world.ask("DELETE", f"/orgs/acme/members/{ann}", headers={"if-match": "*"})
    assert (kept.status_code, "named by the limits: fair" in kept.json()["detail"]) == (409, True)
    assert (await erase(world, ann)).status_code == 409
    await world.ask("DELETE", "/orgs/acme/limits/fair", headers={"if-match": "*"})
    await leave(world, ann)
    assert (await erase(world, ann)).status_code == 200


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.MEMBER])
async def test_who_may_read_may_not_erase(world: World, role: Role) -> None:
    ann = await join(world)
    await leave(world, ann)
    assert (await erase(world, ann, role)).status_code == 403
    assert any(entry["actor"] == ann for entry in await entries(world))


async def test_an_operator_erases_on_request_and_is_named_for_it(world: World) -> None:
    ann = await join(world)
    await leave(world, ann)
    answer = await erase(world, ann, Role.OPERATOR)
    assert answer.status_code == 200
    await world.actions()
    entry = (await entries(world))[-1]
    operator = world.members[PLATFORM, Role.OPERATOR].id
    assert (entry["action"], entry["actor"], entry["actor_org"]) == ("person.erase", operator, "platform")


async def test_nobody_of_another_organization_is_erased_or_found(world: World) -> None:
    ann = await join(world)
    await leave(world, ann)
    stranger = world.members[GLOBEX, Role.OWNER].id
    assert (await erase(world, stranger)).status_code == 404
    assert (await erase(world, "mem_0nobody")).status_code == 404
    assert (await world.ask("POST", f"{PERSONS}/{ann}/erase", org=GLOBEX)).status_code == 404
    assert any(entry["actor"] == ann for entry in await entries(world))


async def test_what_is_no_member_s_id_is_refused_in_words(world: World) -> None:
    for text in ("ann@people.example", "per_abc", "mem_UPPER", "mem_" + "x" * 60):
        answer = await erase(world, text)
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:orgate:problem:invalid-value"), text


async def test_readers_see_who_is_behind_the_pseudonyms_and_it_is_written_down(world: World) -> None:
    ann = await join(world)
    await world.actions()
    answer = await world.ask("GET", PERSONS, Role.AUDITOR)
    assert answer.status_code == 200
    found = {item["member"]: item["person"] for item in answer.json()["items"]}
    assert found[ann].startswith("per_")
    assert world.members[GLOBEX, Role.OWNER].id not in found
    assert (await world.last_entry())["action"] == "audit.export"
    assert (await world.ask("GET", PERSONS, Role.MEMBER)).status_code == 403
    assert [entry["actor"] for entry in await entries(world)].count(ann) == 8
    filtered = await world.ask("GET", "/orgs/acme/audit/entries", Role.AUDITOR, params={"actor": ann})
    assert len(filtered.json()["items"]) == 8
