"""Stages 2 and 4: the caller's organization, and its policy's word on the call. Pure; nothing awaits."""

from __future__ import annotations

from typing import Final

from gateway.errors import BadRequestError, ForbiddenError, SuspendedError, UnauthenticatedError, UnknownModelError
from gateway.exchange import Call, Permit, Principal
from policies.facts import Action, Allowed, Facts
from tenants.models import ModelAlias
from tenants.snapshot import Snapshot, Tenant

SCOPE_RULE: Final = "personal-token-scope"
"""Named where a rule would be: no rule of the organization's can widen what a token was made for."""


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
    if principal.scope is not None and not principal.scope.covers(call.task, alias.name):
        raise ForbiddenError(
            f"this personal token is not for {call.task} on model '{alias.name}'", rule=SCOPE_RULE
        )
    decision = tenant.policy.decide(_facts(principal, call.task, alias.name))
    if not isinstance(decision, Allowed):
        raise ForbiddenError(decision.reason, rule=decision.rule)
    return Permit(principal=principal, tenant=tenant, call=call, alias=alias, rule=decision.rule)


def visible_models(principal: Principal, tenant: Tenant) -> list[ModelAlias]:
    """The aliases a member may list: those whose listing a rule allows. Ordered by name. A personal token that may
    list none at all is refused."""
    scope = principal.scope
    if scope is not None and Action.LIST_MODELS not in scope.actions:
        raise ForbiddenError(f"this personal token is not for {Action.LIST_MODELS}", rule=SCOPE_RULE)
    return [
        alias
        for name, alias in sorted(tenant.models.items())
        if (scope is None or scope.covers(Action.LIST_MODELS, name))
        and isinstance(tenant.policy.decide(_facts(principal, Action.LIST_MODELS, name)), Allowed)
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
