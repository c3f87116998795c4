"""Which of two limits never decides, and that nothing is said where both do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.ids import OrgId
from tenants.models import Limit, LimitScope, LimitUnit, Window
from tenants.overlap import remarks


def limit(name: str, amount: int = 60, **changes: Any) -> Limit:
    values: dict[str, Any] = {"scope": LimitScope.MEMBER, "unit": LimitUnit.REQUESTS, "period_s": 60, **changes}
    if values.get("window") or values["unit"] is LimitUnit.CONCURRENCY:
        values["period_s"] = 0
    return Limit(org=OrgId("acme"), name=name, amount=amount, **values)


SLOTS = {"unit": LimitUnit.CONCURRENCY}
ORG = {"scope": LimitScope.ORG}
DAY, WEEK, MONTH = ({"window": window} for window in (Window.DAY, Window.WEEK, Window.MONTH))


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (limit("ann", 600, subject="mem_1"), limit("all", 60)),
        (limit("ann", 60, subject="mem_1"), limit("all", 60)),
        (limit("each", 100), limit("org", 100, **ORG)),
        (limit("hour", 3_600, period_s=3_600), limit("minute", 60)),
        (limit("day", 90_060, **DAY), limit("minute", 60)),
        (limit("slots", 5, **SLOTS), limit("few", 5, **SLOTS)),
        (limit("day", 100, **DAY), limit("month", 100, **MONTH)),
        (limit("week", 200, **WEEK), limit("month", 100, **MONTH)),
    ],
)
def test_the_larger_never_decides_whichever_was_first(new: Limit, old: Limit) -> None:
    (said,) = remarks(new, [old, new])
    assert said.startswith(f"limit '{new.name}' never decides: '{old.name}' allows no more")
    (said,) = remarks(old, [new])
    assert said.startswith(f"limit '{new.name}' does not decide any more: '{old.name}'") or "never decides" in said


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (limit("ann", 30, subject="mem_1"), limit("all", 60)),
        (limit("ann", 30, subject="mem_1"), limit("bob", 60, subject="mem_2")),
        (limit("a", 60, burst=5), limit("b", 30)),
        (limit("org", 100, **ORG), limit("each", 10)),
        (limit("tokens", 100, unit=LimitUnit.TOKENS), limit("requests", 10)),
        (limit("model", 100, scope=LimitScope.MODEL), limit("member", 10)),
        (limit("hour", 3_599, period_s=3_600), limit("minute", 60)),
        (limit("day", 86_400, **DAY), limit("minute", 60)),
        (limit("week", 199, **WEEK), limit("month", 100, **MONTH)),
        (limit("month", 1_000, **MONTH), limit("day", 100, **DAY)),
        (limit("minute", 60), limit("day", 60, **DAY)),
    ],
)
def test_nothing_is_said_where_both_decide(new: Limit, old: Limit) -> None:
    assert [said for said in remarks(new, [old]) if said.startswith(f"limit '{new.name}' never")] == []


rates = st.builds(
    lambda amount, period_s, burst: (amount, period_s, min(burst or amount, amount)),
    st.integers(1, 50),
    st.sampled_from([1, 60, 3_600]),
    st.integers(0, 50),
)


@given(rates, rates, st.lists(st.integers(0, 5_000), min_size=1, max_size=60))
def test_what_is_said_never_to_decide_refuses_nothing_that_the_other_grants(
    one: tuple[int, int, int], other: tuple[int, int, int], gaps: list[int]
) -> None:
    """Held against buckets in thousandths of a unit: each arrival that the other grants, both together grant."""
    made = [
        limit(name, amount, period_s=s, burst=burst) for name, (amount, s, burst) in (("a", one), ("b", other))
    ]
    if not any(said.startswith("limit 'a' never") for said in remarks(made[0], [made[1]])):
        return
    levels = [burst * period_s for _, period_s, burst in (one, other)]
    for gap in gaps:
        for place, (amount, period_s, burst) in enumerate((one, other)):
            levels[place] = min(burst * period_s, levels[place] + amount * gap)
        if levels[1] >= other[1]:
            assert levels[0] >= one[1]
            levels = [levels[0] - one[1], levels[1] - other[1]]
