"""Teams: members who share something, a budget among others."""

from __future__ import annotations

from litestar import Router, delete, get, put
from litestar.params import FromPath

from gateway.api.admin.bodies import TeamBody, to_item
from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.resource import After, Kind, Page, PageLimit, collection
from gateway.api.admin.routing import operation
from tenants.ids import InvalidIdError, MemberId, member_id
from tenants.models import Team, TeamMember
from tenants.roles import Operation
from tenants.store import NotFoundError


@get(
    "/{key:str}/members",
    **operation(Operation.TEAM_READ, "listTeamMembers", query=True, summary="List a team's members"),
)
async def list_members(
    caller: CallerDependency, key: FromPath[str], after: After = "", limit: PageLimit = 100
) -> Page[TeamMember]:
    items, following = await caller.store.teams.members(key, after=after, limit=limit)
    return Page(items, following)


@put(
    "/{key:str}/members/{member:str}",
    **operation(Operation.TEAM_UPDATE, "addTeamMember", conflict=True, summary="Add a member to a team"),
)
async def add_member(caller: CallerDependency, key: FromPath[str], member: FromPath[str]) -> TeamMember:
    """Counts from their next access token on. Harmless when repeated."""
    return await caller.store.teams.add(key, _id(member), caller.actor)


@delete(
    "/{key:str}/members/{member:str}",
    **operation(Operation.TEAM_UPDATE, "removeTeamMember", summary="Take a member out of a team"),
)
async def remove_member(caller: CallerDependency, key: FromPath[str], member: FromPath[str]) -> None:
    """Counts from their next access token on."""
    await caller.store.teams.remove(key, _id(member), caller.actor)


def _id(text: str) -> MemberId:
    try:
        return member_id(text)
    except InvalidIdError:
        raise NotFoundError(f"no member '{text}'") from None


def _make(caller: Caller, body: TeamBody, current: Team | None) -> Team:
    return to_item(Team, body, current, org=caller.org)


def router() -> Router:
    return collection(
        Kind(
            noun="team",
            model=Team,
            body=TeamBody,
            filters=("name", "title"),
            repository=lambda store: store.teams,
            make=_make,
        ),
        list_members,
        add_member,
        remove_member,
    )
