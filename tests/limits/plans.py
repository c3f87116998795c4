"""The runs of `make limits`. Each offers about twice what its limits let pass."""

from __future__ import annotations

from tenants.models import LimitUnit
from tests.limits.plan import ANSWER, PROMPT, Bound, Plan

RATE = 6_000
"""Requests a second, over all workers."""

CANCELLED = 0.45

SMALL_BAR_PCT = 8.0
"""An outage and its end cost the same, however long the run is."""

USED = round(PROMPT * (1 - CANCELLED / 2) + ANSWER / 4 * CANCELLED / 2 + ANSWER * 17 / 32 * (1 - CANCELLED))
"""Tokens that one request uses on average, had all been admitted (see `plan.Plan`)."""


def plans(*, small: bool, seed: int, rate: int = RATE) -> tuple[Plan, ...]:
    """`small`: each takes seconds, of which the outage is more than a tenth; it is held to `SMALL_BAR_PCT`."""
    many, some, outage_s, bar_pct = (
        (24_000, 24_000, 0.5, SMALL_BAR_PCT) if small else (1_000_000, 250_000, 1.0, 1.0)
    )
    tokens = rate * USED // 2
    return (
        Plan(
            "requests",
            many,
            rate,
            (Bound("per-second", "org", LimitUnit.REQUESTS, rate // 2, rate // 2),),
            seed=seed,
            outage_s=outage_s,
            bar_pct=bar_pct,
        ),
        Plan(
            "tokens",
            many,
            rate,
            (Bound("tokens", "org", LimitUnit.TOKENS, tokens, tokens),),
            seed=seed,
            cancelled=CANCELLED,
            lasting=True,
            outage_s=outage_s,
            bar_pct=bar_pct,
        ),
        Plan(
            "several",
            many,
            rate,
            (
                Bound("org", "org", LimitUnit.REQUESTS, rate // 2, rate // 2),
                Bound("team", "team", LimitUnit.TOKENS, tokens // 5, tokens // 5, subjects=5),
                Bound("member", "member", LimitUnit.REQUESTS, rate // 40, rate // 40, subjects=40),
            ),
            seed=seed,
            cancelled=CANCELLED,
            lasting=True,
            people=40,
            outage_s=outage_s,
            bar_pct=bar_pct,
        ),
        Plan(
            "budget",
            some,
            rate,
            (Bound("month", "org", LimitUnit.TOKENS, some * USED // 2, some * USED // 2, budget=True),),
            seed=seed,
            cancelled=CANCELLED,
            lasting=True,
            # Half of it is used then: most of what is asked for passes until all is.
            outage_at=0.25,
            outage_s=outage_s,
            bar_pct=bar_pct,
        ),
    )
