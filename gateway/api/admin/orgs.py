"""Organizations. Only an operator lists, makes, suspends and resumes them; an owner may delete their own."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from litestar import Request, Response, Router, delete, get, post, put
from litestar.params import RequestBody
from msgspec import Struct, structs

from gateway.api.admin.bodies import OrgBody, to_item
from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.preconditions import IfMatch, expected_version
from gateway.api.admin.problems import invalid
from gateway.api.admin.resource import After, Page, PageLimit, answer, page, with_filters
from gateway.api.admin.routing import operation
from gateway.api.admin.usage import RETRY_S
from gateway.errors import UnavailableError
from gateway.oauth.offboard import BusyError, Step
from gateway.secrets.store import NoSuchSecretError, ReadOnlyError
from policies.facts import Role
from tenants.ids import MemberId, OrgId
from tenants.models import Dpop, Org, State
from tenants.roles import Operation
from tenants.store import VersionMismatchError
from tenants.validate import validate


class SuspendedOrg(Struct, frozen=True):
    """`fenced`: workers that did not answer within a second, and serve nobody until they have caught up."""

    org: Org
    steps: tuple[Step, ...]
    fenced: tuple[str, ...]


FILTERS = ("id", "name", "state", "hosts")
_ATTEMPTS = 5


@get(
    "/",
    **operation(Operation.ORG_LIST, "listOrgs", query=True, summary="List organizations"),
    operation_class=with_filters(FILTERS),
)
async def index(
    request: Request[Any, Any, Any], caller: CallerDependency, after: After = "", limit: PageLimit = 100
) -> Page[Org]:
    return await page(caller.deps.store.orgs, request, FILTERS, after, limit)


@post(
    "/", **operation(Operation.ORG_CREATE, "createOrg", body=True, conflict=True, summary="Create an organization")
)
async def create(caller: CallerDependency, data: RequestBody[OrgBody]) -> Response[Org]:
    """It begins with the starting rules and without members: create its first owner next."""
    if data.id is None:
        raise invalid(("id", "is missing"))
    made = await caller.deps.store.orgs.create(to_item(Org, data, None, key="id", id=OrgId(data.id)), caller.actor)
    await caller.live()
    return answer(made, status=201, location=f"/admin/v1/orgs/{made.id}")


@get("/{org:str}", **operation(Operation.ORG_READ, "getOrg", summary="Read one organization"))
async def read(caller: CallerDependency) -> Response[Org]:
    return answer(await caller.deps.store.orgs.get(caller.org))


@put(
    "/{org:str}",
    **operation(
        Operation.ORG_UPDATE, "replaceOrg", body=True, conditional=True, summary="Replace an organization"
    ),
)
async def replace(caller: CallerDependency, data: RequestBody[OrgBody], if_match: IfMatch = "") -> Response[Org]:
    """What it says of itself; by an operator, also the host names that lead to it and its weight. Budgets take
    what is used of them along to another time zone."""
    current = await caller.deps.store.orgs.get(caller.org)
    expected = expected_version(if_match, current.version)
    item = to_item(Org, data, current, key="id")
    floor = caller.deps.audit_store.retention_floor_days
    if item.audit_retention_days and item.audit_retention_days < floor:
        raise invalid(("audit_retention_days", f"is {floor} or more on this platform, or 0 for what it says"))
    if set(item.hosts) != set(current.hosts) or item.weight != current.weight:
        await caller.require(Operation.ORG_HOSTS)
    if Role.OWNER in set(item.second_factor) ^ set(current.second_factor):
        await caller.require(Operation.OWNER_WRITE)  # how owners sign in is for owners to say
    if item.dpop is Dpop.REQUIRED is not current.dpop and caller.own_org and not caller.principal.jkt:
        # Their next request would be refused, and who could take it back?
        text = "is 'required' only by who has such a token: make it optional, then `orgate login --dpop`"
        raise invalid(("dpop", text))
    if item.timezone != current.timezone and not validate(item):
        await _carry(caller, current.timezone, item.timezone)
    made = await caller.deps.store.orgs.replace(item, expected, caller.actor)
    await caller.live()
    return answer(made)


async def _carry(caller: Caller, was: str, timezone: str) -> None:
    """Before it is written: a change without it would begin all budgets anew."""
    try:
        await caller.deps.limits.carry(caller.org, was, timezone)
    except UnavailableError as error:
        raise UnavailableError(
            f"The time zone stays as it is: what is used of budgets cannot be taken along now ({error.message}).",
            retry_after_s=error.retry_after_s or RETRY_S,
        ) from None


@delete(
    "/{org:str}",
    **operation(Operation.ORG_DELETE, "deleteOrg", conditional=True, summary="Delete an organization for good"),
)
async def remove(caller: CallerDependency, if_match: IfMatch = "") -> None:
    """Its members, upstreams, keys and rules with it. Its audit log stays, and its id is never given out again."""
    deps, org = caller.deps, caller.org
    current = await deps.store.orgs.get(org)
    expected = expected_version(if_match, current.version)
    members, upstreams = await _everything(caller)
    streams, _ = await caller.store.audit_streams.page()
    await deps.store.orgs.delete(org, expected, caller.actor)
    # Its tokens are dead from here on. A crash below leaves keys and password hashes that nothing points to:
    # the id is spent, so no path leads to them again.
    await caller.shut_out()
    for member in members:
        await deps.sessions.drop_member(org, member)
    for upstream in upstreams:
        for kept in (deps.keys, deps.certs):
            with suppress(NoSuchSecretError, ReadOnlyError):
                await kept.delete(org, upstream)
    for stream in streams:
        with suppress(NoSuchSecretError):
            await deps.stream_secrets.delete(org, stream.name)
    await deps.webhooks.forget(org)
    if deps.identity is not None:
        await deps.identity.forget(org)
    await caller.live()


@post(
    "/{org:str}/suspend",
    status_code=200,
    **operation(Operation.ORG_SUSPEND, "suspendOrg", conflict=True, summary="Suspend an organization"),
)
async def suspend(caller: CallerDependency) -> Response[SuspendedOrg]:
    """Every token of its members stops within a second, what is in flight is reset, sessions and personal tokens
    end; with the time that each step took. Harmless when repeated."""
    made, done = await caller.deps.offboarding.organization(caller.org, caller.actor)
    return answer(made, body=SuspendedOrg(made, done.steps, done.fenced))


@post(
    "/{org:str}/resume",
    status_code=200,
    **operation(Operation.ORG_RESUME, "resumeOrg", conflict=True, summary="Resume an organization"),
)
async def resume(caller: CallerDependency) -> Response[Org]:
    """Its members sign in again; services, whose credentials stay, go on."""
    return answer(await _resumed(caller))


async def _resumed(caller: Caller) -> Org:
    orgs = caller.deps.store.orgs
    for _ in range(_ATTEMPTS):
        current = await orgs.get(caller.org)
        if current.state is State.ACTIVE:
            return current
        try:
            made = await orgs.replace(structs.replace(current, state=State.ACTIVE), current.version, caller.actor)
        except VersionMismatchError:
            continue
        await caller.live()
        return made
    raise BusyError("The organization keeps being changed by somebody else; try again.")


async def _everything(caller: Caller) -> tuple[list[MemberId], list[str]]:
    """Ids of its members and names of its upstreams."""
    members: list[MemberId] = []
    upstreams: list[str] = []
    after = ""
    while True:
        found, after = await caller.store.members.page(after=after, limit=500)
        members += [member.id for member in found]
        if not after:
            break
    while True:
        bound, after = await caller.store.upstreams.page(after=after, limit=500)
        upstreams += [upstream.name for upstream in bound]
        if not after:
            return members, upstreams


def router() -> Router:
    return Router(
        path="/orgs",
        tags=["Organizations"],
        route_handlers=[index, create, read, replace, remove, suspend, resume],
    )
