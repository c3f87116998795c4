"""Members' second factors, as far as somebody else may see and touch them: that they are there, and gone."""

from __future__ import annotations

from litestar import Router, get, post
from litestar.params import FromPath
from msgspec import Struct

from gateway.api.admin.caller import CallerDependency
from gateway.api.admin.routing import operation
from gateway.oauth.factors_store import FactorKind
from tenants.ids import MemberId
from tenants.revocations import revoke_tokens
from tenants.roles import Operation


class FactorItem(Struct, frozen=True):
    """`name` is its member's own word for it. Times are Unix seconds."""

    id: str
    kind: FactorKind
    name: str
    created_at: int
    used_at: int


class FactorsOf(Struct, frozen=True):
    """What a member signs in with, beside their password. `recovery_codes`: how many are left."""

    factors: tuple[FactorItem, ...]
    recovery_codes: int


class FactorsReset(Struct, frozen=True):
    """`factors` and `sessions`: how many there were."""

    factors: int
    sessions: int


@get("/{key:str}/factors", **operation(Operation.FACTOR_LIST, "listFactors", summary="List a member's factors"))
async def index(caller: CallerDependency, key: FromPath[str]) -> FactorsOf:
    """Authenticator apps and passkeys; nothing with which one could sign in."""
    member = await caller.store.members.get(key)
    found = await caller.deps.sessions.factors.of(caller.org, member.id)
    items = tuple(FactorItem(one.id, one.kind, one.name, one.created_at, one.used_at) for one in found)
    return FactorsOf(items, await caller.deps.sessions.factors.codes_left(caller.org, member.id))


@post(
    "/{key:str}/reset-factors",
    status_code=200,
    **operation(Operation.FACTOR_RESET, "resetFactors", summary="Forget a member's second factors"),
)
async def reset(caller: CallerDependency, key: FromPath[str]) -> FactorsReset:
    """For who has lost the phone and the recovery codes. Every session of theirs ends: who has the phone now may
    have one. At their next sign-in the password is enough, to add another factor where one is demanded. Of an
    owner only by an owner."""
    member = await caller.store.members.get(key)
    await caller.require_manage(member.roles, member.roles)
    deps, id_ = caller.deps, MemberId(key)
    factors = await deps.sessions.factors.reset(caller.org, id_)
    # A crash here leaves a reset without an entry, or sessions that go on: repeating it finishes it.
    await caller.store.note("factor.reset", key, caller.actor, {"factors": factors})
    sessions = await deps.sessions.end_sessions(caller.org, id_)
    await caller.store.revoke(revoke_tokens(caller.org, deps.clock(), member=key), caller.actor)
    await caller.shut_out(key)
    return FactorsReset(factors, sessions)


def router() -> Router:
    return Router(path="/orgs/{org:str}/members", tags=["Members"], route_handlers=[index, reset])
