"""Who is in which team: what the control store promises of teams beyond other things of an organization."""

from __future__ import annotations

import pytest

from tenants.ids import MemberId, OrgId
from tenants.models import Limit, LimitScope, LimitUnit, TeamMember
from tenants.sql.store import SqlControlStore
from tenants.store import InUseError, InvalidReferenceError, NotFoundError
from tests.contract.control_store import NOW, OPERATOR, member, org, team

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
ANN, BOB = MemberId("mem_ann"), MemberId("mem_bob")


@pytest.fixture
async def stocked(store: SqlControlStore) -> SqlControlStore:
    """Two organizations, each with a team `core` and a member of its own."""
    for name, person in (("acme", ANN), ("globex", BOB)):
        await store.orgs.create(org(name), OPERATOR)
        await store.for_org(OrgId(name)).members.create(member(name, person), OPERATOR)
        await store.for_org(OrgId(name)).teams.create(team(name), OPERATOR)
    return store


async def test_a_member_joins_once_and_leaves(stocked: SqlControlStore) -> None:
    teams = stocked.for_org(ACME).teams
    joined = TeamMember(ACME, "core", ANN, int(NOW))
    assert await teams.add("core", ANN, OPERATOR) == joined == await teams.add("core", ANN, OPERATOR)
    assert await teams.members("core") == ((joined,), "")
    assert await teams.of(ANN) == ("core",)
    await teams.remove("core", ANN, OPERATOR)
    assert (await teams.members("core"), await teams.of(ANN)) == (((), ""), ())
    with pytest.raises(NotFoundError):
        await teams.remove("core", ANN, OPERATOR)
    actions = [(change.action, change.detail.get("member")) for change in await stocked.outbox()]
    assert actions[-2:] == [("team.add_member", ANN), ("team.remove_member", ANN)]


async def test_pages_of_a_team_go_on_where_the_last_one_ended(stocked: SqlControlStore) -> None:
    mine = stocked.for_org(ACME)
    people = [MemberId(f"mem_{number}") for number in range(5)]
    for person in people:
        await mine.members.create(member("acme", person), OPERATOR)
        await mine.teams.add("core", person, OPERATOR)
    first, after = await mine.teams.members("core", limit=3)
    rest, end = await mine.teams.members("core", after=after, limit=3)
    assert ([item.member for item in (*first, *rest)], end) == (people, "")


async def test_no_team_holds_anothers_member(stocked: SqlControlStore) -> None:
    teams = stocked.for_org(ACME).teams
    with pytest.raises(InvalidReferenceError, match="no member 'mem_bob'"):
        await teams.add("core", BOB, OPERATOR)
    await stocked.for_org(GLOBEX).teams.add("core", BOB, OPERATOR)
    assert (await teams.members("core"), await teams.of(BOB)) == (((), ""), ())
    for act in (teams.add, teams.remove):
        with pytest.raises(NotFoundError, match="no team 'other'"):
            await act("other", ANN, OPERATOR)


async def test_who_is_deleted_leaves_and_a_deleted_team_lets_everybody_go(
    stocked: SqlControlStore,
) -> None:
    mine = stocked.for_org(ACME)
    await mine.teams.add("core", ANN, OPERATOR)
    await mine.members.delete(ANN, 1, OPERATOR)
    assert await mine.teams.members("core") == ((), "")
    await stocked.for_org(GLOBEX).teams.add("core", BOB, OPERATOR)
    await stocked.for_org(GLOBEX).teams.delete("core", 1, OPERATOR)
    assert await stocked.for_org(GLOBEX).teams.of(BOB) == ()


async def test_a_team_that_a_limit_names_stays(stocked: SqlControlStore) -> None:
    mine = stocked.for_org(ACME)
    limit = Limit(ACME, "tokens-a-day", LimitScope.TEAM, LimitUnit.TOKENS, 2_000_000, 86_400, subject="core")
    await mine.limits.create(limit, OPERATOR)
    with pytest.raises(InUseError, match="tokens-a-day"):
        await mine.teams.delete("core", 1, OPERATOR)
    await mine.limits.delete("tokens-a-day", 1, OPERATOR)
    await mine.teams.delete("core", 1, OPERATOR)


async def test_a_member_whom_a_limit_names_stays(stocked: SqlControlStore) -> None:
    mine = stocked.for_org(ACME)
    limit = Limit(ACME, "ann-alone", LimitScope.MEMBER, LimitUnit.REQUESTS, 1_000, 60, subject=ANN)
    await mine.limits.create(limit, OPERATOR)
    with pytest.raises(InUseError, match="ann-alone"):
        await mine.members.delete(ANN, 1, OPERATOR)
    await mine.limits.delete("ann-alone", 1, OPERATOR)
    await mine.members.delete(ANN, 1, OPERATOR)


async def test_a_member_is_in_so_many_teams_at_most(stocked: SqlControlStore) -> None:
    teams = stocked.for_org(ACME).teams
    for number in range(32):
        await teams.create(team("acme", f"t{number}"), OPERATOR)
        await teams.add(f"t{number}", ANN, OPERATOR)
    with pytest.raises(InvalidReferenceError, match="32 teams"):
        await teams.add("core", ANN, OPERATOR)


async def test_a_lead_is_made_of_a_member_of_the_team_and_unmade(stocked: SqlControlStore) -> None:
    teams = stocked.for_org(ACME).teams
    with pytest.raises(NotFoundError, match="no member 'mem_ann' in team 'core'"):
        await teams.set_lead("core", ANN, OPERATOR, lead=True)
    await teams.add("core", ANN, OPERATOR)
    assert (await teams.membership("core", ANN), await teams.membership("core", BOB)) == (
        TeamMember(ACME, "core", ANN, int(NOW)),
        None,
    )
    for _ in range(2):
        assert (await teams.set_lead("core", ANN, OPERATOR, lead=True)).lead is True
    assert (await teams.add("core", ANN, OPERATOR)).lead is True
    assert [item.lead for item in await teams.memberships(ANN)] == [True]
    assert [item.lead for item in (await teams.members("core"))[0]] == [True]
    assert (await teams.set_lead("core", ANN, OPERATOR, lead=False)).lead is False
    actions = [(change.action, change.detail.get("lead")) for change in await stocked.outbox()]
    assert actions[-2:] == [("team.set_lead", True), ("team.set_lead", False)]
    elsewhere = stocked.for_org(GLOBEX).teams
    assert await elsewhere.membership("core", ANN) is None
    with pytest.raises(NotFoundError):
        await elsewhere.set_lead("core", ANN, OPERATOR, lead=True)
