"""A limit's no, in words."""

from __future__ import annotations

from gateway.errors import LimitExceededError
from gateway.limits.messages import Refused
from tenants.models import LimitUnit

_WHOSE = {
    "org": "the whole organization",
    "member": "each member",
    "model": "each model",
    "client": "each client",
}


def exceeded(refused: Refused) -> LimitExceededError:
    """The error that a caller sees. `Retry-After` is rounded up: one alone on its bucket who waits it succeeds."""
    limit = f"limit '{refused.limit}' (for {_WHOSE.get(refused.scope, refused.scope)})"
    seconds = max(1, -(-refused.wait_us // 1_000_000))
    if refused.most <= 0:
        message = f"{limit} lets nothing pass"
    elif refused.never:
        message = (
            f"{limit} holds {refused.most} {refused.unit} at most and this request asks for {refused.cost}:"
            " shorten it or lower max_tokens"
        )
    elif refused.unit == LimitUnit.CONCURRENCY:
        message = f"{limit} allows {refused.most} requests at once, and as many are in flight"
    else:
        message = f"{limit} is used up; try again in {seconds} s"
    return LimitExceededError(message, limit=refused.limit, scope=refused.scope, retry_after_s=seconds)
