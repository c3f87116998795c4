"""Which limits apply to a permitted call, and how much it asks of each. Pure, but for what it remembers."""

from __future__ import annotations

from gateway.exchange import Claim, Permit
from policies.facts import Action
from tenants.ids import OrgId
from tenants.models import Limit, LimitScope, LimitUnit

BYTES_PER_TOKEN = 4
"""An estimate for code and English; what was really used is settled afterwards."""

MOST = 2**53
"""No estimate is larger: what every JSON reader agrees on, and beyond any limit."""


REMEMBERED = 4_096
"""Callers whose claims are kept ready: by organization, member, model and client."""

_ready: dict[tuple[OrgId, str, str, str], tuple[tuple[Limit, ...], tuple[Claim, ...], bool]] = {}


def claims_for(permit: Permit) -> tuple[Claim, ...]:
    """One claim for each limit of the permit's organization that applies to this member, model and client."""
    limits = permit.tenant.limits
    if not limits:
        return ()
    key = (permit.tenant.id, permit.principal.member, permit.alias.name, permit.principal.client)
    ready = _ready.get(key)
    if ready is None or ready[0] is not limits:  # never seen, or from before the last change of any limit
        if len(_ready) >= REMEMBERED:
            _ready.clear()
        claims = _claims(permit)
        ready = _ready[key] = limits, claims, any(claim.unit is LimitUnit.TOKENS for claim in claims)
    if not ready[2]:
        return ready[1]
    tokens = estimate(permit)
    return tuple([claim if claim.unit is not LimitUnit.TOKENS else costing(claim, tokens) for claim in ready[1]])


def costing(claim: Claim, cost: int) -> Claim:
    """The same bucket, another cost."""
    return Claim(
        claim.org,
        claim.limit,
        claim.scope,
        claim.subject,
        claim.unit,
        cost,
        claim.amount,
        claim.burst,
        claim.period_s,
    )


def _claims(permit: Permit) -> tuple[Claim, ...]:
    return tuple(
        Claim(
            org=permit.tenant.id,
            limit=limit.name,
            scope=limit.scope,
            subject=subject,
            unit=limit.unit,
            cost=1,
            amount=limit.amount,
            burst=limit.burst or limit.amount,
            period_s=limit.period_s,
        )
        for limit in permit.tenant.limits
        if (subject := _subject(limit, permit)) is not None
    )


def estimate(permit: Permit) -> int:
    """Tokens to reserve: the body's bytes by rule of thumb and the longest answers that may come."""
    call = permit.call
    prompt = -(-call.size // BYTES_PER_TOKEN)
    if call.task is Action.EMBED:  # an embedding has no completion
        return prompt
    answer = permit.alias.max_tokens if call.max_tokens is None else call.max_tokens
    return min(prompt + call.answers * answer, MOST)


def _subject(limit: Limit, permit: Permit) -> str | None:
    """Whose bucket this call draws from; None: the limit is about somebody else."""
    if limit.scope is LimitScope.ORG:
        return ""
    subject = {
        LimitScope.MEMBER: permit.principal.member,
        LimitScope.MODEL: permit.alias.name,
        LimitScope.CLIENT: permit.principal.client,
    }[limit.scope]
    return subject if limit.subject in ("", subject) else None
