"""Who calls, on which organization, and whether they may: the guard in front of every operation."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Final

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.params import SkipValidation

from gateway.api.admin.dependencies import AdminDependencies
from gateway.api.admin.reads import NOTED, READS
from gateway.api.admin.requestid import request_id
from gateway.api.presented import presented
from gateway.dpop import HEADER, Presented
from gateway.errors import (
    ForbiddenError,
    InvalidProofError,
    LimitExceededError,
    UnauthenticatedError,
    UnavailableError,
)
from gateway.exchange import Principal
from gateway.oauth.errors import TemporarilyUnavailableError, TooManyAttemptsError
from policies.facts import Role
from tenants.ids import InvalidIdError, MemberId, OrgId, is_service_id, org_id
from tenants.models import Member, Service, State
from tenants.roles import LEADS, Operation, may, may_manage, needed
from tenants.store import Actor, NotFoundError, OrgStore, StoreUnavailableError

log = logging.getLogger(__name__)

WRITES: Final = "admin-writes"
WRITES_PER_MINUTE: Final = 1_200
"""Of one member: far beyond what people and scripts do, and less than what would keep the store busy."""
_TAKING_AWAY: Final = frozenset(
    {
        Operation.MEMBER_SUSPEND,
        Operation.MEMBER_REVOKE,
        Operation.MEMBER_OFFBOARD,
        Operation.MEMBER_DELETE,
        Operation.ORG_SUSPEND,
        Operation.KEY_DELETE,
        Operation.PERSONAL_TOKEN_REVOKE,
        Operation.OWN_PERSONAL_TOKEN_REVOKE,
        Operation.SESSION_REVOKE,
        Operation.OWN_SESSION_REVOKE,
        Operation.CLIENT_SUSPEND,
        Operation.CLIENT_DELETE,
        Operation.SERVICE_SUSPEND,
        Operation.SERVICE_REVOKE,
        Operation.SERVICE_DELETE,
    }
)
_READING: Final = frozenset({"GET", "HEAD"})
OPERATION: Final = "operation"
PUBLIC: Final = "public"
"""Keys of a handler's `opt`: what it does, or that anyone may. A handler with neither is shut."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified member acting on `org`, through `store` (that organization's part and no other).

    `roles` are those that both the token and the store say: a role taken away ends here at once, even where
    the token's revocation has not been seen yet.
    """

    deps: AdminDependencies
    principal: Principal
    member: Member
    roles: frozenset[Role]
    actor: Actor
    org: OrgId
    store: OrgStore

    @property
    def own_org(self) -> bool:
        return self.org == self.principal.org

    async def require(self, operation: Operation, *, team: str = "") -> None:
        """Raises `ForbiddenError`, and writes the attempt down, unless the caller may do `operation`. `team`: the
        one that it is about, which may have them as its lead."""
        if may(self.roles, operation, self.own_org):
            return
        if not (operation in LEADS and team and self.own_org and await self._leads(team)):
            await self.refuse(operation)

    async def _leads(self, team: str) -> bool:
        found = await self.store.teams.membership(team, self.member.id)
        return found is not None and found.lead

    async def require_manage(self, before: Collection[Role], after: Collection[Role]) -> None:
        """The same for turning a member with roles `before` into one with `after`."""
        if not may_manage(self.roles, before, after, self.own_org):
            await self.refuse(Operation.OWNER_WRITE)

    async def refuse(self, operation: Operation) -> None:
        own = self.deps.store.for_org(self.principal.org)
        await own.note("admin.refuse", operation, self.actor, {"roles": sorted(self.roles)})
        roles = ", ".join(needed(operation))
        raise ForbiddenError(f"This needs one of the roles: {roles}.", rule=operation)

    async def live(self) -> Sequence[str]:
        """Wait until the change just made is what every worker serves. It is committed: nothing fails here.
        Returns the workers that did not follow, and were fenced."""
        try:
            version = await self.deps.store.version()
        except StoreUnavailableError:
            log.warning("request %s: written, but the store's version cannot be read", self.actor.request_id)
            return ()
        return await self.deps.streams.live(version)

    async def shut_out(self, member: str = "") -> None:
        """End what the organization, or one member of it, has in flight, now that a commit took their access away.

        At once, for what streams; and again when every worker has refused them since, for what began in between.
        A crash in here leaves streams that go on: repeating the call that was answered by nothing ends them.
        """
        self.deps.streams.reset(self.org, member)
        await self.live()
        self.deps.streams.reset(self.org, member)


CallerDependency = NamedDependency[SkipValidation[Caller]]
Deps = NamedDependency[SkipValidation[AdminDependencies]]


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """The caller that `guard` let in."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Authenticate, find the organization, ask the table; in this order, so that nothing tells a stranger
    whether an organization exists. Litestar runs it before it reads parameters or the body."""
    if handler.opt.get(PUBLIC) or connection.scope.get("method") == "OPTIONS":
        return
    operation: Operation | None = handler.opt.get(OPERATION)
    if operation is None:
        raise NotFoundException
    if operation is Operation.METRICS_READ and is_local(connection):
        return
    deps: AdminDependencies = connection.app.state.dependencies
    caller = await _admit(deps, connection, operation)
    if connection.scope.get("method") not in _READING:
        await _count_write(deps, caller, operation)
    if operation in READS and not handler.opt.get(NOTED):
        query = connection.query_params.multi_items()
        await deps.reads.note(caller.store, caller.actor, connection.url.path, query, deps.clock())
    connection.scope["state"]["caller"] = caller


async def _admit(
    deps: AdminDependencies, connection: ASGIConnection[Any, Any, Any, Any], operation: Operation
) -> Caller:
    given = connection.headers.get("authorization")
    principal = deps.verifier.authenticate(
        None if given is None else given.encode("latin-1", "replace"),
        connection.headers.get("host", ""),
        deps.streams.snapshot,
        _presented(connection),
    )
    member = await _member(deps, principal)
    path_org = connection.path_params.get("org", principal.org)
    caller = Caller(
        deps=deps,
        principal=principal,
        member=member,
        roles=principal.roles.intersection(member.roles),
        actor=Actor(principal.org, principal.member, principal.client, request_id(connection.scope)),
        org=principal.org,
        store=deps.store.for_org(principal.org),
    )
    if path_org == principal.org:
        await caller.require(operation, team=connection.path_params.get("key", ""))
        return caller
    if Role.OPERATOR not in caller.roles:
        # Not a look at the store: the answer, and its timing, are the same whether it exists or not.
        await caller.store.note("admin.refuse", operation, caller.actor, {"reason": "another organization"})
        raise NotFoundException
    try:
        org = org_id(path_org)
    except InvalidIdError:
        raise NotFoundException from None
    await deps.store.orgs.get(org)
    visitor = replace(caller, org=org, store=deps.store.for_org(org))
    await visitor.require(operation)
    if operation.endswith((".list", ".read")) and operation not in READS:
        # Changes and exports write entries of their own: what an operator looks at is written down here.
        await visitor.store.note("operator.access", operation, visitor.actor, {})
    return visitor


def _presented(connection: ASGIConnection[Any, Any, Any, Any]) -> Presented | None:
    """Raises `InvalidProofError` for more than one (RFC 9449 section 4.3)."""
    found = [value for name, value in connection.scope["headers"] if name == HEADER]
    if len(found) > 1:
        raise InvalidProofError("one request has one DPoP proof")
    return presented(dict(connection.scope), found[0]) if found else None


async def _count_write(deps: AdminDependencies, caller: Caller, operation: Operation) -> None:
    """What writes is counted for all nodes together; what cannot be counted is not written, but for what takes
    access away: a lost laptop does not wait for Redis."""
    key = f"{caller.principal.org}/{caller.principal.member}"
    try:
        await deps.writes.check(key)
        await deps.writes.charge(key)
    except TooManyAttemptsError as error:
        wait = error.retry_after_s or 1
        text = f"too many changes in a short time; try again in {wait} s"
        raise LimitExceededError(text, limit=WRITES, scope="member", retry_after_s=wait) from None
    except TemporarilyUnavailableError as error:
        if operation in _TAKING_AWAY:
            return
        text = "changes cannot be counted now, so none is made: `orgate status` says what the store of limits has"
        raise UnavailableError(text, retry_after_s=error.retry_after_s or 1) from None


async def _member(deps: AdminDependencies, principal: Principal) -> Member:
    """The token's member as stored now. A crash between a suspension and its revocation opens nothing here."""
    store = deps.store.for_org(principal.org)
    try:
        if is_service_id(principal.member):
            member = _as_member(await store.services.get(principal.member))
        else:
            member = await store.members.get(principal.member)
    except NotFoundError:
        raise UnauthenticatedError("This token's member does not exist any more.") from None
    if member.state is not State.ACTIVE or principal.issued_at < member.not_before:
        raise UnauthenticatedError("This token's member is suspended, or has to sign in again.")
    return member


def _as_member(account: Service) -> Member:
    """A service account where members call: it has no e-mail address."""
    return Member(
        org=account.org,
        id=MemberId(account.id),
        email="",
        name=account.name,
        roles=account.roles,
        state=account.state,
        not_before=account.not_before,
        created_at=account.created_at,
    )


def is_local(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """A peer on loopback, and no proxy that speaks for somebody else."""
    if connection.client is None or "forwarded" in connection.headers or "x-forwarded-for" in connection.headers:
        return False
    try:
        return ip_address(connection.client.host).is_loopback
    except ValueError:
        return False
