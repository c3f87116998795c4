"""What is used of budgets, taken along when days, weeks and months begin elsewhere. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from gateway.limits.protocol import Part, SliceAsk
from gateway.limits.windows import window_at
from tenants.budgets import BudgetUse
from tenants.ids import OrgId
from tenants.models import Limit, LimitUnit

AT_ONCE = 200
"""Budgets in one message."""

Bucket = tuple[str, str, LimitUnit, int]


def to_carry(
    found: Sequence[tuple[BudgetUse, Limit]], was: str, timezone: str, now_s: float
) -> dict[OrgId, list[Part]]:
    """What is to be charged where, so that no window that runs in `timezone` has less used than the one that runs
    in `was`. `found`: all that is known of those budgets, with the limits as they are now.

    What workers have been lent counts as used, here and there: nobody knows yet what they have spent of it.
    """
    there: dict[tuple[OrgId, Bucket], int] = {
        (use.org, (use.limit, use.subject, use.unit, use.starts_s)): use.used + use.lent for use, _ in found
    }
    parts: dict[OrgId, list[Part]] = {}
    for use, limit in found:
        starts_s, ends_s = window_at(limit.window, timezone, now_s)
        if use.unit is not limit.unit or use.starts_s != window_at(limit.window, was, now_s)[0]:
            continue
        missing = use.used + use.lent - there.get((use.org, (use.limit, use.subject, use.unit, starts_s)), 0)
        if starts_s != use.starts_s and missing > 0:
            part = Part(
                use.limit, use.subject, use.unit, use.amount, use.amount, 0, starts_s, ends_s, spent=missing
            )
            parts.setdefault(use.org, []).append(part)
    return parts


def messages(org: OrgId, parts: Sequence[Part]) -> Iterator[SliceAsk]:
    """The same parts are the same message, and the store counts it once for as long as a lease: two control
    processes may say it. Its sessions have nothing in their hands, and end with their lease."""
    for start in range(0, len(parts), AT_ONCE):
        some = tuple(parts[start : start + AT_ONCE])
        name = hashlib.sha256(msgspec.msgpack.encode(some)).hexdigest()[:16]
        yield SliceAsk(org, f"zone-{name}", "", "", 1, parts=some)
