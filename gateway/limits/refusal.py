"""A limit's no, in words."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.errors import LimitExceededError, LimitUnavailableError, QuotaExceededError
from gateway.exchange import Claim, Headers
from gateway.quota import Quota
from tenants.amounts import dollars
from tenants.ids import PLATFORM
from tenants.models import LimitUnit

OF_PLATFORM = "platform/"
"""Before the name of a limit that the platform's operators set, in a claim on an organization's own bucket."""

_WHOSE = {
    "org": "the whole organization",
    "team": "each team",
    "member": "each member",
    "model": "each model",
    "client": "each client",
    "upstream": "each upstream",
}
_SET_BY = {"organization": "your organization's admins", "platform": "the platform's operators"}


def refused(claim: Claim, wait_us: int, headers: Headers | None = None, *, left: int = 0) -> LimitExceededError:
    """The error that a caller sees. `claim` says no for longest; `wait_us`: until it would say yes to one alone on
    it, -1: never. `Retry-After` is rounded up: who waits it succeeds. `headers`: what is left of all claims.
    `left`: whole units in the bucket of `claim`."""
    seconds = max(1, -(-wait_us // 1_000_000)) if wait_us >= 0 else None
    until = _instant(claim.quota.ends_s) if claim.quota.ends_s else ""
    if claim.quota.amount <= 0:
        said = "lets nothing pass"
    elif wait_us < 0:
        most = _quantity(claim.quota.burst or claim.quota.amount, claim.quota.unit)
        said = (
            f"holds {most} at most and this request asks for {_number(claim.enough, claim.quota.unit)}:"
            " shorten it or lower max_tokens"
        )
    elif claim.quota.unit is LimitUnit.CONCURRENCY:
        said = f"allows {claim.quota.amount} requests at once, and as many are in flight"
    elif left > 0:
        has = f"has {_quantity(left, claim.quota.unit)} left" + (f" until {until}" if until else "")
        said = f"{has} and this request asks for {_number(claim.enough, claim.quota.unit)}"
        said += "" if until else f"; try again in {seconds} s"
    elif claim.quota.ends_s:
        said = f"of {_quantity(claim.quota.amount, claim.quota.unit)} is used up until {until}"
    else:
        said = f"is used up; try again in {seconds} s"
    return _error(claim, said, retry_after_s=seconds, headers=headers)


def ended(claim: Claim) -> LimitExceededError:
    """The last event of a stream whose limit ended in its middle (`OnEnd.CUT`)."""
    until = f" until {_instant(claim.quota.ends_s)}" if claim.quota.ends_s else ""
    said = f"of {_quantity(claim.quota.amount, claim.quota.unit)} was used up in the middle of this answer{until}"
    return _error(claim, said, retry_after_s=None)


def undecided(claim: Claim) -> LimitUnavailableError:
    """Nobody can tell whether `claim` is covered, and the limit says `OnOutage.DENY`."""
    by = owner(claim.quota)
    return LimitUnavailableError(
        f"{_named(claim)} cannot be asked now, and lets nothing pass until it can; set by {_SET_BY[by]}",
        limit=claim.quota.limit,
        scope=claim.quota.scope,
        retry_after_s=1,
        owner=by,
    )


def owner(quota: Quota) -> str:
    """Who set the limit: `organization` or `platform`."""
    return "platform" if quota.org == PLATFORM or quota.limit.startswith(OF_PLATFORM) else "organization"


def _error(
    claim: Claim, said: str, *, retry_after_s: int | None, headers: Headers | None = None
) -> LimitExceededError:
    kind = QuotaExceededError if claim.quota.ends_s else LimitExceededError
    by = owner(claim.quota)
    return kind(
        f"{_named(claim)} {said}; set by {_SET_BY[by]}",
        limit=claim.quota.limit,
        scope=claim.quota.scope,
        retry_after_s=retry_after_s,
        owner=by,
        resets_at=_instant(claim.quota.ends_s) if claim.quota.ends_s else "",
        headers=headers or [],
    )


def _named(claim: Claim) -> str:
    quota = claim.quota
    whose = "all organizations together" if quota.org == PLATFORM else _WHOSE.get(quota.scope, quota.scope)
    return f"limit '{quota.limit}' (for {whose})"


def _number(amount: int, unit: LimitUnit) -> str:
    return f"{dollars(amount)} dollars" if unit is LimitUnit.SPEND else str(amount)


def _quantity(amount: int, unit: LimitUnit) -> str:
    """As a program reads it too: no thousands are parted."""
    return _number(amount, unit) if unit is LimitUnit.SPEND else f"{amount} {unit.value.replace('_', ' ')}"


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
