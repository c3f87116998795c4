"""How long an organization's audit log is kept, and the legal hold that keeps all of it."""

from __future__ import annotations

from typing import Annotated

from litestar import delete, get, put
from litestar.params import RequestBody
from msgspec import Meta, Struct, structs

from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.problems import ProblemError, invalid
from gateway.api.admin.routing import operation
from gateway.retention import DAY_MS, rule_of
from tenants.models import Org
from tenants.roles import Operation
from tenants.store import VersionMismatchError

_ATTEMPTS = 5


class HoldBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`reason`: in words, for those who read it in years. It stands in the audit log: name a case, and nobody."""

    reason: Annotated[str, Meta(min_length=1, max_length=256)]


class AuditKeeping(Struct, frozen=True):
    """`hold` is why nothing is dropped now, '' when there is no hold. Entries from `begin` on are kept; there are
    `size` in all. `retention_days` is what holds here, the platform's own settings counted."""

    hold: str
    retention_days: int
    begin: int
    size: int


@get(
    "/hold",
    **operation(Operation.AUDIT_READ, "getAuditHold", noted=True, summary="Read what is kept, and for how long"),
)
async def show(caller: CallerDependency) -> AuditKeeping:
    """How long entries are kept, whether a legal hold keeps all of them, and where the log begins now."""
    return await _keeping(caller, await caller.deps.store.orgs.get(caller.org))


@put(
    "/hold",
    status_code=200,
    **operation(Operation.AUDIT_HOLD, "setAuditHold", body=True, conflict=True, summary="Set a legal hold"),
)
async def hold(caller: CallerDependency, data: RequestBody[HoldBody]) -> AuditKeeping:
    """From now on no entry is dropped, however old, and objects are held in their bucket too. Another replaces the
    reason. The organization cannot be deleted meanwhile."""
    reason = data.reason.strip()
    if not reason or not reason.isprintable():
        raise invalid(("reason", "is 1 to 256 printable characters"))
    return await _keeping(caller, await _set(caller, reason))


@delete(
    "/hold",
    status_code=200,
    **operation(Operation.AUDIT_HOLD, "clearAuditHold", conflict=True, summary="Clear the legal hold"),
)
async def clear(caller: CallerDependency) -> AuditKeeping:
    """What is past its time goes soon after. Harmless when there is none."""
    return await _keeping(caller, await _set(caller, ""))


async def _set(caller: Caller, reason: str) -> Org:
    orgs = caller.deps.store.orgs
    for _ in range(_ATTEMPTS):
        current = await orgs.get(caller.org)
        if current.audit_hold == reason:
            return current
        try:
            return await orgs.replace(structs.replace(current, audit_hold=reason), current.version, caller.actor)
        except VersionMismatchError:
            continue
    raise ProblemError(409, "busy", "The organization keeps being changed by somebody else; try again.")


async def _keeping(caller: Caller, org: Org) -> AuditKeeping:
    begin, size = await caller.deps.audit.range(caller.org)
    rule = rule_of(caller.deps.audit_store, org)
    return AuditKeeping(org.audit_hold, rule.keep_ms // DAY_MS, begin, size)


HANDLERS = [show, hold, clear]
