"""Which limits apply to a permitted call, and how much it asks of each. Pure."""

from __future__ import annotations

from gateway.exchange import Claim, Permit
from policies.facts import Action
from tenants.models import Limit, LimitScope, LimitUnit

BYTES_PER_TOKEN = 4
"""An estimate for code and English; what was really used is settled afterwards."""

MOST = 2**53
"""No estimate is larger: what every JSON reader agrees on, and beyond any limit."""


def claims_for(permit: Permit) -> tuple[Claim, ...]:
    """One claim for each limit of the permit's organization that applies to this member, model and client."""
    tokens = estimate(permit)
    return tuple(
        Claim(
            org=permit.tenant.id,
            limit=limit.name,
            scope=limit.scope,
            subject=subject,
            unit=limit.unit,
            cost=tokens if limit.unit is LimitUnit.TOKENS else 1,
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
