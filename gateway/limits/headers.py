"""What is left, for the caller: OpenAI's `x-ratelimit-*` (API reference, "Rate limits"), served or refused."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.exchange import Claim, Standing
from tenants.amounts import dollars
from tenants.models import LimitUnit

Headers = list[tuple[bytes, bytes]]

_UNITS = {unit: unit.value.replace("_", "-").encode() for unit in LimitUnit}


def standings(claims: Sequence[Claim], left: Sequence[int], now_ms: int) -> tuple[Standing, ...]:
    """Of the strictest claim of each unit, with so many units `left` in each claim's bucket. Where there is no
    limit, nothing is said. `now_ms`: Unix time, milliseconds; only budgets look at it."""
    strictest: dict[LimitUnit, tuple[int, Claim]] = {}
    for claim, units in zip(claims, left, strict=True):
        unit = claim.unit
        if unit not in strictest or units < strictest[unit][0]:
            strictest[unit] = units, claim
    return tuple([_standing(claim, units, now_ms) for units, claim in strictest.values()])


def _standing(claim: Claim, left: int, now_ms: int) -> Standing:
    amount = claim.amount
    reset_ms = 0
    if claim.ends_s:
        reset_ms = max(claim.ends_s * 1_000 - now_ms, 0)
    elif amount > 0 and claim.unit is not LimitUnit.CONCURRENCY:
        missing = (claim.burst or amount) - left
        if missing > 0:
            reset_ms = -(-missing * (claim.period_s or 1) * 1_000 // amount)
    return Standing(claim.unit, amount, left if left > 0 else 0, reset_ms)


def rate_limit_headers(standings: Sequence[Standing]) -> Headers:
    """OpenAI has names for requests and tokens; the other units' are made the same way. Spend is in dollars.
    Concurrency has no time at which it is full again."""
    headers: Headers = []
    for standing in standings:
        unit, remaining = _UNITS[standing.unit], max(standing.remaining, 0)
        if standing.unit is LimitUnit.SPEND:
            limit, rest = dollars(standing.limit).encode(), dollars(remaining).encode()
        else:
            limit, rest = b"%d" % standing.limit, b"%d" % remaining
        headers += [(b"x-ratelimit-limit-" + unit, limit), (b"x-ratelimit-remaining-" + unit, rest)]
        if standing.unit is not LimitUnit.CONCURRENCY:
            headers.append((b"x-ratelimit-reset-" + unit, b"%dms" % standing.reset_ms))
    return headers
