"""What is left, for the caller: OpenAI's `x-ratelimit-*` (API reference, "Rate limits"), served or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.exchange import Claim, Headers
from gateway.quota import Quota, Words
from tenants.amounts import dollars
from tenants.models import LimitUnit

BUDGET = b"x-orgate-budget"

_SPEND, _SLOTS = LimitUnit.SPEND, LimitUnit.CONCURRENCY


def rate_limit_headers(claims: Sequence[Claim], left: Sequence[int], now_ms: Callable[[], int]) -> Headers:
    """Of the strictest claim of each unit, with so many units `left` in each claim's bucket, and of each budget
    that is used so far that callers are told. Where there is no limit, nothing is said. `now_ms`: Unix time,
    milliseconds; only budgets look at it.

    OpenAI has names for requests and tokens; the other units' are made the same way. Spend is in dollars.
    Concurrency has no time at which it is full again. A budget of which callers are told is a header of its own, a
    structured field (RFC 9651): its name, the percent used and the seconds until it begins anew.
    """
    headers: Headers = []
    units_seen = 0
    for place, claim in enumerate(claims):  # `zip` with `strict` takes as long as all the rest
        words = claim.quota.words
        bit = words.bit
        if not bit or units_seen & bit:
            return _any(claims, left, now_ms)
        units_seen |= bit
        said = words.said
        units = left[place]
        if said.units != units:
            _say(words, units)
        headers += said.headers
    return headers


def _any(claims: Sequence[Claim], left: Sequence[int], now_ms: Callable[[], int]) -> Headers:
    strictest: dict[LimitUnit, tuple[Quota, int]] = {}
    told: Headers = []
    for claim, units in zip(claims, left, strict=True):
        quota = claim.quota
        other = strictest.get(quota.unit)
        if other is None or units < other[1]:
            strictest[quota.unit] = quota, units
        if quota.notify_at and (quota.amount - units) * 100 >= quota.notify_at * quota.amount:
            told.append(_budget(quota, units, now_ms()))
    headers: Headers = []
    for quota, units in strictest.values():
        words = quota.words
        if not words.bit:
            headers += _other(quota, max(units, 0), now_ms)
            continue
        if words.said.units != units:
            _say(words, units)
        headers += words.said.headers
    return headers + told


def _say(words: Words, units: int) -> None:
    """Whole numbers, of a bucket that refills."""
    missing = words.cap - units
    wait_ms = -(-missing * words.period_ms // words.amount) if missing > 0 else 0
    said = words.said
    said.units = units
    left = b"%d" % (units if units > 0 else 0)
    said.headers = words.limit, (words.remaining, left), (words.reset, b"%dms" % wait_ms)


def _other(quota: Quota, units: int, now_ms: Callable[[], int]) -> Headers:
    """What is not counted in whole numbers, or does not refill."""
    words = quota.words
    said = dollars(units).encode() if quota.unit is _SPEND else b"%d" % units
    headers = [words.limit, (words.remaining, said)]
    if quota.unit is not _SLOTS:
        headers.append((words.reset, b"%dms" % _reset_ms(quota, units, now_ms)))
    return headers


def _reset_ms(quota: Quota, units: int, now_ms: Callable[[], int]) -> int:
    if quota.ends_s:
        return max(quota.ends_s * 1_000 - now_ms(), 0)
    missing = quota.words.cap - units
    if quota.amount <= 0 or missing <= 0:
        return 0
    return -(-missing * quota.words.period_ms // quota.amount)


def _budget(quota: Quota, units: int, now_ms: int) -> tuple[bytes, bytes]:
    used = (quota.amount - max(units, 0)) * 100 // max(quota.amount, 1)
    reset_s = -(-max(quota.ends_s * 1_000 - now_ms, 0) // 1_000)
    # A token begins with a letter (RFC 9651 section 3.3.4), and a limit's name may begin with a digit.
    name = quota.limit if quota.limit[:1].isalpha() else f'"{quota.limit}"'
    return BUDGET, b"%b;used=%d;reset=%d" % (name.encode(), used, reset_s)
