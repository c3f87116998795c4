"""Sessions: what a sign-in led to and still lives, to be looked at and ended. Your own; for admins, anybody's."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, delete, get
from litestar.params import FromPath, QueryParameter

from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.resource import After, Page, PageLimit
from gateway.api.admin.routing import operation
from gateway.oauth.sessions import LoginSession
from tenants.roles import Operation
from tenants.store import NotFoundError

Whose = Annotated[str, QueryParameter(max_length=64, description="Only this member's.")]


@get("/", **operation(Operation.OWN_SESSION_LIST, "listMySessions", query=True, summary="List your sessions"))
async def list_own(caller: CallerDependency, after: After = "", limit: PageLimit = 100) -> Page[LoginSession]:
    """One for each program that you have signed in with and not out of."""
    return await _page(caller, caller.principal.member, after, limit)


@delete(
    "/{key:str}", **operation(Operation.OWN_SESSION_REVOKE, "revokeMySession", summary="End one of your sessions")
)
async def revoke_own(caller: CallerDependency, key: FromPath[str]) -> None:
    """It gets no new token, and access tokens of yours are refused from now on; your other programs renew theirs
    by themselves."""
    found = await caller.deps.sessions.sessions.find(caller.org, key)
    if found.member != caller.principal.member:
        raise NotFoundError(f"no session '{key}'")
    await _end(caller, found)


@get("/", **operation(Operation.SESSION_LIST, "listSessions", query=True, summary="List sessions"))
async def index(
    caller: CallerDependency, member: Whose = "", after: After = "", limit: PageLimit = 100
) -> Page[LoginSession]:
    """Who is signed in, with what, since when. Where they did it from is not kept."""
    return await _page(caller, member, after, limit)


@delete("/{key:str}", **operation(Operation.SESSION_REVOKE, "revokeSession", summary="End a session"))
async def revoke(caller: CallerDependency, key: FromPath[str]) -> None:
    """It gets no new token, and access tokens of its member are refused from now on; their other programs renew
    theirs by themselves."""
    found = await caller.deps.sessions.sessions.find(caller.org, key)
    member = await caller.store.members.get(found.member)
    await caller.require_manage(member.roles, member.roles)
    await _end(caller, found)


async def _page(caller: Caller, member: str, after: str, limit: int) -> Page[LoginSession]:
    items, following = await caller.deps.sessions.sessions.page(
        caller.org, member=member, after=after, limit=limit
    )
    return Page(items, following)


async def _end(caller: Caller, session: LoginSession) -> None:
    await caller.deps.sessions.sessions.end(session, caller.actor)
    await caller.live()


def router() -> Router:
    return Router(path="/orgs/{org:str}/sessions", tags=["Sessions"], route_handlers=[index, revoke])


def own_router() -> Router:
    return Router(path="/me/sessions", tags=["Yourself"], route_handlers=[list_own, revoke_own])
