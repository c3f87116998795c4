"""What is left, for the caller: OpenAI's `x-ratelimit-*` (API reference, "Rate limits"), served or refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from gateway.exchange import Claim, Standing
from tenants.amounts import dollars
from tenants.models import LimitUnit

Headers = list[tuple[bytes, bytes]]

BUDGET = b"x-orgate-budget"

# By the unit's plain text: to hash a member of an enumeration is a call, and this is done for every answer.
_NAMES = {
    str(unit.value): tuple(
        b"x-ratelimit-%b-%b" % (what, unit.value.replace("_", "-").encode())
        for what in (b"limit", b"remaining", b"reset")
    )
    for unit in LimitUnit
}
_SPEND, _SLOTS = LimitUnit.SPEND, LimitUnit.CONCURRENCY


def standings(claims: Sequence[Claim], left: Sequence[int], now_ms: int) -> tuple[Standing, ...]:
    """Of the strictest claim of each unit, with so many units `left` in each claim's bucket, and of each budget
    that is used so far that callers are told. Where there is no limit, nothing is said. `now_ms`: Unix time,
    milliseconds; only budgets look at it."""
    said: list[Standing] = []
    strictest: dict[str, tuple[int, int]] = {}
    told: list[Standing] = []
    for place, claim in enumerate(claims):
        units, unit = left[place], claim.unit._value_
        other = strictest.get(unit)
        if other is None:
            strictest[unit] = units, len(said)
            said.append(_standing(claim, units, now_ms))
        elif units < other[0]:
            strictest[unit] = units, other[1]
            said[other[1]] = _standing(claim, units, now_ms)
        if claim.notify_at and (claim.amount - units) * 100 >= claim.notify_at * claim.amount:
            told.append(_standing(claim, units, now_ms, claim.limit))
    return (*said, *told) if told else tuple(said)


def _standing(claim: Claim, left: int, now_ms: int, budget: str = "") -> Standing:
    amount = claim.amount
    reset_ms = 0
    if claim.ends_s:
        reset_ms = max(claim.ends_s * 1_000 - now_ms, 0)
    elif claim.unit is not _SLOTS and amount > 0 and (missing := (claim.burst or amount) - left) > 0:
        reset_ms = -(-missing * (claim.period_s or 1) * 1_000 // amount)
    return Standing(claim.unit, amount, left if left > 0 else 0, reset_ms, budget)


def rate_limit_headers(standings: Sequence[Standing]) -> Headers:
    """OpenAI has names for requests and tokens; the other units' are made the same way. Spend is in dollars.
    Concurrency has no time at which it is full again. A budget of which callers are told is a header of its own, a
    structured field (RFC 9651): its name, the percent used and the seconds until it begins anew."""
    headers: Headers = []
    for standing in standings:
        remaining = standing.remaining if standing.remaining > 0 else 0
        if standing.budget:
            used = (standing.limit - remaining) * 100 // max(standing.limit, 1)
            said = b"%b;used=%d;reset=%d" % (standing.budget.encode(), used, -(-standing.reset_ms // 1_000))
            headers.append((BUDGET, said))
            continue
        unit = standing.unit
        _, left, reset = _NAMES[unit._value_]
        headers.append(_limit(unit._value_, standing.limit))
        if unit is _SPEND:
            headers.append((left, dollars(remaining).encode()))
        else:
            headers.append((left, b"%d" % remaining))
        if unit is not _SLOTS:
            headers.append((reset, b"%dms" % standing.reset_ms))
    return headers


@lru_cache(maxsize=4_096)
def _limit(unit: str, amount: int) -> tuple[bytes, bytes]:
    """The same for everybody until an admin changes it."""
    said = dollars(amount) if unit == _SPEND else str(amount)
    return _NAMES[unit][0], said.encode()
