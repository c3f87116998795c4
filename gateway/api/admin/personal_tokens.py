"""Personal tokens: static keys, shown once, of whoever asks or (for admins) of any member or service account."""

from __future__ import annotations

import os
from typing import Any

from litestar import Request, Response, Router, delete, get, post
from litestar.params import FromPath, RequestBody
from msgspec import Struct

from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.problems import invalid
from gateway.api.admin.resource import After, Page, PageLimit, page, with_filters
from gateway.api.admin.routing import operation
from gateway.errors import ForbiddenError
from policies.facts import Action
from tenants.ids import is_member_id, is_service_id, new_static_key_id
from tenants.opaque import OpaqueKind, digest_of, new_key
from tenants.roles import Operation
from tenants.statickeys import DAY_S, DEFAULT_DAYS, EVERY_ACTION, StaticKey
from tenants.store import NotFoundError

FILTERS = ("subject", "name")


class OwnTokenBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`name` says what it is for. `actions`: what it may ask models for; `models`: the aliases it may name, none
    for every one; `days`: how long it lives, 366 at most."""

    name: str
    actions: tuple[Action, ...] = EVERY_ACTION
    models: tuple[str, ...] = ()
    days: int = DEFAULT_DAYS


class TokenBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The same, and `subject`: the id of the member or the service account whose it is."""

    subject: str
    name: str
    actions: tuple[Action, ...] = EVERY_ACTION
    models: tuple[str, ...] = ()
    days: int = DEFAULT_DAYS


class MadeToken(Struct, frozen=True):
    """`key` is shown this once: nobody can show it again."""

    token: StaticKey
    key: str


@get(
    "/",
    **operation(Operation.OWN_PERSONAL_TOKEN_LIST, "listMyPersonalTokens", query=True, summary="List your own"),
)
async def list_own(caller: CallerDependency, after: After = "", limit: PageLimit = 100) -> Page[StaticKey]:
    mine = {"subject": caller.principal.member}
    items, following = await caller.store.static_keys.page(after=after, limit=limit, filters=mine)
    return Page(items, following)


@post(
    "/",
    **operation(
        Operation.OWN_PERSONAL_TOKEN_CREATE, "createMyPersonalToken", body=True, conflict=True, summary="Make one"
    ),
)
async def create_own(caller: CallerDependency, data: RequestBody[OwnTokenBody]) -> Response[MadeToken]:
    """It does what you may do now and later, narrowed by what it is made for, and opens completions alone. Your
    organization has to have turned personal tokens on. A service account makes none for itself: an admin does."""
    return await _made(caller, caller.principal.member, data, "/admin/v1/me/personal-tokens")


@get(
    "/{key:str}", **operation(Operation.OWN_PERSONAL_TOKEN_READ, "getMyPersonalToken", summary="Read one of yours")
)
async def read_own(caller: CallerDependency, key: FromPath[str]) -> StaticKey:
    return await _own(caller, key)


@delete(
    "/{key:str}",
    **operation(Operation.OWN_PERSONAL_TOKEN_REVOKE, "revokeMyPersonalToken", summary="Take one of yours back"),
)
async def revoke_own(caller: CallerDependency, key: FromPath[str]) -> None:
    """Every worker refuses it when this is answered."""
    await caller.store.static_keys.revoke((await _own(caller, key)).id, caller.actor)
    await caller.live()


@get(
    "/",
    **operation(Operation.PERSONAL_TOKEN_LIST, "listPersonalTokens", query=True, summary="List personal tokens"),
    operation_class=with_filters(FILTERS),
)
async def index(
    request: Request[Any, Any, Any], caller: CallerDependency, after: After = "", limit: PageLimit = 100
) -> Page[StaticKey]:
    """Of all members and service accounts, with their last use; the tokens themselves are kept nowhere."""
    return await page(caller.store.static_keys, request, FILTERS, after, limit)


@post(
    "/",
    **operation(
        Operation.PERSONAL_TOKEN_CREATE,
        "createPersonalToken",
        body=True,
        conflict=True,
        summary="Make one for a member or a service account",
    ),
)
async def create(caller: CallerDependency, data: RequestBody[TokenBody]) -> Response[MadeToken]:
    """Whoever has it speaks for `subject`: only owners make one for an owner."""
    return await _made(caller, data.subject, data, f"/admin/v1/orgs/{caller.org}/personal-tokens")


@get(
    "/{key:str}", **operation(Operation.PERSONAL_TOKEN_READ, "getPersonalToken", summary="Read one personal token")
)
async def read(caller: CallerDependency, key: FromPath[str]) -> StaticKey:
    return await caller.store.static_keys.get(key)


@delete(
    "/{key:str}",
    **operation(Operation.PERSONAL_TOKEN_REVOKE, "revokePersonalToken", summary="Take a personal token back"),
)
async def revoke(caller: CallerDependency, key: FromPath[str]) -> None:
    """Every worker refuses it when this is answered. What it has in flight comes to its end."""
    await caller.store.static_keys.revoke(key, caller.actor)
    await caller.live()


async def _own(caller: Caller, key: str) -> StaticKey:
    found = await caller.store.static_keys.get(key)
    if found.subject != caller.principal.member:
        raise NotFoundError(f"no personal token '{key}'")
    return found


async def _manageable(caller: Caller, subject: str) -> None:
    try:
        member = await caller.store.members.get(subject)
    except NotFoundError:
        raise invalid(("subject", f"unknown member '{subject}'")) from None
    await caller.require_manage(member.roles, member.roles)


async def _refuse_itself(caller: Caller) -> None:
    """A job that has a token for a quarter of an hour must not make one of it that outlives the job by a year."""
    rule = Operation.OWN_PERSONAL_TOKEN_CREATE
    await caller.store.note("admin.refuse", rule, caller.actor, {"reason": "a service account for itself"})
    text = "A service account makes no personal token for itself: an admin makes it, with `--service`."
    raise ForbiddenError(text, rule=rule)


async def _made(caller: Caller, subject: str, body: OwnTokenBody | TokenBody, path: str) -> Response[MadeToken]:
    if is_service_id(subject) and subject == caller.principal.member:
        await _refuse_itself(caller)
    for name in body.models:
        try:
            await caller.store.models.get(name)
        except NotFoundError:
            raise invalid(("models", f"unknown model '{name}'")) from None
    now = int(caller.deps.clock())
    key = new_key(OpaqueKind.PERSONAL, os.urandom)
    item = StaticKey(
        org=caller.org,
        id=new_static_key_id(),
        subject=subject,
        name=body.name,
        actions=body.actions,
        models=body.models,
        created_by=caller.principal.member,
        created_at=now,
        expires_at=now + body.days * DAY_S,
    )
    async with caller.deps.turn:
        # Within the turn: of who becomes an owner just now, an admin's key would come after the old ones ended.
        if isinstance(body, TokenBody) and is_member_id(subject):
            await _manageable(caller, subject)
        # A crash after this leaves a token that nobody has seen: it is listed, and can be taken back.
        made = await caller.store.static_keys.create(item, digest_of(key), caller.actor)
    await caller.live()
    return Response(MadeToken(made, key), status_code=201, headers={"Location": f"{path}/{made.id}"})


def router() -> Router:
    return Router(
        path="/orgs/{org:str}/personal-tokens",
        tags=["Personal tokens"],
        route_handlers=[index, create, read, revoke],
    )


def own_router() -> Router:
    return Router(
        path="/me/personal-tokens", tags=["Yourself"], route_handlers=[list_own, create_own, read_own, revoke_own]
    )
