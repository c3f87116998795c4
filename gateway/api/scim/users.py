"""`/Users`: the organization's members."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from gateway.api.scim.caller import ScimCaller
from gateway.api.scim.messages import ScimAnswer, ScimRequest, precondition, search_of, unchanged
from gateway.api.scim.search import find
from gateway.oauth.offboard import Allowed
from gateway.scim.documents import Document, read
from gateway.scim.errors import ScimError, not_found, uniqueness
from gateway.scim.patch import patched
from gateway.scim.schemas import USER
from gateway.scim.users import changed_names, described, renewed, user_document, user_etag, writable
from policies.facts import Role
from tenants.ids import InvalidIdError, MemberId, member_id, new_member_id
from tenants.lastone import keep_one
from tenants.models import Member, State
from tenants.roles import Operation
from tenants.scim import ScimUser
from tenants.store import AlreadyExistsError, VersionMismatchError

ATTEMPTS: Final = 5


async def list_users(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    return await find(caller, search_of(request, USER), USER)


async def read_user(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    user = await caller.store.scim.user(_key(request))
    if unchanged(request, user_etag(user)):
        return ScimAnswer(304, headers={"etag": user_etag(user)})
    return _answer(caller, request, user)


async def create_user(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    """A member with the role member and no password: they sign in at the provider."""
    document = read(USER, request.body)
    told = described(document)
    item = Member(
        org=caller.org,
        id=new_member_id(),
        email=told.email,
        name=told.name,
        roles=(Role.MEMBER,),
        state=told.state,
    )
    try:
        made = await caller.store.scim.create_user(item, told.facts, caller.actor)
    except AlreadyExistsError as error:
        raise uniqueness(f"This user exists: {error}.") from None
    return _answer(caller, request, made, status=201)


async def replace_user(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    document = read(USER, request.body)
    shuts = document.get("active") is False

    def change(user: ScimUser) -> Document:
        return {"active": user.member.state is State.ACTIVE, **document}

    return _answer(caller, request, await _write(caller, request, change, shuts=shuts))


async def patch_user(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    def change(user: ScimUser) -> Document:
        return patched(USER, writable(user), request.body)

    return _answer(caller, request, await _write(caller, request, change, shuts=_names_active(request.body)))


async def delete_user(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    """Shut out first, then deleted: whoever cannot be deleted, because a limit names them, has no access all
    the same. A crash in between leaves somebody who is suspended: repeat it."""
    caller.require(Operation.MEMBER_OFFBOARD)
    user = await caller.store.scim.user(_key(request))
    precondition(request, user_etag(user))
    caller.require_manage(user.member)
    offboarding = caller.deps.offboarding
    suspended, _ = await offboarding.member(caller.org, user.member.id, caller.actor, _manageable(caller))
    await caller.store.members.delete(suspended.id, suspended.version, caller.actor)
    await caller.deps.sessions.drop_member(caller.org, suspended.id)
    return ScimAnswer(204)


async def _write(
    caller: ScimCaller, request: ScimRequest, change: Callable[[ScimUser], Document], *, shuts: bool
) -> ScimUser:
    """Make what `change` makes of the user, as often as somebody else is faster. `shuts`: the request says
    whether they are active; then one that says no shuts them out, also when they were suspended before:
    whoever repeats a request that was answered by nothing finishes what a crash has left."""
    for _ in range(ATTEMPTS):
        user = await caller.store.scim.user(_key(request))
        precondition(request, user_etag(user))
        try:
            made = await _replace(caller, user, change(user))
        except VersionMismatchError:
            continue
        if shuts and made.member.state is State.SUSPENDED:
            caller.require(Operation.MEMBER_OFFBOARD)
            await caller.deps.offboarding.member(caller.org, made.member.id, caller.actor, _manageable(caller))
        return made
    raise ScimError(503, "The user keeps being changed by somebody else; try again.", retry_after_s=1)


async def _replace(caller: ScimCaller, user: ScimUser, after: Document) -> ScimUser:
    """One write, or none where nothing differs."""
    member = user.member
    told = described(after, member.state)
    changed = changed_names(writable(user), after)
    if not changed:
        return user
    caller.require_manage(member)
    if told.state is not member.state:
        active = told.state is State.ACTIVE
        caller.require(Operation.MEMBER_RESUME if active else Operation.MEMBER_OFFBOARD)
    item = renewed(member, told)
    try:
        async with AsyncExitStack() as stack:
            await keep_one(stack, caller.deps.turn, caller.store, member, item)
            return await caller.store.scim.replace_user(item, told.facts, member.version, changed, caller.actor)
    except AlreadyExistsError as error:
        raise uniqueness(f"It cannot be changed so: {error}.") from None


def _manageable(caller: ScimCaller) -> Allowed:
    """Asked again in the moment of it: they may be an owner by now."""

    async def judge(member: Member) -> None:
        caller.require_manage(member)

    return judge


def _names_active(body: Any) -> bool:
    """Whether a PATCH says anything of `active`."""
    operations = body.get("Operations", body.get("operations")) if isinstance(body, dict) else None
    told = [str(one).lower() for one in operations] if isinstance(operations, list) else []
    return any("active" in one for one in told)


def _answer(caller: ScimCaller, request: ScimRequest, user: ScimUser, *, status: int = 200) -> ScimAnswer:
    document = user_document(user, caller.base)
    headers = {"etag": user_etag(user), "location": str(document["meta"]["location"])}
    return ScimAnswer(status, request.projection(USER).of(document, USER), headers)


def _key(request: ScimRequest) -> MemberId:
    try:
        return member_id(request.key)
    except InvalidIdError:
        raise not_found() from None
