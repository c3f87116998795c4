"""Service accounts: what programs are that ask in their own name."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, Router, delete, get, post, put
from litestar.params import FromPath, RequestBody
from msgspec import Struct, structs

from gateway.api.admin.bodies import to_item
from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.preconditions import IfMatch, expected_version
from gateway.api.admin.problems import ProblemError
from gateway.api.admin.resource import After, Page, PageLimit, answer, page, with_filters
from gateway.api.admin.routing import operation
from policies.facts import Role
from tenants.ids import new_service_id
from tenants.models import Service, State
from tenants.revocations import revoke_tokens
from tenants.roles import Operation
from tenants.store import VersionMismatchError

FILTERS = ("id", "name", "roles", "state")
_ATTEMPTS = 5


class ServiceBody(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    roles: tuple[Role, ...] = (Role.MEMBER,)
    id: str | None = None
    org: str | None = None
    state: State | None = None
    not_before: int | None = None
    created_at: int | None = None
    version: int | None = None


@get(
    "/",
    **operation(Operation.SERVICE_LIST, "listServices", query=True, summary="List service accounts"),
    operation_class=with_filters(FILTERS),
)
async def index(
    request: Request[Any, Any, Any], caller: CallerDependency, after: After = "", limit: PageLimit = 100
) -> Page[Service]:
    return await page(caller.store.services, request, FILTERS, after, limit)


@post(
    "/",
    **operation(
        Operation.SERVICE_CREATE, "createService", body=True, conflict=True, summary="Create a service account"
    ),
)
async def create(caller: CallerDependency, data: RequestBody[ServiceBody]) -> Response[Service]:
    """It asks for tokens with a client that names it."""
    item = to_item(Service, data, None, key="id", org=caller.org, id=new_service_id())
    made = await caller.store.services.create(item, caller.actor)
    await caller.live()
    return answer(made, status=201, location=f"/admin/v1/orgs/{caller.org}/services/{made.id}")


@get("/{key:str}", **operation(Operation.SERVICE_READ, "getService", summary="Read one service account"))
async def read(caller: CallerDependency, key: FromPath[str]) -> Response[Service]:
    return answer(await caller.store.services.get(key))


@put(
    "/{key:str}",
    **operation(
        Operation.SERVICE_UPDATE,
        "replaceService",
        body=True,
        conditional=True,
        summary="Replace a service account",
    ),
)
async def replace(
    caller: CallerDependency, key: FromPath[str], data: RequestBody[ServiceBody], if_match: IfMatch = ""
) -> Response[Service]:
    """Name and roles. A role that is taken away ends the tokens that carry it."""
    current = await caller.store.services.get(key)
    expected = expected_version(if_match, current.version)
    item = to_item(Service, data, current, key="id", org=caller.org)
    made = await caller.store.services.replace(item, expected, caller.actor)
    if set(current.roles) - set(made.roles):
        await caller.shut_out(key)
    else:
        await caller.live()
    return answer(made)


@delete(
    "/{key:str}",
    **operation(Operation.SERVICE_DELETE, "deleteService", conditional=True, summary="Delete a service account"),
)
async def remove(caller: CallerDependency, key: FromPath[str], if_match: IfMatch = "") -> None:
    """Its tokens stop within a second. What it did stays in the audit log, under its id."""
    current = await caller.store.services.get(key)
    expected = expected_version(if_match, current.version)
    await caller.store.services.delete(key, expected, caller.actor)
    await caller.shut_out(key)


@post(
    "/{key:str}/suspend",
    status_code=200,
    **operation(Operation.SERVICE_SUSPEND, "suspendService", conflict=True, summary="Suspend a service account"),
)
async def suspend(caller: CallerDependency, key: FromPath[str]) -> Response[Service]:
    """Its tokens stop within a second, streams in flight are reset. Harmless when repeated."""
    made = await _set_state(caller, key, State.SUSPENDED)
    await caller.shut_out(key)
    return answer(made)


@post(
    "/{key:str}/resume",
    status_code=200,
    **operation(Operation.SERVICE_RESUME, "resumeService", conflict=True, summary="Resume a service account"),
)
async def resume(caller: CallerDependency, key: FromPath[str]) -> Response[Service]:
    """It asks for tokens again: those of before stay dead."""
    made = await _set_state(caller, key, State.ACTIVE)
    await caller.live()
    return answer(made)


@post(
    "/{key:str}/revoke",
    status_code=200,
    **operation(Operation.SERVICE_REVOKE, "revokeService", summary="End the tokens of a service account"),
)
async def revoke(caller: CallerDependency, key: FromPath[str]) -> Response[Service]:
    """Everywhere, now: a token that leaked. It may ask for others."""
    await caller.store.services.get(key)
    await caller.store.revoke(revoke_tokens(caller.org, caller.deps.clock(), member=key), caller.actor)
    await caller.shut_out(key)
    return answer(await caller.store.services.get(key))


async def _set_state(caller: Caller, key: str, state: State) -> Service:
    for _ in range(_ATTEMPTS):
        current = await caller.store.services.get(key)
        if current.state is state:
            return current
        try:
            changed = structs.replace(current, state=state)
            return await caller.store.services.replace(changed, current.version, caller.actor)
        except VersionMismatchError:
            continue
    raise ProblemError(409, "busy", "The service account keeps being changed by somebody else; try again.")


def router() -> Router:
    return Router(
        path="/orgs/{org:str}/services",
        tags=["Services"],
        route_handlers=[index, create, read, replace, remove, suspend, resume, revoke],
    )
