"""Teams: members who share something, a budget among others."""

from __future__ import annotations

from litestar import Router, delete, get, put
from litestar.params import FromPath
from msgspec import Struct, structs

from gateway.api.admin.bodies import TeamBody, to_item
from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.resource import After, Kind, Page, PageLimit, collection
from gateway.api.admin.routing import operation
from gateway.api.admin.usage import LimitUse, Rows, asked, in_use, is_of
from tenants.ids import InvalidIdError, MemberId, OrgId, member_id
from tenants.models import Limit, LimitScope, Team, TeamMember
from tenants.roles import Operation
from tenants.store import NotFoundError


class TeamPerson(Struct, frozen=True):
    """A `TeamMember`, and what they are called: a lead sees nothing else of members."""

    org: OrgId
    team: str
    member: MemberId
    added_at: int
    lead: bool
    name: str


@get(
    "/{key:str}/members",
    **operation(Operation.TEAM_READ, "listTeamMembers", query=True, summary="List a team's members"),
)
async def list_members(
    caller: CallerDependency, key: FromPath[str], after: After = "", limit: PageLimit = 100
) -> Page[TeamPerson]:
    items, following = await caller.store.teams.members(key, after=after, limit=limit)
    names = await caller.store.members.names([one.member for one in items])
    people = (TeamPerson(**structs.asdict(one), name=names.get(one.member, "")) for one in items)
    return Page(tuple(people), following)


class TeamUse(Struct, frozen=True):
    """`limits`: those that count what this team uses; `usage`: how much of them is used."""

    limits: tuple[Limit, ...]
    usage: LimitUse


@put(
    "/{key:str}/members/{member:str}",
    **operation(Operation.TEAM_ADD_MEMBER, "addTeamMember", conflict=True, summary="Add a member to a team"),
)
async def add_member(caller: CallerDependency, key: FromPath[str], member: FromPath[str]) -> TeamMember:
    """`member` is an id or an e-mail address. Counts from their next access token on, and for personal tokens at
    once. Harmless when repeated."""
    made = await caller.store.teams.add(key, await _found(caller, member), caller.actor)
    await caller.live()
    return made


@delete(
    "/{key:str}/members/{member:str}",
    **operation(Operation.TEAM_REMOVE_MEMBER, "removeTeamMember", summary="Take a member out of a team"),
)
async def remove_member(caller: CallerDependency, key: FromPath[str], member: FromPath[str]) -> None:
    """As above. Who leads the team is taken out by whoever may make leads."""
    found = await _found(caller, member)
    joined = await caller.store.teams.membership(key, found)
    if joined is not None and joined.lead:
        await caller.require(Operation.TEAM_SET_LEAD)
    await caller.store.teams.remove(key, found, caller.actor)
    await caller.live()


@put(
    "/{key:str}/members/{member:str}/lead",
    **operation(Operation.TEAM_SET_LEAD, "setTeamLead", summary="Make a member of a team its lead"),
)
async def set_lead(caller: CallerDependency, key: FromPath[str], member: FromPath[str]) -> TeamMember:
    """A lead adds people to this team and takes them out, and sees its limits and what is used of them. At once,
    and harmless when repeated. A team may have several."""
    return await caller.store.teams.set_lead(key, await _found(caller, member), caller.actor, lead=True)


@delete(
    "/{key:str}/members/{member:str}/lead",
    status_code=200,
    **operation(Operation.TEAM_SET_LEAD, "unsetTeamLead", summary="Let a team's lead be a member of it again"),
)
async def unset_lead(caller: CallerDependency, key: FromPath[str], member: FromPath[str]) -> TeamMember:
    """They stay in the team. At once, and harmless when repeated."""
    return await caller.store.teams.set_lead(key, await _found(caller, member), caller.actor, lead=False)


@get(
    "/{key:str}/usage",
    **operation(
        Operation.TEAM_USAGE_READ, "getTeamUsage", query=True, summary="See a team's limits and what is used"
    ),
)
async def team_usage(caller: CallerDependency, key: FromPath[str], top: Rows = 100) -> TeamUse:
    """Limits of scope `team` that are about this one or about each."""
    await caller.store.teams.get(key)
    limits: list[Limit] = []
    after = ""
    while True:
        found, after = await caller.store.limits.page(after=after, limit=500, filters={"scope": LimitScope.TEAM})
        limits += [limit for limit in found if limit.subject in ("", key)]
        if not after:
            break
    known = {limit.name: limit for limit in limits}
    used = await asked(caller.deps.limits.usage(caller.org))
    mine = (one for one in used if one.subject == key and one.limit in known and is_of(one, known[one.limit]))
    return TeamUse(tuple(limits), in_use(caller, mine, top))


async def _found(caller: Caller, text: str) -> MemberId:
    if "@" in text:
        return (await caller.store.members.by_email(text)).id
    return _id(text)


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
        set_lead,
        unset_lead,
        team_usage,
    )
