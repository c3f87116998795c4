"""Stages 2 and 4: the caller's organization, and its policy's word on the call. Pure; nothing awaits."""

from __future__ import annotations

from gateway.errors import BadRequestError, ForbiddenError, SuspendedError, UnauthenticatedError, UnknownModelError
from gateway.exchange import Call, Permit, Principal
from policies.facts import Action, Allowed, Facts
from tenants.models import ModelAlias
from tenants.snapshot import Snapshot, Tenant


def resolve(principal: Principal, snapshot: Snapshot) -> Tenant:
    """Stage 2: `Principal` → `Tenant`. An organization that is gone answers like a token that was never ours."""
    tenant = snapshot.tenants.get(principal.org)
    if tenant is None:
        raise UnauthenticatedError("the access token is not valid here")
    if not tenant.active:
        raise SuspendedError("the organization is suspended", rule="organization-active")
    return tenant


def authorize(principal: Principal, tenant: Tenant, call: Call) -> Permit:
    """Stage 4: the only maker of a `Permit`.

    An unknown model is 404 before any policy is asked: an alias exists or doesn't for the whole
    organization. A refusal names the rule, so that a member can tell an admin which one to look at.
    """
    alias = tenant.models.get(call.model)
    if alias is None:
        raise UnknownModelError(f"the model '{call.model}' does not exist in this organization", param="model")
    if call.task not in alias.tasks:
        raise BadRequestError(f"the model '{alias.name}' does not do {call.task}", param="model")
    decision = tenant.policy.decide(_facts(principal, call.task, alias.name))
    if not isinstance(decision, Allowed):
        raise ForbiddenError(decision.reason, rule=decision.rule)
    return Permit(principal=principal, tenant=tenant, call=call, alias=alias, rule=decision.rule)


def visible_models(principal: Principal, tenant: Tenant) -> list[ModelAlias]:
    """The aliases a member may list: those whose listing a rule allows. Ordered by name."""
    return [
        alias
        for name, alias in sorted(tenant.models.items())
        if isinstance(tenant.policy.decide(_facts(principal, Action.LIST_MODELS, name)), Allowed)
    ]


def _facts(principal: Principal, action: Action, model: str) -> Facts:
    return Facts(
        org=principal.org,
        member=principal.member,
        roles=principal.roles,
        client=principal.client,
        action=action,
        model=model,
    )
