"""An organization has so many limits, and a request meets so many of them."""

from __future__ import annotations

import asyncio

import pytest

from tenants.ids import PLATFORM, OrgId
from tenants.manylimits import TEAMS
from tenants.models import LimitScope
from tenants.sql.store import SqlControlStore, SqlOrgStore
from tenants.store import TooManyError
from tests.contract.control_store import OPERATOR, limit, org


@pytest.fixture
async def acme(store: SqlControlStore, monkeypatch: pytest.MonkeyPatch) -> SqlOrgStore:
    monkeypatch.setattr("tenants.sql.kinds.MOST_LIMITS", 12)
    monkeypatch.setattr("tenants.sql.kinds.MOST_AT_ONCE", 10)
    await store.orgs.create(org("acme"), OPERATOR)
    return store.for_org(OrgId("acme"))


async def names(acme: SqlOrgStore) -> list[str]:
    return [one.name for one in (await acme.limits.page())[0]]


async def test_no_request_meets_more(acme: SqlOrgStore) -> None:
    for number in range(10):
        await acme.limits.create(limit("acme", f"l{number}"), OPERATOR)
    with pytest.raises(TooManyError, match=r"at most 10 limits may apply to one request.* 11 would"):
        await acme.limits.create(limit("acme", "more"), OPERATOR)
    # What is there can be changed, and another can take its place.
    await acme.limits.replace(limit("acme", "l0", amount=7), 1, OPERATOR)
    await acme.limits.delete("l0", 2, OPERATOR)
    await acme.limits.create(limit("acme", "more"), OPERATOR)


async def test_those_of_different_members_do_not_add_up_until_there_are_too_many(acme: SqlOrgStore) -> None:
    for number in range(12):
        await acme.limits.create(
            limit("acme", f"l{number}", scope=LimitScope.MEMBER, subject=f"mem_{number}"), OPERATOR
        )
    with pytest.raises(TooManyError, match="has 12 limits at most"):
        await acme.limits.create(limit("acme", "more", subject="mem_99", scope=LimitScope.MEMBER), OPERATOR)


async def test_a_limit_that_becomes_everybodys_counts_as_one(acme: SqlOrgStore) -> None:
    for number in range(9):
        await acme.limits.create(limit("acme", f"l{number}"), OPERATOR)
    for person in ("mem_1", "mem_2"):
        await acme.limits.create(limit("acme", person, scope=LimitScope.MEMBER, subject=person), OPERATOR)
    with pytest.raises(TooManyError, match="11 would"):
        await acme.limits.replace(limit("acme", "mem_1", scope=LimitScope.MEMBER), 1, OPERATOR)


async def test_a_limit_of_each_team_counts_as_several(acme: SqlOrgStore) -> None:
    await acme.limits.create(limit("acme", "teams", scope=LimitScope.TEAM), OPERATOR)
    with pytest.raises(TooManyError, match=f"{2 * TEAMS} would"):
        await acme.limits.create(limit("acme", "more", scope=LimitScope.TEAM), OPERATOR)


async def test_what_stood_before_there_was_a_bound_can_be_made_less(
    acme: SqlOrgStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        await acme.limits.create(limit("acme", f"l{number}"), OPERATOR)
    monkeypatch.setattr("tenants.sql.kinds.MOST_AT_ONCE", 5)
    await acme.limits.replace(limit("acme", "l1", scope=LimitScope.MEMBER, subject="mem_1"), 1, OPERATOR)
    assert len(await names(acme)) == 9


async def test_of_many_at_the_same_moment_as_many_get_in(acme: SqlOrgStore) -> None:
    made = await asyncio.gather(
        *(acme.limits.create(limit("acme", f"l{number}"), OPERATOR) for number in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, TooManyError) for one in made) == 10
    assert len(await names(acme)) == 10


async def test_the_platforms_own_are_bounded_too(acme: SqlOrgStore, store: SqlControlStore) -> None:
    platform = store.for_org(PLATFORM)
    for number in range(10):
        await platform.limits.create(limit(PLATFORM, f"l{number}", scope=LimitScope.ORG), OPERATOR)
    with pytest.raises(TooManyError):
        await platform.limits.create(limit(PLATFORM, "more", scope=LimitScope.UPSTREAM), OPERATOR)
