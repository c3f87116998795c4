"""The legal hold and the retention of an organization, at the admin API."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.audit.log_store import StoreAwayError
from gateway.audit_settings import AuditStoreSettings
from policies.facts import Role
from tests.integration.admin.world import ACME, World

HOLD = "/orgs/acme/audit/hold"
ANY = {"if-match": "*"}


async def shown(world: World) -> Any:
    return (await world.ask("GET", HOLD, Role.AUDITOR)).json()


async def test_a_hold_is_set_shown_and_cleared_and_each_is_an_entry(world: World) -> None:
    assert (await shown(world))["hold"] == ""
    for reason in ("case 2026-114", "case 2026-115"):
        answer = await world.ask("PUT", HOLD, Role.OWNER, json={"reason": reason})
        assert (answer.status_code, answer.json()["hold"]) == (200, reason)
    assert (await shown(world))["hold"] == "case 2026-115"
    for _ in range(2):
        answer = await world.ask("DELETE", HOLD, Role.OWNER)
        assert (answer.status_code, answer.json()["hold"]) == (200, "")
    await world.sequencer.drain_once(world.store)
    entries, _ = await world.deps.audit.entries(ACME, limit=1000, action="org.update")
    said = [str(entry["detail"]) for entry in entries if "audit_hold" in str(entry["detail"])]
    assert ["2026-114" in said[0], "2026-115" in said[1], len(said)] == [True, True, 3]


@pytest.mark.parametrize("role", [Role.ADMIN, Role.AUDITOR, Role.MEMBER])
async def test_who_may_not(world: World, role: Role) -> None:
    assert (await world.ask("PUT", HOLD, role, json={"reason": "x"})).status_code == 403
    assert (await world.ask("DELETE", HOLD, role)).status_code == 403


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": " "}, {"reason": "x" * 257}, {"reason": "a\nb"}])
async def test_a_hold_without_a_reason_is_refused(world: World, body: dict[str, str]) -> None:
    answer = await world.ask("PUT", HOLD, Role.OWNER, json=body)
    assert answer.status_code in (400, 422)
    assert "reason" in answer.text
    assert (await shown(world))["hold"] == ""


async def test_an_organization_that_is_held_cannot_be_deleted(world: World) -> None:
    await world.ask("PUT", HOLD, Role.OWNER, json={"reason": "a case"})
    answer = await world.ask("DELETE", "/orgs/acme", Role.OWNER, headers=ANY)
    assert answer.status_code == 409
    assert "legal hold" in answer.text


async def test_an_organization_says_how_long_it_keeps_its_entries_within_the_floor(world: World) -> None:
    object.__setattr__(world.deps, "audit_store", AuditStoreSettings(retention_days=90, retention_floor_days=30))
    assert (await shown(world))["retention_days"] == 90
    current = (await world.ask("GET", "/orgs/acme", Role.OWNER)).json()
    for days, status in ((29, 422), (30, 200), (36_501, 422), (0, 200)):
        answer = await world.ask(
            "PUT", "/orgs/acme", Role.OWNER, headers=ANY, json={**current, "audit_retention_days": days}
        )
        assert answer.status_code == status, answer.text
        if status == 422:
            assert "audit_retention_days" in answer.text
        else:
            current = answer.json()
            assert (await shown(world))["retention_days"] == (days or 90)


async def test_a_hold_is_not_changed_by_whoever_changes_the_organization(world: World) -> None:
    await world.ask("PUT", HOLD, Role.OWNER, json={"reason": "a case"})
    current = (await world.ask("GET", "/orgs/acme", Role.OWNER)).json()
    assert current["audit_hold"] == "a case"
    answer = await world.ask("PUT", "/orgs/acme", Role.OWNER, headers=ANY, json={**current, "audit_hold": ""})
    assert answer.status_code == 422
    del current["audit_hold"]
    assert (await world.ask("PUT", "/orgs/acme", Role.OWNER, headers=ANY, json=current)).status_code == 200
    assert (await shown(world))["hold"] == "a case"


async def test_a_store_that_is_away_is_told_and_shows_nothing_of_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(org: str) -> tuple[int, int]:
        raise StoreAwayError("PostgreSQL: the server at db.internal is gone")

    monkeypatch.setattr(world.deps.audit, "range", away)
    answer = await world.ask("GET", HOLD, Role.AUDITOR)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "db.internal" not in answer.text


async def test_an_export_from_before_the_log_begins_says_where_it_begins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begins(org: str) -> tuple[int, int]:
        return 7, 9

    monkeypatch.setattr(world.deps.audit, "range", begins)
    answer = await world.ask("GET", "/orgs/acme/audit/log", Role.AUDITOR, params={"start": 3})
    assert answer.status_code == 422
    assert "begins with entry 7" in answer.text
    assert {"begin": 7, "size": 9}.items() <= (await shown(world)).items()
