"""Members: invite, change, suspend, sign out, remove. Only owners touch owners, and one always stays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from litestar import Request, Response, Router, delete, get, post, put
from litestar.params import FromPath, RequestBody
from msgspec import Struct, structs

from gateway.api.admin.bodies import MemberBody, to_item
from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.preconditions import IfMatch, expected_version
from gateway.api.admin.problems import ProblemError
from gateway.api.admin.resource import After, Page, PageLimit, answer, page, with_filters
from gateway.api.admin.routing import operation
from gateway.oauth.offboard import ATTEMPTS, BusyError, Step
from policies.facts import Role
from tenants.ids import MemberId, new_member_id
from tenants.lastone import keep_one
from tenants.models import Member, State
from tenants.revocations import revoke_tokens
from tenants.roles import Operation
from tenants.store import VersionMismatchError

FILTERS = ("id", "email", "name", "roles", "state")


class InvitationBody(Struct, frozen=True):
    """`code` is shown this once. Whoever has it sets the member's password at `url`, until `expires_at`."""

    code: str
    expires_at: int
    url: str


class Invited(Struct, frozen=True):
    member: Member
    invitation: InvitationBody


class Offboarded(Struct, frozen=True):
    """`fenced`: workers that did not answer within a second, and serve nobody until they have caught up."""

    member: Member
    steps: tuple[Step, ...]
    fenced: tuple[str, ...]


class Ended(Struct, frozen=True):
    """How many sessions were ended, and personal tokens taken back."""

    sessions: int
    personal_tokens: int


class MemberName(Struct, frozen=True):
    id: MemberId
    name: str


@get(
    "/",
    **operation(Operation.MEMBER_LIST, "listMembers", query=True, summary="List members"),
    operation_class=with_filters(FILTERS),
)
async def index(
    request: Request[Any, Any, Any], caller: CallerDependency, after: After = "", limit: PageLimit = 100
) -> Page[Member]:
    return await page(caller.store.members, request, FILTERS, after, limit)


@get(
    "/orgs/{org:str}/member-names",
    tags=["Members"],
    **operation(Operation.MEMBER_NAME_LIST, "listMemberNames", query=True, summary="List members' names"),
)
async def names(
    request: Request[Any, Any, Any], caller: CallerDependency, after: After = "", limit: PageLimit = 500
) -> Page[MemberName]:
    """Whose ids these are that limits and usage name, for those who see nothing else of members."""
    found = await page(caller.store.members, request, ("id",), after, limit)
    return Page(tuple(MemberName(one.id, one.name) for one in found.items), found.next)


@post(
    "/", **operation(Operation.MEMBER_CREATE, "createMember", body=True, conflict=True, summary="Create a member")
)
async def create(caller: CallerDependency, data: RequestBody[MemberBody]) -> Response[Invited]:
    """A member and the invitation with which they set their password."""
    await caller.require_manage((), data.roles)
    item = to_item(Member, data, None, key="id", org=caller.org, id=new_member_id())
    async with caller.deps.turn:
        made = await caller.store.members.create(item, caller.actor)
        # A crash here leaves a member without an invitation: ask for one with `invite`.
        invited = Invited(made, await _invite(caller, made))
    await caller.live()
    location = f"/admin/v1/orgs/{caller.org}/members/{made.id}"
    return answer(made, status=201, location=location, body=invited)


@get("/{key:str}", **operation(Operation.MEMBER_READ, "getMember", summary="Read one member"))
async def read(caller: CallerDependency, key: FromPath[str]) -> Response[Member]:
    return answer(await caller.store.members.get(key))


@put(
    "/{key:str}",
    **operation(Operation.MEMBER_UPDATE, "replaceMember", body=True, conditional=True, summary="Replace a member"),
)
async def replace(
    caller: CallerDependency, key: FromPath[str], data: RequestBody[MemberBody], if_match: IfMatch = ""
) -> Response[Member]:
    """Name, e-mail, roles. A role that is taken away ends the tokens that carry it. Who becomes an owner has no
    unused invitation any more: an admin may have made it, and only owners invite owners."""
    current = await caller.store.members.get(key)
    await caller.require_manage(current.roles, data.roles)
    expected = expected_version(if_match, current.version)
    item = to_item(Member, data, current, key="id", org=caller.org)
    async with AsyncExitStack() as stack:
        await keep_one(stack, caller.deps.turn, caller.store, current, item)
        if Role.OWNER in set(item.roles) - set(current.roles):
            await stack.enter_async_context(caller.deps.turn)
            # A crash here leaves somebody without an invitation, who is no owner yet.
            await caller.deps.sessions.uninvite(caller.org, item.id)
        made = await caller.store.members.replace(item, expected, caller.actor)
    if set(current.roles) - set(made.roles):
        await caller.shut_out(key)
    else:
        await caller.live()
    return answer(made)


@delete(
    "/{key:str}",
    **operation(Operation.MEMBER_DELETE, "deleteMember", conditional=True, summary="Delete a member"),
)
async def remove(caller: CallerDependency, key: FromPath[str], if_match: IfMatch = "") -> None:
    """Tokens stop within a second, sessions at once. What they did stays in the audit log, under their id."""
    current = await caller.store.members.get(key)
    await caller.require_manage(current.roles, ())
    expected = expected_version(if_match, current.version)
    async with AsyncExitStack() as stack:
        await keep_one(stack, caller.deps.turn, caller.store, current, None)
        await caller.store.members.delete(key, expected, caller.actor)
    # A crash here leaves a password hash and refresh tokens of nobody: a refresh looks the member up first.
    await caller.deps.sessions.drop_member(caller.org, MemberId(key))
    await caller.shut_out(key)


@post(
    "/{key:str}/invite",
    status_code=200,
    **operation(Operation.MEMBER_INVITE, "inviteMember", conflict=True, summary="Invite a member again"),
)
async def invite(caller: CallerDependency, key: FromPath[str]) -> Invited:
    """A new invitation, e.g. for a forgotten password. An older one that was not used is worth nothing now."""
    async with caller.deps.turn:
        member = await caller.store.members.get(key)
        await caller.require_manage(member.roles, member.roles)
        if member.state is not State.ACTIVE:
            raise ProblemError(409, "suspended", "The member is suspended: resume them first.")
        return Invited(member, await _invite(caller, member))


@post(
    "/{key:str}/suspend",
    status_code=200,
    **operation(Operation.MEMBER_SUSPEND, "suspendMember", conflict=True, summary="Suspend a member"),
)
async def suspend(caller: CallerDependency, key: FromPath[str]) -> Response[Member]:
    """Tokens stop within a second, sessions end, streams in flight are reset. Harmless when repeated."""
    made = await caller.deps.offboarding.suspend(caller.org, MemberId(key), caller.actor, _manageable(caller))
    # A crash here leaves streams in flight and refresh tokens that are refused: repeating it finishes it.
    await caller.deps.sessions.end_sessions(caller.org, MemberId(key))
    await caller.shut_out(key)
    return answer(made)


@post(
    "/{key:str}/offboard",
    status_code=200,
    **operation(Operation.MEMBER_OFFBOARD, "offboardMember", conflict=True, summary="Shut a member out for good"),
)
async def offboard(caller: CallerDependency, key: FromPath[str]) -> Offboarded:
    """What `suspend` does, and the invitation too, with the time that each step took. Harmless when repeated; a
    crash between two steps leaves the later ones undone: repeat it."""
    member, done = await caller.deps.offboarding.member(
        caller.org, MemberId(key), caller.actor, _manageable(caller)
    )
    return Offboarded(member, done.steps, done.fenced)


@post(
    "/{key:str}/resume",
    status_code=200,
    **operation(Operation.MEMBER_RESUME, "resumeMember", conflict=True, summary="Resume a member"),
)
async def resume(caller: CallerDependency, key: FromPath[str]) -> Response[Member]:
    """They sign in again."""
    made = await _resumed(caller, key)
    await caller.live()
    return answer(made)


@post(
    "/{key:str}/revoke",
    status_code=200,
    **operation(Operation.MEMBER_REVOKE, "revokeMember", summary="End all sessions of a member"),
)
async def revoke(caller: CallerDependency, key: FromPath[str]) -> Ended:
    """Everywhere, now: a lost laptop. They may sign in again."""
    member = await caller.store.members.get(key)
    await caller.require_manage(member.roles, member.roles)
    # Refresh tokens first: one that was used in between would bring an access token younger than the revocation.
    ended = await caller.deps.sessions.end_sessions(caller.org, MemberId(key))
    await caller.store.revoke(revoke_tokens(caller.org, caller.deps.clock(), member=key), caller.actor)
    # A crash here leaves personal tokens that open what they did: repeat the call that was answered by nothing.
    keys = await caller.store.static_keys.revoke_all(key, caller.actor)
    await caller.shut_out(key)
    return Ended(ended, keys)


async def _invite(caller: Caller, member: Member) -> InvitationBody:
    made = await caller.deps.sessions.invite(caller.org, member.id)
    await caller.store.note("member.invite", member.id, caller.actor, {"expires_at": made.expires_at})
    return InvitationBody(made.code, made.expires_at, made.url)


def _manageable(caller: Caller) -> Callable[[Member], Awaitable[None]]:
    async def judge(member: Member) -> None:
        await caller.require_manage(member.roles, member.roles)

    return judge


async def _resumed(caller: Caller, key: str) -> Member:
    for _ in range(ATTEMPTS):
        current = await caller.store.members.get(key)
        await caller.require_manage(current.roles, current.roles)
        if current.state is State.ACTIVE:
            return current
        item = structs.replace(current, state=State.ACTIVE)
        try:
            return await caller.store.members.replace(item, current.version, caller.actor)
        except VersionMismatchError:
            continue
    raise BusyError("The member keeps being changed by somebody else; try again.")


def router() -> Router:
    return Router(
        path="/orgs/{org:str}/members",
        tags=["Members"],
        route_handlers=[index, create, read, replace, remove, invite, suspend, resume, offboard, revoke],
    )
