"""How many limits an organization may have. Pure.

Every request asks for all limits that apply to it at once, and the store of limits serves nobody else meanwhile:
so there are only so many for one request. Those of different members do not add up, and the like.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from tenants.models import LimitScope

MOST_LIMITS: Final = 250
"""Of one organization, and of the platform's own: a worker looks through all of them when it sees a caller first,
and again after each change of the organization (14 µs each, 3.5 ms), and serves nobody else meanwhile."""

MOST_AT_ONCE: Final = 100
"""Of those, for one request. With as many of the platform's beside them it asks for 200 buckets: Redis takes
2 to 4 ms for those (11 µs each), and workers wait 100 ms for an answer."""

TEAMS: Final = 8
"""A request is taken to be of somebody in so many teams: few people are in more (32 are the most)."""


def at_once(limits: Iterable[tuple[LimitScope, str, int]]) -> int:
    """How many of `limits` (scope, subject, so many of them) apply to the one request that meets most of them."""
    of: dict[LimitScope, Counter[str]] = {}
    for scope, subject, count in limits:
        of.setdefault(scope, Counter())[subject] += count
    return sum(_met(scope, counts) for scope, counts in of.items())


def _met(scope: LimitScope, counts: Counter[str]) -> int:
    subjects = TEAMS if scope is LimitScope.TEAM else 1
    each = counts.pop("", 0) * subjects
    return each + sum(count for _, count in counts.most_common(subjects))
