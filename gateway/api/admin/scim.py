"""SCIM of an organization: its tokens, and how far its provider may go. SCIM itself is
`gateway/api/scim/`."""

from __future__ import annotations

import os
import secrets

from litestar import Response, Router, delete, get, post, put
from litestar.params import FromPath, RequestBody
from msgspec import Struct

from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.preconditions import IfMatch, expected_version
from gateway.api.admin.problems import ProblemError
from gateway.api.admin.resource import answer
from gateway.api.admin.routing import operation
from policies.facts import Role
from tenants.models import State
from tenants.opaque import OpaqueKind, digest_of, new_key
from tenants.roles import Operation
from tenants.scim import DAY_S, DEFAULT_DAYS, GroupRole, ScimSettings, ScimToken
from tenants.store import InUseError, NotFoundError


class ScimTokenBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`name`: what it is for. It is good for so many `days`."""

    name: str = ""
    days: int = DEFAULT_DAYS


class ScimTokenMade(Struct, frozen=True):
    """`secret` is shown this once; `url` is what the provider is given beside it."""

    token: ScimToken
    secret: str
    url: str


class ScimTokens(Struct, frozen=True):
    """Those that are good, and those that expired in the last 90 days."""

    items: tuple[ScimToken, ...]


class ScimSettingsBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`owners`: the provider may change owners too. `group_roles`: what being in a group brings."""

    owners: bool = False
    group_roles: tuple[GroupRole, ...] = ()
    org: str | None = None
    version: int | None = None


@get(
    "/",
    **operation(Operation.SCIM_READ, "getScim", summary="Read how far the provider may go"),
)
async def read(caller: CallerDependency) -> Response[ScimSettings]:
    """Version 0 where nothing was ever set."""
    return answer(await caller.store.scim.settings())


@put(
    "/",
    **operation(Operation.SCIM_UPDATE, "replaceScim", body=True, conditional=True, summary="Set it"),
)
async def replace(
    caller: CallerDependency, data: RequestBody[ScimSettingsBody], if_match: IfMatch = ""
) -> Response[ScimSettings]:
    """Counts for what the provider changes from now on: who is in a group already keeps what they have. Owners
    are not given to a provider that has a token which none of them made: revoke those first."""
    async with caller.deps.turn:
        current = await caller.store.scim.settings()
        if data.owners and not current.owners:
            await caller.require(Operation.OWNER_WRITE)
            await _only_owners_tokens(caller)
        expected = expected_version(if_match, current.version)
        item = ScimSettings(caller.org, data.owners, data.group_roles)
        return answer(await caller.store.scim.put_settings(item, expected, caller.actor))


@get(
    "/tokens",
    **operation(Operation.SCIM_TOKEN_LIST, "listScimTokens", summary="List SCIM tokens"),
)
async def list_tokens(caller: CallerDependency) -> ScimTokens:
    return ScimTokens(await caller.store.scim.tokens())


@post(
    "/tokens",
    **operation(
        Operation.SCIM_TOKEN_CREATE, "createScimToken", body=True, conflict=True, summary="Create a SCIM token"
    ),
)
async def create_token(caller: CallerDependency, data: RequestBody[ScimTokenBody]) -> Response[ScimTokenMade]:
    """It opens `/scim/v2` of this organization and nothing else. Two or more may be good at once, so that one
    can be replaced while the other is in use. Where the provider may change owners, only owners make one."""
    secret = new_key(OpaqueKind.SCIM, os.urandom)
    now = int(caller.deps.clock())
    item = ScimToken(
        org=caller.org,
        id=f"scim-{secrets.token_hex(6)}",
        name=data.name,
        created_by=caller.actor.member,
        expires_at=now + max(-1, min(data.days, 100_000)) * DAY_S,
    )
    # In one turn with `replace`: a token of an admin's must not be made while owners are being given away.
    async with caller.deps.turn:
        if (await caller.store.scim.settings()).owners:
            await caller.require(Operation.OWNER_WRITE)
        try:
            made = await caller.store.scim.add_token(item, digest_of(secret), caller.actor)
        except InUseError as error:
            raise ProblemError(409, "too-many", f"{error}.") from None
    url = f"{caller.deps.admin_url.rstrip('/')}/scim/v2/{caller.org}"
    return Response(ScimTokenMade(made, secret, url), status_code=201)


@delete(
    "/tokens/{key:str}",
    **operation(Operation.SCIM_TOKEN_DELETE, "deleteScimToken", summary="Revoke a SCIM token"),
)
async def delete_token(caller: CallerDependency, key: FromPath[str]) -> None:
    """It opens nothing from now on."""
    await caller.store.scim.revoke_token(key, caller.actor)


async def _only_owners_tokens(caller: Caller) -> None:
    """Raises `ProblemError`: an admin who holds a token would have power over owners by it."""
    now = caller.deps.clock()
    alive = [token for token in await caller.store.scim.tokens() if token.expires_at > now]
    if others := [token.id for token in alive if not await _is_owner(caller, token.created_by)]:
        text = (
            f"Nothing was changed: {', '.join(others)} were not made by an owner, and would have power over"
            " owners. Let an owner make a token for the provider, revoke these, and try again."
        )
        raise ProblemError(409, "tokens-of-others", text)


async def _is_owner(caller: Caller, member: str) -> bool:
    try:
        found = await caller.store.members.get(member)
    except NotFoundError:
        return False
    return Role.OWNER in found.roles and found.state is State.ACTIVE


def router() -> Router:
    return Router(
        path="/orgs/{org:str}/scim",
        tags=["SCIM"],
        route_handlers=[read, replace, list_tokens, create_token, delete_token],
    )
